//! The wall clock, read in one place.

use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;

use swarmlet_core::model::Timestamp;

/// Now, as commands carry it. A clock set before 1970 reads as 1970.
pub(crate) fn now() -> Timestamp {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

/// Now, as certificates carry it.
pub(crate) fn date() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}
