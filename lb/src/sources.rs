//! How many connections one source may have, and make in a second.
//!
//! A table of fixed size, so that no number of sources costs more memory. An
//! entry is given up for a new source once its own has no connection left, the
//! one that was quiet for longest first. Where all that a source could have are
//! in use it is let in without being counted: these limits are for fairness,
//! and what protects the machine are those for all connections together.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use serde::{Deserialize, Serialize};

/// Sets of entries; a source can be in one of them.
const SETS: usize = 4096;
/// Entries of a set.
const WAYS: usize = 8;
/// Bits of an IPv6 address that name a source: what a provider gives to one
/// customer at least, who has all the addresses within.
const PREFIX_V6: u32 = 64;

/// What one source may do. `None`: as much as it wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceLimits {
    /// Connections at a time.
    pub connections: Option<u32>,
    /// New connections in a second; as many may come at once.
    pub rate: Option<u32>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Sources {
    limits: Shown,
    started: Instant,
    /// Its keys are random: nobody can choose sources that fall into one set.
    hasher: RandomState,
    /// Made when the first limit is set: it is a megabyte.
    sets: OnceLock<Box<[Mutex<Set>]>>,
}

/// Limits that can be changed while they are looked at. No number stands for no limit.
#[derive(Debug)]
struct Shown {
    connections: AtomicU64,
    rate: AtomicU64,
}

/// More than a limit can be.
const NO_LIMIT: u64 = u64::MAX;

/// One connection of a source, until dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    sources: Arc<Sources>,
    hash: u64,
}

type Set = [Entry; WAYS];

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    /// The source; 0 if there is none.
    hash: u64,
    active: u32,
    /// Thousandths of connections that it may make now.
    allowance: u64,
    seen_at_ms: u64,
}

/// A source that has, or makes, too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany;

impl SourceLimits {
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl Sources {
    pub(crate) fn new(limits: SourceLimits) -> Self {
        Self {
            limits: Shown::new(limits),
            started: Instant::now(),
            hasher: RandomState::new(),
            sets: OnceLock::new(),
        }
    }

    /// What counts from the next connection on. Of those that are there only the ones count
    /// that were let in under a limit.
    pub(crate) fn set_limits(&self, limits: SourceLimits) {
        self.limits.set(limits);
    }

    pub(crate) fn limits(&self) -> SourceLimits {
        self.limits.get()
    }

    /// Lets a connection in. `Ok(None)` if it cannot be counted.
    pub(crate) fn admit(self: &Arc<Self>, source: IpAddr) -> Result<Option<Ticket>, TooMany> {
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.admit_at(source, now_ms)
    }

    fn admit_at(self: &Arc<Self>, source: IpAddr, now_ms: u64) -> Result<Option<Ticket>, TooMany> {
        let limits = self.limits.get();
        if limits.is_none() {
            return Ok(None);
        }
        // Never that of no source.
        let hash = self.hasher.hash_one(network_of(source)) | 1;
        let mut set = self.lock(hash);
        let Some(entry) = entry_for(&mut set, hash, now_ms, &limits) else {
            return Ok(None);
        };
        entry.take(now_ms, &limits)?;
        Ok(Some(Ticket {
            sources: Arc::clone(self),
            hash,
        }))
    }

    fn lock(&self, hash: u64) -> MutexGuard<'_, Set> {
        let index = usize::try_from(hash >> 32).unwrap_or(0) % SETS;
        // Nothing that can panic leaves a set half changed.
        let sets = self
            .sets
            .get_or_init(|| (0..SETS).map(|_| Mutex::default()).collect());
        sets[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shown {
    fn new(limits: SourceLimits) -> Self {
        let shown = Self {
            connections: AtomicU64::new(NO_LIMIT),
            rate: AtomicU64::new(NO_LIMIT),
        };
        shown.set(limits);
        shown
    }

    fn set(&self, limits: SourceLimits) {
        let number = |limit: Option<u32>| limit.map_or(NO_LIMIT, u64::from);
        self.connections
            .store(number(limits.connections), Ordering::Relaxed);
        self.rate.store(number(limits.rate), Ordering::Relaxed);
    }

    fn get(&self) -> SourceLimits {
        let limit = |number: &AtomicU64| u32::try_from(number.load(Ordering::Relaxed)).ok();
        SourceLimits {
            connections: limit(&self.connections),
            rate: limit(&self.rate),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut set = self.sources.lock(self.hash);
        if let Some(entry) = set.iter_mut().find(|entry| entry.hash == self.hash) {
            entry.active = entry.active.saturating_sub(1);
        }
    }
}

impl Entry {
    fn take(&mut self, now_ms: u64, limits: &SourceLimits) -> Result<(), TooMany> {
        if let Some(rate) = limits.rate.map(u64::from) {
            // So many in a second are as many thousandths in a millisecond.
            let earned = now_ms.saturating_sub(self.seen_at_ms).saturating_mul(rate);
            self.allowance = self.allowance.saturating_add(earned).min(rate * 1000);
        }
        self.seen_at_ms = now_ms;
        if limits.connections.is_some_and(|most| self.active >= most) {
            return Err(TooMany);
        }
        if limits.rate.is_some() {
            self.allowance = self.allowance.checked_sub(1000).ok_or(TooMany)?;
        }
        self.active += 1;
        Ok(())
    }
}

/// The entry of a source, or one that can be its own.
fn entry_for<'a>(
    set: &'a mut Set,
    hash: u64,
    now_ms: u64,
    limits: &SourceLimits,
) -> Option<&'a mut Entry> {
    let known = set.iter().position(|entry| entry.hash == hash);
    if let Some(index) = known {
        return Some(&mut set[index]);
    }
    let free = set.iter_mut().filter(|entry| entry.active == 0);
    let entry = free.min_by_key(|entry| entry.seen_at_ms)?;
    *entry = Entry {
        hash,
        active: 0,
        allowance: u64::from(limits.rate.unwrap_or(0)) * 1000,
        seen_at_ms: now_ms,
    };
    Some(entry)
}

/// What counts as one source.
fn network_of(source: IpAddr) -> u128 {
    match source.to_canonical() {
        // Among addresses that no source has.
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits() >> (128 - PREFIX_V6) << (128 - PREFIX_V6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(connections: Option<u32>, rate: Option<u32>) -> Arc<Sources> {
        Arc::new(Sources::new(SourceLimits { connections, rate }))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn connections_at_a_time() {
        let sources = sources(Some(2), None);
        let admit = |text| sources.admit_at(ip(text), 5);
        let (first, second) = (admit("10.0.0.1").unwrap(), admit("10.0.0.1").unwrap());
        assert!(first.is_some() && second.is_some());
        assert_eq!(admit("10.0.0.1").unwrap_err(), TooMany);
        assert_eq!(admit("::ffff:10.0.0.1").unwrap_err(), TooMany);
        // Others do not feel it.
        assert!(admit("10.0.0.2").is_ok());
        drop(first);
        let third = admit("10.0.0.1").unwrap();
        assert_eq!(admit("10.0.0.1").unwrap_err(), TooMany);
        drop((second, third));
        // One customer's addresses are one source.
        let held = [admit("2001:db8::1").unwrap(), admit("2001:db8::2").unwrap()];
        assert_eq!(admit("2001:db8:0:0:9::").unwrap_err(), TooMany);
        assert!(admit("2001:db8:0:1::1").is_ok());
        drop(held);
        assert!(admit("2001:db8::1").is_ok());
    }

    #[test]
    fn connections_in_a_second() {
        let sources = sources(None, Some(10));
        let mut admitted = 0;
        // A hundred each 10 ms, for ten seconds: the burst, and ten a second.
        for now_ms in (0..10_000).step_by(10) {
            for _ in 0..100 {
                admitted += u32::from(sources.admit_at(ip("10.0.0.1"), now_ms).is_ok());
            }
        }
        assert_eq!(admitted, 10 + 99);
        assert!(sources.admit_at(ip("10.0.0.2"), 10_000).is_ok());
    }

    #[test]
    fn limits_change_under_connections() {
        let sources = sources(None, None);
        let admit = || sources.admit_at(ip("10.0.0.1"), 5);
        let uncounted = admit().unwrap();
        assert!(uncounted.is_none() && sources.sets.get().is_none());
        sources.set_limits(SourceLimits {
            connections: Some(1),
            rate: Some(2),
        });
        let counted = admit().unwrap();
        assert!(counted.is_some());
        assert_eq!(admit().unwrap_err(), TooMany);
        sources.set_limits(SourceLimits {
            connections: Some(2),
            rate: None,
        });
        let second = admit().unwrap();
        assert_eq!(admit().unwrap_err(), TooMany);
        sources.set_limits(SourceLimits::default());
        assert!(admit().unwrap().is_none());
        drop((uncounted, counted, second));
    }

    #[test]
    fn any_number_of_sources_fits() {
        let sources = sources(Some(1), None);
        let tickets: Vec<_> = (0..200_000_u32)
            .map(|number| sources.admit_at(IpAddr::from(number.to_be_bytes()), 0))
            .collect();
        // Nobody is kept out because of others, and what there is is used.
        assert!(tickets.iter().all(Result::is_ok));
        let counted = tickets.iter().flatten().flatten().count();
        assert_eq!(counted, SETS * WAYS);
        drop(tickets);
        let sets = sources.sets.get().unwrap().iter();
        let set = sets.flat_map(|set| *set.lock().unwrap());
        assert_eq!(set.map(|entry| entry.active).sum::<u32>(), 0);
    }
}
