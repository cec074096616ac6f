//! A manager goes on without the others: what its files become.
//!
//! Everything that it knows becomes one snapshot, of which it is the only voter, at an index that
//! no manager has been at. Putting that in the place of the last snapshot is the whole change, and
//! one rename: before it the files are those of a manager that waits for the others, and after it
//! those of one that has received a snapshot and has not purged its log yet, which the next start
//! does as after any such crash. The next start is also its election.
//!
//! All entries of the log count, those included that it does not know to be committed. They may
//! have been acknowledged by a leader that had no time to say so, and this is what a leader that
//! is elected makes of them, too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use openraft::{EntryPayload, Membership};
use swarmlet_core::recovery::{self, Survivor};
use swarmlet_core::state::State;

use super::error::RaftError;
use super::log::LogStore;
use super::machine;
use super::storage::{self, Files};
use super::types::{LogId, Peer, SnapshotMeta, StoredMembership};

/// Rewrites the files in `dir` of manager `raft_id`, which must not run, and returns the state in
/// which it will start as the only voter. This blocks until all of it is on the disk.
///
/// # Errors
///
/// [`RaftError`], in which case nothing has changed.
pub fn go_on_alone(dir: &Path, raft_id: u64, survivor: &Survivor) -> Result<State, RaftError> {
    let files = storage::reopen(dir, raft_id)?;
    let (state, last) = everything(dir, &files)?;
    let state = recovery::go_on_alone(&state, survivor)?;
    // Of the leader of the last entry, so that the vote on disk is still of that one or a later.
    let last = LogId::new(last.leader_id, state.version().0);
    let voters = BTreeSet::from([raft_id]);
    let address = survivor.address;
    let peers = BTreeMap::from([(raft_id, Peer { address })]);
    let membership = Membership::new(vec![voters], peers);
    let meta = SnapshotMeta {
        last_log_id: Some(last),
        last_membership: StoredMembership::new(Some(last), membership),
        snapshot_id: last.to_string(),
    };
    let bytes = swarmlet_proto::encode_snapshot(&state);
    files.snapshots.save(&meta, &bytes)?;
    Ok(state)
}

/// The state after all entries, and the last of them.
fn everything(dir: &Path, files: &Files) -> Result<(State, LogId), RaftError> {
    let stored = files.stored.as_ref();
    let mut state = match stored {
        Some(stored) => machine::decode(&stored.state).map_err(RaftError::Failed)?,
        None => State::default(),
    };
    let in_snapshot = stored.and_then(|stored| stored.meta.last_log_id);
    for entry in files.store.entries_after(dir, in_snapshot)? {
        if let EntryPayload::Normal(payload) = &entry.payload {
            machine::apply_payload(&mut state, entry.log_id, payload).map_err(RaftError::Failed)?;
        }
    }
    let last = in_snapshot.max(files.store.last()).ok_or_else(|| {
        RaftError::damaged(&LogStore::path(dir), "there is nothing in it to go on with")
    })?;
    Ok((state, last))
}

#[cfg(test)]
mod tests;
