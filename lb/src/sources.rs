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
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

/// Sets of entries; a source can be in one of them.
const SETS: usize = 4096;
/// Entries of a set.
const WAYS: usize = 8;
/// Bits of an IPv6 address that name a source: what a provider gives to one
/// customer at least, who has all the addresses within.
const PREFIX_V6: u32 = 64;

/// What one source may do. `None`: as much as it wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SourceLimits {
    /// Connections at a time.
    pub connections: Option<u32>,
    /// New connections in a second; as many may come at once.
    pub rate: Option<u32>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Sources {
    limits: SourceLimits,
    started: Instant,
    /// Its keys are random: nobody can choose sources that fall into one set.
    hasher: RandomState,
    sets: Box<[Mutex<Set>]>,
}

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
            limits,
            started: Instant::now(),
            hasher: RandomState::new(),
            sets: (0..SETS).map(|_| Mutex::default()).collect(),
        }
    }

    /// Lets a connection in. `Ok(None)` if it cannot be counted.
    pub(crate) fn admit(self: &Arc<Self>, source: IpAddr) -> Result<Option<Ticket>, TooMany> {
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.admit_at(source, now_ms)
    }

    fn admit_at(self: &Arc<Self>, source: IpAddr, now_ms: u64) -> Result<Option<Ticket>, TooMany> {
        // Never that of no source.
        let hash = self.hasher.hash_one(network_of(source)) | 1;
        let mut set = self.lock(hash);
        let Some(entry) = entry_for(&mut set, hash, now_ms, &self.limits) else {
            return Ok(None);
        };
        entry.take(now_ms, &self.limits)?;
        Ok(Some(Ticket {
            sources: Arc::clone(self),
            hash,
        }))
    }

    fn lock(&self, hash: u64) -> MutexGuard<'_, Set> {
        let index = usize::try_from(hash >> 32).unwrap_or(0) % SETS;
        // Nothing that can panic leaves a set half changed.
        self.sets[index]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
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
        let set = sources.sets.iter().flat_map(|set| *set.lock().unwrap());
        assert_eq!(set.map(|entry| entry.active).sum::<u32>(), 0);
    }
}
