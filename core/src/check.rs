//! What the results of a task's checks mean.
//!
//! ```text
//! starting ──rise passes──► healthy ──fall failures──► unhealthy
//!     │                        ▲                           │
//!     │                        └───────rise passes─────────┘
//!     └──fall failures after the start period──► unhealthy
//! ```
//!
//! A connection that fails once is not a dead program, and one that is accepted once is not a
//! living one; so both ways take several results in a row.

use std::time::Duration;

use crate::model::Check;

/// What is known of a task by its checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It has never passed.
    Starting,
    /// It passes.
    Healthy,
    /// It fails.
    Unhealthy,
}

/// The results so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    health: Health,
    /// The last results in a row, of which one kind is zero.
    passes: u32,
    failures: u32,
}

/// How soon a task that may be about to become healthy is asked again: every update waits for
/// a start, but nobody for the certainty of a failure.
const QUICK: Duration = Duration::from_millis(200);

impl Tally {
    /// Goes on from what was known.
    #[must_use]
    pub fn new(health: Health) -> Self {
        Self {
            health,
            passes: 0,
            failures: 0,
        }
    }

    /// What is known.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health
    }

    /// Counts a result, `age` after the task's start. Returns whether [`Tally::health`] changed.
    pub fn record(&mut self, check: &Check, passed: bool, age: Duration) -> bool {
        let forgiven = self.health == Health::Starting && age < check.start_period;
        (self.passes, self.failures) = match passed {
            true => (self.passes.saturating_add(1), 0),
            false if forgiven => (0, 0),
            false => (0, self.failures.saturating_add(1)),
        };
        let before = self.health;
        if self.passes >= check.rise {
            self.health = Health::Healthy;
        } else if self.failures >= check.fall {
            self.health = Health::Unhealthy;
        }
        self.health != before
    }

    /// Time from the start of the last check to that of the next, without jitter.
    #[must_use]
    pub fn pause(&self, check: &Check) -> Duration {
        let rises = match self.health {
            Health::Starting => true,
            Health::Healthy => false,
            Health::Unhealthy => self.passes > 0,
        };
        if rises {
            check.interval.min(QUICK)
        } else {
            check.interval
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Probe;

    const START: Duration = Duration::from_secs(60);

    fn check() -> Check {
        Check::new(Probe::Tcp { port: None })
    }

    /// Feeds results, `+` for a pass, and expects the health after each: s, h or u.
    fn follow(tally: Tally, age: Duration, results: &str, expected: &str) {
        let mut tally = tally;
        let seen: String = results
            .chars()
            .map(|result| {
                let before = tally.health();
                let changed = tally.record(&check(), result == '+', age);
                assert_eq!(changed, tally.health() != before);
                match tally.health() {
                    Health::Starting => 's',
                    Health::Healthy => 'h',
                    Health::Unhealthy => 'u',
                }
            })
            .collect();
        assert_eq!(seen, expected, "after {results}");
    }

    #[test]
    fn both_ways_take_several_in_a_row() {
        let (starting, healthy) = (Tally::new(Health::Starting), Tally::new(Health::Healthy));
        follow(starting, START, "+-++", "sssh");
        follow(starting, START, "--+---", "sssssu");
        follow(healthy, START, "--+---+-++", "hhhhhuuuuh");
    }

    #[test]
    fn failures_of_the_start_do_not_count() {
        let starting = Tally::new(Health::Starting);
        let early = START.saturating_sub(Duration::from_millis(1));
        follow(starting, early, "-------++", "ssssssssh");
        // Once it has passed, it has started.
        follow(Tally::new(Health::Healthy), early, "---", "hhu");
    }

    #[test]
    fn what_may_rise_is_asked_more_often() {
        let pause = |health, results: &str| {
            let mut tally = Tally::new(health);
            for result in results.chars() {
                tally.record(&check(), result == '+', START);
            }
            tally.pause(&check())
        };
        let slow = check().interval;
        assert_eq!(pause(Health::Starting, ""), QUICK);
        assert_eq!(pause(Health::Healthy, "--"), slow);
        assert_eq!(pause(Health::Unhealthy, "-"), slow);
        assert_eq!(pause(Health::Unhealthy, "-+"), QUICK);
    }
}
