//! What a client has done.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::Load;

/// Failures whose moments are kept: past so many everything fails.
const KEPT_FAILURES: usize = 10_000;

/// Counts what is done, in the window and in all.
pub(crate) struct Report {
    window_begins: Instant,
    window_ends: Instant,
    window: Duration,
    done: u64,
    done_in_window: u64,
    bytes: u64,
    bytes_in_window: u64,
    failed: BTreeMap<String, u64>,
    /// When the connections of the first failures were begun.
    failed_begun_ns: Vec<u64>,
    latencies_ns: Vec<u32>,
}

impl Report {
    /// The warm-up begins now.
    pub(crate) fn begin(load: &Load) -> Self {
        let window_begins = Instant::now() + load.warm_up();
        Self {
            window_begins,
            window_ends: window_begins + load.window(),
            window: load.window(),
            done: 0,
            done_in_window: 0,
            bytes: 0,
            bytes_in_window: 0,
            failed: BTreeMap::new(),
            failed_begun_ns: Vec::new(),
            latencies_ns: Vec::new(),
        }
    }

    /// When nothing new is begun any more.
    pub(crate) fn ends(&self) -> Instant {
        self.window_ends
    }

    /// A request that was due at `since` has its answer.
    ///
    /// # Errors
    ///
    /// When it has it before it was due: then the clock of who asks is wrong, and no latency that
    /// it measures is worth anything.
    pub(crate) fn done(&mut self, since: Instant, now: Instant) -> Result<()> {
        let latency = now
            .checked_duration_since(since)
            .with_context(|| format!("answered {:?} before it was due", since - now))?
            .as_nanos();
        self.done += 1;
        if (self.window_begins..self.window_ends).contains(&now) {
            self.done_in_window += 1;
            // Four seconds and more count as four: beyond every limit that means something.
            self.latencies_ns
                .push(u32::try_from(latency).unwrap_or(u32::MAX));
        }
        Ok(())
    }

    /// Bytes of bulk have come.
    pub(crate) fn received(&mut self, bytes: usize, now: Instant) {
        self.bytes += bytes as u64;
        if (self.window_begins..self.window_ends).contains(&now) {
            self.bytes_in_window += bytes as u64;
        }
    }

    /// A request did not work, on a connection that was begun at that time of the monotonic clock:
    /// another process can compare it with its own.
    pub(crate) fn failed(&mut self, what: impl Into<String>, begun_ns: u64) {
        *self.failed.entry(what.into()).or_default() += 1;
        if self.failed_begun_ns.len() < KEPT_FAILURES {
            self.failed_begun_ns.push(begun_ns);
        }
    }

    pub(crate) fn into_json(mut self) -> Result<Value> {
        self.latencies_ns.sort_unstable();
        let seconds = self.window.as_secs_f64();
        Ok(json!({
            "done": self.done,
            "per_second": self.done_in_window as f64 / seconds,
            "bytes": self.bytes,
            "bytes_per_second": self.bytes_in_window as f64 / seconds,
            "failed": self.failed,
            "failed_begun_ns": self.failed_begun_ns,
            "p50_us": self.latency_us(0.5),
            "p99_us": self.latency_us(0.99),
            "cpu_ns": own_cpu_ns()?,
        }))
    }

    /// The latency that this share of the requests stayed within.
    fn latency_us(&self, share: f64) -> Option<f64> {
        let last = self.latencies_ns.len().checked_sub(1)?;
        let index = (last as f64 * share).ceil() as usize;
        Some(f64::from(*self.latencies_ns.get(index)?) / 1e3)
    }
}

/// Time that this thread, the only one, has had of a processor.
fn own_cpu_ns() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/schedstat")?;
    let first = text.split(' ').next().unwrap_or_default();
    first
        .parse()
        .with_context(|| format!("/proc/self/schedstat has {text:?}"))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn report() -> Report {
        Report::begin(&Load {
            target: (Ipv4Addr::LOCALHOST, 80).into(),
            connections: 1,
            warm_up_ms: 0,
            window_ms: 60_000,
        })
    }

    #[test]
    fn an_answer_before_its_time_is_an_error_and_no_latency_of_zero() {
        let mut report = report();
        let now = Instant::now();
        let later = now + Duration::from_micros(1);
        assert!(report.done(later, now).is_err());
        report.done(now, later).unwrap();
        let json = report.into_json().unwrap();
        assert_eq!((&json["done"], &json["p50_us"]), (&json!(1), &json!(1.0)));
    }

    #[test]
    fn failures_are_counted_by_kind_with_their_moments() {
        let mut report = report();
        report.failed("reset", 7);
        report.failed("reset", 9);
        let json = report.into_json().unwrap();
        assert_eq!(json["failed"], json!({"reset": 2}));
        assert_eq!(json["failed_begun_ns"], json!([7, 9]));
    }
}
