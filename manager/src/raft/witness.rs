//! A small record beside the log that says how far the log had come.
//!
//! The store under the log falls back to the transaction before the last when the last one
//! does not check out. After a power cut in the middle of a commit that is right: nobody was
//! told that it was durable. After damage to a finished one it would drop acknowledged entries
//! or a vote without a word. The two look alike from within the store, so a witness is written
//! after each commit: a log that is behind its witness has lost something.
//!
//! The witness is never synced, which would double the cost of each write: it is in the page
//! cache at once and so survives the process, and where a power cut takes it back to an older
//! one, that one accuses nobody. For the same price it keeps the index up to which entries
//! are committed, so that a restarted manager has its state back before it hears of a leader.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::seal::{Kind, Sealer};
use super::types::LogId;

/// What the witness says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Testimony {
    /// Number of the last finished transaction on the log.
    pub(crate) sequence: u64,
    /// The last entry known to be committed.
    pub(crate) committed: Option<LogId>,
}

/// The file with the record in it.
#[derive(Debug)]
pub(crate) struct Witness {
    file: File,
    sealer: Arc<Sealer>,
    said: Testimony,
}

impl Witness {
    /// Where the witness of a directory is.
    pub(crate) fn path(dir: &Path) -> PathBuf {
        dir.join("witness")
    }

    /// Opens the witness; one that is not there, torn or damaged knows nothing, which is safe
    /// as long as the log itself is sound.
    pub(crate) fn open(dir: &Path, sealer: Arc<Sealer>) -> io::Result<Self> {
        let path = Self::path(dir);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)?;
        let length = usize::try_from(file.metadata()?.len()).unwrap_or(0);
        // A record is about a hundred bytes; nothing longer than this was written here.
        let mut bytes = vec![0; length.min(4096)];
        file.read_exact_at(&mut bytes, 0)?;
        let said = read(&sealer, &bytes).unwrap_or_else(|| {
            if length > 0 {
                tracing::warn!(path = %path.display(), "the witness of the Raft log is unreadable, going on without it");
            }
            Testimony::default()
        });
        Ok(Self { file, sealer, said })
    }

    /// What it said last.
    pub(crate) fn said(&self) -> Testimony {
        self.said
    }

    /// Replaces what it says.
    pub(crate) fn say(&mut self, testimony: Testimony) -> io::Result<()> {
        if testimony == self.said {
            return Ok(());
        }
        let plain = rmp_serde::to_vec(&testimony).map_err(io::Error::other)?;
        let sealed = self
            .sealer
            .seal(Kind::Witness, 0, &plain)
            .map_err(io::Error::other)?;
        let length = u32::try_from(sealed.len()).map_err(io::Error::other)?;
        // One write, so that a killed process leaves the old record or the new one.
        let mut record = length.to_be_bytes().to_vec();
        record.extend_from_slice(&sealed);
        self.file.write_all_at(&record, 0)?;
        self.said = testimony;
        Ok(())
    }
}

fn read(sealer: &Sealer, bytes: &[u8]) -> Option<Testimony> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let plain = sealer.open(Kind::Witness, 0, rest.get(..length)?).ok()?;
    rmp_serde::from_slice(&plain).ok()
}
