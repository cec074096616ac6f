//! Opens everything that Raft keeps in its directory, or says what is wrong with it.
//!
//! ```text
//! key        the keys of all the others, 0600
//! log        entries, vote, purge marker
//! witness    how far the log had come
//! snapshot   the state up to some entry
//! superseded the later incarnation of the cluster, where there is one (see lineage)
//! ```

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::durable;
use super::error::RaftError;
use super::log::LogStore;
use super::machine::Machine;
use super::seal::Sealer;
use super::snapshot::{SnapshotStore, Stored};
use super::witness::Witness;

/// Whether a log has to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// This node was a manager before.
    Log,
    /// It may be its first start.
    Anything,
}

/// Opens or makes the files in `dir` for manager `raft_id`. This blocks.
///
/// # Errors
///
/// Anything that would let a manager take part without what it has acknowledged before: a
/// file that is damaged, or missing beside others.
pub(crate) fn open(
    dir: &Path,
    raft_id: u64,
    expect: Expect,
) -> Result<(LogStore, Machine), RaftError> {
    durable::private_directory(dir).map_err(|error| RaftError::file("make", dir, &error))?;
    let log = LogStore::path(dir);
    let filled = |path: &Path| fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0);
    let has_log = filled(&log);
    let has_rest = filled(&SnapshotStore::path(dir)) || filled(&Witness::path(dir));
    if !has_log && (has_rest || expect == Expect::Log) {
        return Err(RaftError::Missing { path: log });
    }
    let sealer = Arc::new(open_key(&dir.join("key"), has_log)?);
    if !has_log {
        LogStore::create(dir, &sealer)?;
    }
    let Files {
        store,
        snapshots,
        stored,
    } = open_files(dir, raft_id, &sealer)?;
    let machine = Machine::new(snapshots, stored.as_ref())?;
    Ok((store, machine))
}

/// What a manager has written, read and compared.
pub(crate) struct Files {
    pub(crate) store: LogStore,
    pub(crate) snapshots: SnapshotStore,
    /// What is in the last snapshot, where there is one.
    pub(crate) stored: Option<Stored>,
}

/// Opens the files of a manager that has been one before. This blocks.
///
/// # Errors
///
/// As [`open`].
pub(crate) fn reopen(dir: &Path, raft_id: u64) -> Result<Files, RaftError> {
    let log = LogStore::path(dir);
    if !fs::metadata(&log).is_ok_and(|metadata| metadata.len() > 0) {
        return Err(RaftError::Missing { path: log });
    }
    let sealer = Arc::new(open_key(&dir.join("key"), true)?);
    open_files(dir, raft_id, &sealer)
}

fn open_files(dir: &Path, raft_id: u64, sealer: &Arc<Sealer>) -> Result<Files, RaftError> {
    let (snapshots, stored) = SnapshotStore::open(dir, sealer)?;
    let store = LogStore::open(dir, sealer, raft_id)?;
    let last = stored.as_ref().and_then(|stored| stored.meta.last_log_id);
    if store.purged() > last {
        let reason = format!(
            "it must reach to entry {}, because the log begins after that, but reaches to {}",
            display(store.purged()),
            display(last)
        );
        return Err(RaftError::damaged(&SnapshotStore::path(dir), reason));
    }
    Ok(Files {
        store,
        snapshots,
        stored,
    })
}

fn open_key(path: &Path, has_log: bool) -> Result<Sealer, RaftError> {
    // A new key would open none of the records that are there.
    let sealer = if has_log || path.exists() {
        Sealer::load(path)
    } else {
        Sealer::create(path)
    };
    sealer.map_err(|error| RaftError::damaged(path, chain(&error)))
}

/// An error with what caused it, for a reason that is kept as text.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

fn display(log_id: Option<super::types::LogId>) -> String {
    log_id.map_or_else(|| "nowhere".to_owned(), |id| id.index.to_string())
}

#[cfg(test)]
mod tests;
