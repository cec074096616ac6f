//! Stops writes before the disk does.
//!
//! A write that fails ends the replica, and so a full disk would end the leaders one after
//! the other. Proposals are refused while there is still room for what is under way, for the
//! next snapshot and for whoever cleans up; they go on by themselves once there is room again.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::error::ProposeError;

/// Bytes that stay free: dozens of the largest entries, a snapshot of a large cluster and the
/// store's own growth.
const FLOOR_BYTES: u64 = 64 << 20;
/// At 60 MB a second, a fast writer beside us would use up the floor between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// What is left on the disk of the log.
#[derive(Debug)]
pub(crate) struct Space {
    free: AtomicU64,
}

impl Space {
    /// Starts to look at the disk of `dir`, until `stop`.
    pub(crate) fn watch(dir: PathBuf, stop: CancellationToken) -> Arc<Self> {
        let space = Arc::new(Self {
            free: AtomicU64::new(u64::MAX),
        });
        tokio::spawn(look(Arc::clone(&space), dir, stop));
        space
    }

    /// Refuses while there is too little.
    pub(crate) fn check(&self) -> Result<(), ProposeError> {
        let free = self.free.load(Ordering::Relaxed);
        if free >= FLOOR_BYTES {
            return Ok(());
        }
        Err(ProposeError::NoSpace {
            free_mib: free >> 20,
            floor_mib: FLOOR_BYTES >> 20,
        })
    }

    fn note(&self, free: u64) {
        let before = self.free.swap(free, Ordering::Relaxed);
        match (before < FLOOR_BYTES, free < FLOOR_BYTES) {
            (false, true) => tracing::error!(free, "too little disk space, writes are refused"),
            (true, false) => tracing::info!(free, "disk space again, writes go on"),
            _ => {}
        }
    }
}

async fn look(space: Arc<Space>, dir: PathBuf, stop: CancellationToken) {
    let mut clock = tokio::time::interval(INTERVAL);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = clock.tick() => {}
        }
        let at = dir.clone();
        // A disk that hangs must not hold up anything else.
        let found = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&at)).await;
        match found {
            Ok(Ok(found)) => space.note(found.f_bavail.saturating_mul(found.f_frsize)),
            Ok(Err(error)) => tracing::warn!(%error, "cannot tell the free disk space"),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn writes_stop_below_the_floor_and_go_on_above() {
        let dir = tempfile::tempdir().unwrap();
        let stop = CancellationToken::new();
        let space = Space::watch(dir.path().to_owned(), stop.clone());
        let seen = async {
            while space.free.load(Ordering::Relaxed) == u64::MAX {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), seen)
            .await
            .unwrap();
        stop.cancel();
        for (free, expected) in [
            (FLOOR_BYTES - 1, Some((63, 64))),
            (0, Some((0, 64))),
            (FLOOR_BYTES, None),
        ] {
            space.note(free);
            let refused = space.check().err().map(|error| match error {
                ProposeError::NoSpace {
                    free_mib,
                    floor_mib,
                } => (free_mib, floor_mib),
                other => panic!("{other}"),
            });
            assert_eq!(refused, expected, "{free} bytes");
        }
    }
}
