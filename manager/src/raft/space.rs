//! Stops writes before the disk does.
//!
//! A write that fails ends the replica, and so a full disk would end the leaders one after
//! the other. Proposals are refused while there is still room for what is under way, for the
//! next snapshot and for whoever cleans up; they go on by themselves once there is room again.
//! A follower whose disk is full takes no entries, but goes on to follow: the others are
//! enough to agree on them, and send them again.
//!
//! Each write is preceded by a look of its own: another program may fill a disk within
//! milliseconds. The regular looks are for the log of a manager that nobody writes to.

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
/// The same for what a leader sends. It is less, because a leader with a disk of the same size
/// then stops before its followers do, and tells the user.
const FOLLOWERS_FLOOR_BYTES: u64 = FLOOR_BYTES / 2;
/// Between two regular looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// A disk that takes longer to say how full it is hangs, and then writes find out themselves.
const PATIENCE: Duration = Duration::from_millis(200);

/// What is left on the disk of the log.
#[derive(Debug)]
pub(crate) struct Space {
    dir: PathBuf,
    free: AtomicU64,
}

impl Space {
    /// Starts to look at the disk of `dir`, until `stop`.
    pub(crate) fn watch(dir: PathBuf, stop: CancellationToken) -> Arc<Self> {
        let space = Arc::new(Self {
            dir,
            free: AtomicU64::new(u64::MAX),
        });
        tokio::spawn(regular_looks(Arc::clone(&space), stop));
        space
    }

    /// Refuses a proposal while there is too little.
    pub(crate) async fn for_proposal(&self) -> Result<(), ProposeError> {
        self.look().await;
        self.check(FLOOR_BYTES)
    }

    /// Refuses what a leader sends while there is too little.
    pub(crate) async fn for_replication(&self) -> Result<(), ProposeError> {
        self.look().await;
        self.check(FOLLOWERS_FLOOR_BYTES)
    }

    fn check(&self, floor: u64) -> Result<(), ProposeError> {
        let free = self.free.load(Ordering::Relaxed);
        if free >= floor {
            return Ok(());
        }
        Err(ProposeError::NoSpace {
            free_mib: free >> 20,
            floor_mib: floor >> 20,
        })
    }

    async fn look(&self) {
        let dir = self.dir.clone();
        // A disk that hangs must not hold up anything else.
        let found = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&dir));
        match tokio::time::timeout(PATIENCE, found).await {
            Ok(Ok(Ok(found))) => self.note(found.f_bavail.saturating_mul(found.f_frsize)),
            Ok(Ok(Err(error))) => tracing::warn!(%error, "cannot tell the free disk space"),
            Ok(Err(error)) => tracing::debug!(%error, "the free disk space was not looked at"),
            Err(_) => tracing::warn!("the disk does not say how much space is left on it"),
        }
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

async fn regular_looks(space: Arc<Space>, stop: CancellationToken) {
    let mut clock = tokio::time::interval(INTERVAL);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = clock.tick() => space.look().await,
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
            let refused = space.check(FLOOR_BYTES).err().map(|error| match error {
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
