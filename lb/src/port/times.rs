//! Connect times as they are counted.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::status::ConnectTimes;

const BOUNDS: usize = ConnectTimes::BOUNDS_US.len();

/// A count for each bound and one for what is past the last.
#[derive(Debug, Default)]
pub(crate) struct Times {
    counts: [AtomicU64; BOUNDS + 1],
    sum_us: AtomicU64,
}

impl Times {
    pub(super) fn count(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let index = ConnectTimes::BOUNDS_US.partition_point(|bound| *bound < us);
        self.counts[index].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> ConnectTimes {
        ConnectTimes {
            counts: self
                .counts
                .iter()
                .map(|count| count.load(Ordering::Relaxed))
                .collect(),
            sum_us: self.sum_us.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_what_is_below_it() {
        let times = Times::default();
        for us in [0, 100, 101, 1_000_000, 1_000_001] {
            times.count(Duration::from_micros(us));
        }
        let read = times.read();
        assert_eq!(read.counts[..2], [2, 1]);
        assert_eq!(read.counts[BOUNDS - 1..], [1, 1]);
        assert_eq!(read.sum_us, 2_000_202);
    }
}
