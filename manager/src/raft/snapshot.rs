//! The one snapshot on disk.
//!
//! ```text
//! index of the last entry in it (8, big endian) | sealed (length of meta (4) | meta | state)
//! ```
//!
//! The index stands in the open because it is authenticated with the record, and so must be
//! known before the record can be opened.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::durable;
use super::error::RaftError;
use super::seal::{Kind, Sealer};
use super::types::{LogId, SnapshotMeta};

/// Keeps the newest snapshot.
#[derive(Debug)]
pub(crate) struct SnapshotStore {
    path: PathBuf,
    sealer: Arc<Sealer>,
    /// The last entry in the file. Held while the file is replaced: a snapshot of our own may
    /// be finished while a newer one arrives from the leader.
    last: Mutex<Option<LogId>>,
}

/// A snapshot as it is read from disk.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) meta: SnapshotMeta,
    /// Encoded state.
    pub(crate) state: Vec<u8>,
}

impl SnapshotStore {
    /// Where the snapshot of a directory is.
    pub(crate) fn path(dir: &Path) -> PathBuf {
        dir.join("snapshot")
    }

    /// Opens the store and reads the snapshot, if there is one. This blocks.
    ///
    /// # Errors
    ///
    /// [`RaftError::Damaged`] where there is one that does not open.
    pub(crate) fn open(
        dir: &Path,
        sealer: &Arc<Sealer>,
    ) -> Result<(Self, Option<Stored>), RaftError> {
        let store = Self {
            path: Self::path(dir),
            sealer: Arc::clone(sealer),
            last: Mutex::new(None),
        };
        let stored = store.load()?;
        *store.last.lock().unwrap_or_else(PoisonError::into_inner) =
            stored.as_ref().and_then(|stored| stored.meta.last_log_id);
        Ok((store, stored))
    }

    /// Reads the snapshot. This blocks.
    pub(crate) fn load(&self) -> Result<Option<Stored>, RaftError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(RaftError::file("read", &self.path, &error)),
        };
        self.decode(&bytes)
            .map(Some)
            .map_err(|reason| RaftError::damaged(&self.path, reason))
    }

    /// Puts a snapshot in the place of an older one; a newer one stays. This blocks until it
    /// is on the disk.
    pub(crate) fn save(&self, meta: &SnapshotMeta, state: &[u8]) -> Result<(), RaftError> {
        let failed = |error: io::Error| RaftError::file("write", &self.path, &error);
        let encoded = rmp_serde::to_vec(meta).map_err(|error| failed(io::Error::other(error)))?;
        let length =
            u32::try_from(encoded.len()).map_err(|error| failed(io::Error::other(error)))?;
        let plain = [&length.to_be_bytes(), encoded.as_slice(), state].concat();
        let index = meta.last_log_id.map_or(0, |id| id.index);
        let sealed = self
            .sealer
            .seal(Kind::Snapshot, index, &plain)
            .map_err(|error| failed(io::Error::other(error)))?;

        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if *last > meta.last_log_id {
            return Ok(());
        }
        durable::replace(&self.path, &[&index.to_be_bytes(), &sealed]).map_err(failed)?;
        *last = meta.last_log_id;
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<Stored, String> {
        let (index, sealed) = bytes.split_first_chunk::<8>().ok_or("it is too short")?;
        let plain = self
            .sealer
            .open(Kind::Snapshot, u64::from_be_bytes(*index), sealed)
            .map_err(|error| error.to_string())?;
        let (length, rest) = plain.split_first_chunk::<4>().ok_or("it is too short")?;
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let (meta, state) = rest.split_at_checked(length).ok_or("it is too short")?;
        Ok(Stored {
            meta: rmp_serde::from_slice(meta).map_err(|error| error.to_string())?,
            state: state.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use openraft::{CommittedLeaderId, Membership, StoredMembership};

    use super::*;
    use crate::raft::types::Peer;

    #[test]
    fn no_flipped_bit_and_no_cut_is_taken_for_a_snapshot() {
        let dir = tempfile::tempdir().unwrap();
        let sealer = Arc::new(Sealer::create(&dir.path().join("key")).unwrap());
        let (store, none) = SnapshotStore::open(dir.path(), &sealer).unwrap();
        assert!(none.is_none());
        let last = LogId::new(CommittedLeaderId::new(2, 1), 300);
        let members = Membership::new(vec![[1].into()], BTreeMap::from([(1, Peer::default())]));
        let meta = SnapshotMeta {
            last_log_id: Some(last),
            last_membership: StoredMembership::new(Some(last), members),
            snapshot_id: last.to_string(),
        };
        store.save(&meta, b"everything that was agreed on").unwrap();

        let path = SnapshotStore::path(dir.path());
        let written = fs::read(&path).unwrap();
        let refused = |bytes: &[u8], what: String| {
            fs::write(&path, bytes).unwrap();
            let error = store.load().expect_err(&what);
            assert!(
                matches!(error, RaftError::Damaged { .. }),
                "{what}: {error}"
            );
            let text = error.to_string();
            assert!(text.contains(path.to_str().unwrap()), "{what}: {text}");
            assert!(
                text.contains("restore the data directory"),
                "{what}: {text}"
            );
        };
        for at in 0..written.len() {
            refused(&written[..at], format!("cut off after {at} bytes"));
            for bit in 0..8 {
                let mut damaged = written.clone();
                damaged[at] ^= 1 << bit;
                refused(&damaged, format!("bit {bit} of byte {at}"));
            }
        }
        fs::write(&path, &written).unwrap();
        let stored = store.load().unwrap().unwrap();
        assert_eq!(stored.state, b"everything that was agreed on");
        assert_eq!(stored.meta, meta);
    }
}
