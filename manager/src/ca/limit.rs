//! Slows down whoever guesses join secrets.
//!
//! A secret of 128 bits cannot be guessed; the limit keeps a stolen address from filling the
//! log and the leader's time with attempts. The table has a fixed size, so that an attacker
//! with many addresses cannot make it grow.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Failures of one source within [`WINDOW`] that are answered at once. A person who mistypes
/// a token several times stays below it.
const MAX_FAILURES: u32 = 10;

/// After this long a source's failures are forgotten.
const WINDOW: Duration = Duration::from_secs(60);

/// Sources that are remembered: 256 entries of 40 bytes. When it is full the one that failed
/// longest ago is forgotten.
const SOURCES: usize = 256;

/// The failures of the last minute, by source.
#[derive(Debug, Default)]
pub(crate) struct FailureLimit {
    table: Mutex<Vec<Entry>>,
}

#[derive(Debug)]
struct Entry {
    source: IpAddr,
    since: Instant,
    failures: u32,
}

impl FailureLimit {
    /// How long a source has to wait before its next attempt is looked at, if it has to.
    pub(crate) fn wait(&self, source: IpAddr, now: Instant) -> Option<Duration> {
        let source = network(source);
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = table.iter().find(|entry| entry.source == source)?;
        let left = WINDOW.checked_sub(now.saturating_duration_since(entry.since))?;
        (entry.failures >= MAX_FAILURES && !left.is_zero()).then_some(left)
    }

    /// Counts a failed attempt.
    pub(crate) fn failed(&self, source: IpAddr, now: Instant) {
        let source = network(source);
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.retain(|entry| now.saturating_duration_since(entry.since) < WINDOW);
        if let Some(entry) = table.iter_mut().find(|entry| entry.source == source) {
            entry.failures = entry.failures.saturating_add(1);
            return;
        }
        if table.len() >= SOURCES {
            // Entries are in the order of their first failure.
            table.remove(0);
        }
        table.push(Entry {
            source,
            since: now,
            failures: 1,
        });
    }
}

/// An IPv6 source is its /64: a single host commands all addresses in it.
fn network(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V4(_) => source,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_eleventh_attempt_waits_and_other_sources_do_not() {
        let limit = FailureLimit::default();
        let start = Instant::now();
        for _ in 0..MAX_FAILURES {
            assert_eq!(limit.wait(address("10.0.0.1"), start), None);
            limit.failed(address("10.0.0.1"), start);
        }
        assert_eq!(limit.wait(address("10.0.0.1"), start), Some(WINDOW));
        assert_eq!(limit.wait(address("10.0.0.2"), start), None);
        assert_eq!(limit.wait(address("10.0.0.1"), start + WINDOW), None);
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_together() {
        let limit = FailureLimit::default();
        let start = Instant::now();
        for last in 0..MAX_FAILURES {
            limit.failed(address(&format!("2001:db8::{last:x}")), start);
        }
        assert!(limit.wait(address("2001:db8::ffff"), start).is_some());
        assert!(limit.wait(address("2001:db8:0:1::1"), start).is_none());
    }

    #[test]
    fn the_table_never_outgrows_its_bound() {
        let limit = FailureLimit::default();
        let start = Instant::now();
        for source in 0..10_000_u32 {
            limit.failed(IpAddr::V4(source.into()), start);
        }
        assert_eq!(limit.table.lock().unwrap().len(), SOURCES);
    }
}
