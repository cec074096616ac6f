//! Disks that take their time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// By the directory of the log.
static DELAYS: Mutex<BTreeMap<PathBuf, Duration>> = Mutex::new(BTreeMap::new());

/// From now on each sync of a log takes so much longer.
pub(in crate::raft) fn slow_down(dir: &Path, delay: Duration) {
    let mut delays = DELAYS.lock().unwrap_or_else(PoisonError::into_inner);
    delays.insert(dir.to_owned(), delay);
}

/// What a sync takes longer. This blocks.
pub(in crate::raft) fn wait(dir: &Path) {
    let delays = DELAYS.lock().unwrap_or_else(PoisonError::into_inner);
    let delay = delays.get(dir).copied();
    drop(delays);
    if let Some(delay) = delay {
        std::thread::sleep(delay);
    }
}
