//! The wall clock, read in one place.
//!
//! It dates what people read and what must outlive a restart: statuses, back-offs, certificates.
//! Whether somebody is alive is judged by clocks that nobody can set.

use std::time::{Duration, SystemTime};

use swarmlet_core::model::Timestamp;
use time::OffsetDateTime;

/// Now, as commands carry it. A clock set before 1970 reads as 1970.
#[must_use]
pub fn now() -> Timestamp {
    let since = system_time().duration_since(SystemTime::UNIX_EPOCH);
    let milliseconds = since.unwrap_or_default().as_millis();
    Timestamp(u64::try_from(milliseconds).unwrap_or(u64::MAX))
}

/// Now, as certificates carry it.
#[must_use]
pub fn date() -> OffsetDateTime {
    system_time().into()
}

/// The time left until a moment; none once it has come.
#[must_use]
pub fn until(moment: Timestamp) -> Duration {
    Duration::from_millis(moment.0.saturating_sub(now().0))
}

#[cfg(not(debug_assertions))]
fn system_time() -> SystemTime {
    SystemTime::now()
}

/// Nodes that share a kernel share its clock, so a debug build can be given another one: a file
/// with the milliseconds by which it is ahead, which may change and go while the program runs.
#[cfg(debug_assertions)]
fn system_time() -> SystemTime {
    let path = std::env::var_os("SWARMLET_DEBUG_CLOCK_FILE");
    let text = path.and_then(|path| std::fs::read_to_string(path).ok());
    let ahead_ms: i64 = text
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or_default();
    let ahead = Duration::from_millis(ahead_ms.unsigned_abs());
    if ahead_ms < 0 {
        SystemTime::now() - ahead
    } else {
        SystemTime::now() + ahead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_the_systems_in_all_its_forms() {
        let before = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let before = u64::try_from(before.unwrap().as_millis()).unwrap();
        let (now, date) = (now().0, date().unix_timestamp());
        assert!((before..before + 60_000).contains(&now));
        assert!(u64::try_from(date).unwrap().abs_diff(now / 1000) < 60);
        let left = until(Timestamp(now + 3_600_000));
        assert!(left <= Duration::from_secs(3600) && left > Duration::from_secs(3500));
        assert_eq!(until(Timestamp(now)), Duration::ZERO);
    }
}
