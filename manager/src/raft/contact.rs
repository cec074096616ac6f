//! When each of the other managers answered last.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Shared by all clients of the other managers; they write, everybody reads.
#[derive(Debug)]
pub(crate) struct Contacts {
    own: u64,
    /// Silence for longer than this means that a manager does not answer.
    patience: Duration,
    answered: Mutex<BTreeMap<u64, Instant>>,
}

impl Contacts {
    pub(crate) fn new(own: u64, patience: Duration) -> Self {
        Self {
            own,
            patience,
            answered: Mutex::default(),
        }
    }

    /// Notes that a manager has just answered.
    pub(crate) fn answered(&self, raft_id: u64) {
        self.lock().insert(raft_id, Instant::now());
    }

    /// Silence for longer than this means that a manager does not answer.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// Everybody who answered lately, this manager included.
    pub(crate) fn reachable(&self) -> BTreeSet<u64> {
        let now = Instant::now();
        self.those(|at| now.duration_since(at) <= self.patience)
    }

    /// Everybody who answered after `moment`, this manager included.
    pub(crate) fn since(&self, moment: Instant) -> BTreeSet<u64> {
        self.those(|at| at > moment)
    }

    fn those(&self, counts: impl Fn(Instant) -> bool) -> BTreeSet<u64> {
        self.lock()
            .iter()
            .filter(|(_, at)| counts(**at))
            .map(|(raft_id, _)| *raft_id)
            .chain([self.own])
            .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Instant>> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
