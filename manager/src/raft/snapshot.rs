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
