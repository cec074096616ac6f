//! The wall clock by which managers judge whether a node's is wrong: heartbeats carry it.

use std::time::{SystemTime, UNIX_EPOCH};

use swarmlet_core::model::Timestamp;

/// Now, as this node's clock says.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let now = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    Timestamp(now.saturating_add_signed(shift_ms()))
}

/// Nodes that share a kernel share its clock, so a debug build can be given another one: a file
/// with the milliseconds by which it is ahead, which may change and go while the daemon runs.
#[cfg(debug_assertions)]
fn shift_ms() -> i64 {
    let path = std::env::var_os("SWARMLET_DEBUG_CLOCK_FILE");
    let text = path.and_then(|path| std::fs::read_to_string(path).ok());
    let shift = text.and_then(|text| text.trim().parse().ok());
    shift.unwrap_or_default()
}

#[cfg(not(debug_assertions))]
fn shift_ms() -> i64 {
    0
}
