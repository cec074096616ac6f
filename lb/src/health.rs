//! Whether an endpoint takes connections, as this balancer itself has seen.
//! Pure: outcomes in, changes out.
//!
//! ```text
//!            refused, or unanswered twice in a row
//!   healthy ----------------------------------------> ejected, probed
//!      ^                                                  |
//!      +--------------------------------------------------+
//!            connected twice in a row (probe or client)
//! ```
//!
//! A refusal is an answer: nobody listens there. Silence may be one lost SYN,
//! which is why it takes two.

use std::time::Duration;

/// Connects that must succeed in a row before an ejected endpoint is trusted.
const RISE: u32 = 2;
/// Connects that must go unanswered in a row before an endpoint is ejected.
const UNANSWERED_LIMIT: u32 = 2;

/// What came of a connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The handshake completed.
    Connected,
    /// The endpoint's host answered that nobody listens.
    Refused,
    /// No answer in time, or the network says that there is no way.
    Unanswered,
}

/// A change that others must hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Leave it out and start probing.
    Ejected(Ejection),
    /// Take it back; probing ends.
    Restored,
}

/// Tells one ejection of an endpoint from the next, so that a prober of an
/// earlier one knows that it is not wanted any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ejection(u64);

/// What is known about one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Health {
    ejections: u64,
    ejected: bool,
    /// Unanswered connects in a row while healthy, successes while ejected.
    in_a_row: u32,
}

impl Health {
    /// Takes in one outcome and says what it changed, if anything.
    pub(crate) fn observe(&mut self, outcome: Outcome) -> Option<Change> {
        match (self.ejected, outcome) {
            (false, Outcome::Connected) => {
                self.in_a_row = 0;
                None
            }
            (false, Outcome::Refused) => Some(self.eject()),
            (false, Outcome::Unanswered) => {
                self.in_a_row += 1;
                (self.in_a_row >= UNANSWERED_LIMIT).then(|| self.eject())
            }
            (true, Outcome::Connected) => {
                self.in_a_row += 1;
                (self.in_a_row >= RISE).then(|| self.restore())
            }
            (true, Outcome::Refused | Outcome::Unanswered) => {
                self.in_a_row = 0;
                None
            }
        }
    }

    /// Whether the endpoint is left out now.
    pub(crate) fn is_ejected(&self) -> bool {
        self.ejected
    }

    /// Whether the endpoint is left out because of this ejection.
    pub(crate) fn is_ejected_by(&self, ejection: Ejection) -> bool {
        self.ejected && Ejection(self.ejections) == ejection
    }

    /// Forgets an ejection, for an endpoint that nothing is sent to any more.
    pub(crate) fn reset(&mut self) {
        self.ejected = false;
        self.in_a_row = 0;
    }

    fn eject(&mut self) -> Change {
        self.ejected = true;
        self.ejections += 1;
        self.in_a_row = 0;
        Change::Ejected(Ejection(self.ejections))
    }

    fn restore(&mut self) -> Change {
        self.reset();
        Change::Restored
    }
}

/// How long to wait before the next probe: `min` first and after a success,
/// doubling with each failure up to `max`. `random` takes off up to a fifth, so
/// that the balancers of a cluster do not probe in step; never below `min`.
pub(crate) fn probe_delay(failures: u32, min: Duration, max: Duration, random: u64) -> Duration {
    let full = min
        .saturating_mul(1_u32.checked_shl(failures.min(16)).unwrap_or(1))
        .min(max);
    let thousandths = u32::try_from(random % 200).unwrap_or(0);
    (full - full * thousandths / 1000).max(min)
}

#[cfg(test)]
mod tests {
    use super::{Outcome::*, *};

    #[track_caller]
    fn check(outcomes: &[Outcome], expected: &[Option<bool>]) {
        let mut health = Health::default();
        let found: Vec<Option<bool>> = outcomes
            .iter()
            .map(|outcome| {
                health
                    .observe(*outcome)
                    .map(|change| matches!(change, Change::Ejected(_)))
            })
            .collect();
        assert_eq!(found, expected, "{outcomes:?}");
    }

    #[test]
    fn transitions() {
        let (ejected, restored) = (Some(true), Some(false));
        check(&[Refused], &[ejected]);
        check(&[Unanswered, Unanswered], &[None, ejected]);
        check(&[Unanswered, Connected, Unanswered], &[None, None, None]);
        check(
            &[Refused, Refused, Connected, Connected],
            &[ejected, None, None, restored],
        );
        check(
            &[Refused, Connected, Unanswered, Connected, Connected],
            &[ejected, None, None, None, restored],
        );
        check(
            &[Refused, Connected, Connected, Unanswered, Unanswered],
            &[ejected, None, restored, None, ejected],
        );
    }

    #[test]
    fn an_earlier_ejection_is_told_from_the_present_one() {
        let mut health = Health::default();
        let Some(Change::Ejected(first)) = health.observe(Refused) else {
            panic!("a refusal ejects");
        };
        assert!(health.is_ejected_by(first));
        health.reset();
        assert!(!health.is_ejected_by(first));
        health.observe(Refused);
        assert!(health.is_ejected() && !health.is_ejected_by(first));
    }

    #[test]
    fn delays_stay_within_their_bounds() {
        let (min, max) = (Duration::from_millis(200), Duration::from_secs(2));
        for failures in 0..40 {
            for random in 0..400 {
                let delay = probe_delay(failures, min, max, random);
                assert!(
                    (min..=max).contains(&delay),
                    "{failures} {random} {delay:?}"
                );
            }
        }
        assert_eq!(probe_delay(0, min, max, 0), min);
        assert_eq!(probe_delay(1, min, max, 0), min * 2);
        assert_eq!(probe_delay(9, min, max, 0), max);
        assert_eq!(
            probe_delay(9, min, max, 199),
            Duration::from_micros(1_602_000)
        );
    }
}
