//! How much memory the bytes may take that one side has sent and the other does
//! not take, over all connections.
//!
//! A connection holds one receive's worth of bytes for each direction at most,
//! which is little, but ten thousand slow readers of bulk are ten thousand times
//! that. From half of the budget on, connections receive in small steps; past
//! the whole of it those that hold the most are reset, the largest first.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: AtomicUsize,
    held: AtomicUsize,
}

/// A share of a budget, until dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit: AtomicUsize::new(limit),
            held: AtomicUsize::new(0),
        }
    }

    pub(crate) fn charge(self: &Arc<Self>, bytes: usize) -> Charge {
        self.held.fetch_add(bytes, Ordering::Relaxed);
        Charge {
            budget: Arc::clone(self),
            bytes,
        }
    }

    /// Whether connections should be content with small steps.
    pub(crate) fn is_tight(&self) -> bool {
        self.held() > self.limit() / 2
    }

    pub(crate) fn is_over(&self) -> bool {
        self.held() > self.limit()
    }

    /// Bytes that may be held.
    pub(crate) fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Counts from the next byte on.
    pub(crate) fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Bytes held now.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charges_come_and_go() {
        let budget = Arc::new(Budget::new(100));
        let first = budget.charge(50);
        assert!(!budget.is_tight());
        let second = budget.charge(50);
        assert!(budget.is_tight() && !budget.is_over());
        let third = budget.charge(1);
        assert!(budget.is_over());
        budget.set_limit(500);
        assert!(!budget.is_tight());
        budget.set_limit(100);
        drop((first, third));
        assert_eq!((budget.held(), budget.is_tight()), (50, false));
        drop(second);
        assert_eq!(budget.held(), 0);
    }
}
