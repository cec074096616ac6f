//! What a load reports: who answered how often, and what failed in which way.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

/// Messages of failed requests that a report keeps: enough to see what went wrong.
const KEPT_MESSAGES: usize = 5;

/// What became of the requests.
#[derive(Clone, Debug, Default)]
pub struct LoadReport {
    /// Complete answers with status 200, by the first line of their body.
    pub answers: BTreeMap<String, u64>,
    /// Connections that were opened, or tried to.
    pub connections: u64,
    /// Failed requests by kind: `connect refused`, `connect timeout`, `reset`,
    /// `timeout`, `short body`, `status 503` …
    pub errors: BTreeMap<String, u64>,
    /// The first few failures in full.
    pub messages: Vec<String>,
    /// Wall-clock time of all.
    pub took: Duration,
    /// Duration of each answered request, sorted once all are in.
    pub latencies: Vec<Duration>,
}

impl LoadReport {
    /// Number of requests that were answered.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answers.values().sum()
    }

    /// Number of requests that failed.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Answered requests a second.
    #[must_use]
    #[expect(clippy::cast_precision_loss)]
    pub fn rate(&self) -> f64 {
        self.answered() as f64 / self.took.as_secs_f64()
    }

    /// Difference between who answered most and who answered least often.
    /// Who never answered is not known here: compare the number of answers' names, too.
    #[must_use]
    pub fn spread(&self) -> u64 {
        let most = self.answers.values().max().copied().unwrap_or_default();
        most - self.answers.values().min().copied().unwrap_or_default()
    }

    /// The latency that `share` (0 to 1) of the answered requests stayed
    /// within; none if none was answered.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )]
    pub fn latency(&self, share: f64) -> Option<Duration> {
        let last = self.latencies.len().checked_sub(1)?;
        self.latencies
            .get((last as f64 * share.clamp(0.0, 1.0)).ceil() as usize)
            .copied()
    }

    /// The report for another program.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let milliseconds =
            |latency: Option<Duration>| latency.map(|latency| latency.as_secs_f64() * 1000.0);
        json!({
            "answered": self.answered(),
            "failed": self.failed(),
            "answers": self.answers,
            "connections": self.connections,
            "errors": self.errors,
            "messages": self.messages,
            "seconds": self.took.as_secs_f64(),
            "latency_ms": {
                "p50": milliseconds(self.latency(0.5)),
                "p99": milliseconds(self.latency(0.99)),
                "max": milliseconds(self.latency(1.0)),
            },
        })
    }

    pub(crate) fn count(&mut self, outcome: Result<(String, Duration), Failure>) {
        match outcome {
            Ok((name, latency)) => {
                *self.answers.entry(name).or_default() += 1;
                self.latencies.push(latency);
            }
            Err(failure) => {
                if self.messages.len() < KEPT_MESSAGES {
                    self.messages
                        .push(format!("{}: {}", failure.kind, failure.message));
                }
                *self.errors.entry(failure.kind).or_default() += 1;
            }
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        for (name, count) in other.answers {
            *self.answers.entry(name).or_default() += count;
        }
        for (kind, count) in other.errors {
            *self.errors.entry(kind).or_default() += count;
        }
        self.connections += other.connections;
        self.latencies.extend(other.latencies);
        self.messages.extend(other.messages);
        self.messages.truncate(KEPT_MESSAGES);
    }
}

/// Why a request was not answered: a kind to count by, and what exactly happened.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: String,
    pub(crate) message: String,
}

pub(crate) fn failure(kind: impl Into<String>, message: impl Into<String>) -> Failure {
    Failure {
        kind: kind.into(),
        message: message.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up() {
        let mut report = LoadReport::default();
        let mut part = LoadReport::default();
        part.count(Ok(("a".into(), Duration::from_millis(1))));
        part.count(Ok(("b".into(), Duration::from_millis(2))));
        part.count(Err(failure("reset", "by peer")));
        report.add(part.clone());
        report.add(part);
        assert_eq!(
            (report.answered(), report.failed(), report.spread()),
            (4, 2, 0)
        );
        assert_eq!(report.to_json()["errors"]["reset"], 2);
    }
}
