//! The state machine: turns committed entries into the next state and hands it out.
//!
//! The state itself lives in memory. What survives a restart is the last snapshot, and the
//! committed entries after it, which are applied again.

use std::io::Cursor;
use std::sync::Arc;

use openraft::storage::RaftStateMachine;
use openraft::{AnyError, EntryPayload, OptionalSend, RaftSnapshotBuilder, StorageIOError};
use swarmlet_core::apply;
use swarmlet_core::model::{Cluster, Version};
use swarmlet_core::state::State;
use tokio::sync::watch;

use super::error::RaftError;
use super::snapshot::{SnapshotStore, Stored};
use super::types::{
    Entry, LogId, Outcome, Payload, Snapshot, SnapshotMeta, StorageError, StoredMembership,
    TypeConfig,
};

/// Applies entries.
#[derive(Debug)]
pub(crate) struct Machine {
    applied: Option<LogId>,
    membership: StoredMembership,
    /// The state after `applied`; everybody else sees it through this channel.
    state: watch::Sender<Arc<State>>,
    snapshots: Arc<SnapshotStore>,
}

/// Writes a snapshot of the state as it was when the builder was made.
#[derive(Debug)]
pub(crate) struct Builder {
    applied: Option<LogId>,
    membership: StoredMembership,
    state: Arc<State>,
    snapshots: Arc<SnapshotStore>,
}

impl Machine {
    /// Starts from the snapshot on disk, or from nothing.
    pub(crate) fn new(
        snapshots: SnapshotStore,
        stored: Option<&Stored>,
    ) -> Result<Self, RaftError> {
        let state = match stored {
            Some(stored) => decode(&stored.state).map_err(RaftError::Failed)?,
            None => State::default(),
        };
        let meta = stored.map(|stored| &stored.meta);
        Ok(Self {
            applied: meta.and_then(|meta| meta.last_log_id),
            membership: meta.map_or_else(StoredMembership::default, |meta| {
                meta.last_membership.clone()
            }),
            state: watch::Sender::new(Arc::new(state)),
            snapshots: Arc::new(snapshots),
        })
    }

    /// Follows the state.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<State>> {
        self.state.subscribe()
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Outcome>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut outcomes = Vec::new();
        // A copy, of pointers only: readers hold the state as it was, and see all of these
        // entries or none.
        let mut next = None;
        for entry in entries {
            let log_id = entry.log_id;
            let outcome = match entry.payload {
                EntryPayload::Blank => Outcome::default(),
                EntryPayload::Normal(payload) => {
                    let state = next.get_or_insert_with(|| State::clone(&self.state.borrow()));
                    apply_payload(state, log_id, &payload).map_err(|reason| {
                        tracing::error!("{reason}");
                        StorageIOError::apply(log_id, AnyError::error(reason))
                    })?
                }
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(log_id), membership);
                    Outcome::default()
                }
            };
            self.applied = Some(log_id);
            outcomes.push(outcome);
        }
        if let Some(next) = next {
            self.state.send_replace(Arc::new(next));
        }
        Ok(outcomes)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            applied: self.applied,
            membership: self.membership.clone(),
            state: Arc::clone(&self.state.borrow()),
            snapshots: Arc::clone(&self.snapshots),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let snapshots = Arc::clone(&self.snapshots);
        let saved = meta.clone();
        let state = blocking(move || {
            let bytes = snapshot.into_inner();
            let state = decode(&bytes)?;
            snapshots
                .save(&saved, &bytes)
                .map_err(|error| error.to_string())?;
            Ok(state)
        })
        .await
        .map_err(|reason| {
            StorageIOError::write_snapshot(Some(meta.signature()), AnyError::error(reason))
        })?;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.state.send_replace(Arc::new(state));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, StorageError> {
        let snapshots = Arc::clone(&self.snapshots);
        let stored = blocking(move || snapshots.load().map_err(|error| error.to_string()))
            .await
            .map_err(|reason| StorageIOError::read_snapshot(None, AnyError::error(reason)))?;
        Ok(stored.map(|stored| Snapshot {
            meta: stored.meta,
            snapshot: Box::new(Cursor::new(stored.state)),
        }))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot, StorageError> {
        let meta = SnapshotMeta {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
            // The encoding is deterministic, so that equal names are equal bytes.
            snapshot_id: self
                .applied
                .map_or_else(|| "empty".to_owned(), |id| id.to_string()),
        };
        let (state, snapshots, saved) = (
            Arc::clone(&self.state),
            Arc::clone(&self.snapshots),
            meta.clone(),
        );
        let bytes = blocking(move || {
            let bytes = swarmlet_proto::encode_snapshot(&state);
            snapshots
                .save(&saved, &bytes)
                .map_err(|error| error.to_string())?;
            Ok(bytes)
        })
        .await
        .map_err(|reason| {
            StorageIOError::write_snapshot(Some(meta.signature()), AnyError::error(reason))
        })?;
        Ok(Snapshot {
            meta,
            snapshot: Box::new(Cursor::new(bytes)),
        })
    }
}

/// Applies one entry. One that cannot be read stops this replica: to skip it would make the
/// state differ from that of the others from then on, in silence.
pub(crate) fn apply_payload(
    state: &mut State,
    log_id: LogId,
    payload: &Payload,
) -> Result<Outcome, String> {
    let index = log_id.index;
    let proposal = swarmlet_proto::decode_proposal(&payload.0)
        .map_err(|error| unreadable(&format!("log entry {index} cannot be applied: {error}")))?;
    let results = apply::apply(state, Version(index), &proposal);
    check_schema(state).map_err(|error| unreadable(&format!("after log entry {index} {error}")))?;
    Ok(Outcome { results })
}

/// The state of a snapshot; one that cannot be read, or not wholly, stops this replica as well.
pub(crate) fn decode(bytes: &[u8]) -> Result<State, String> {
    let state = swarmlet_proto::decode_snapshot(bytes)
        .map_err(|error| unreadable(&format!("the snapshot cannot be read: {error}")))?;
    check_schema(&state).map_err(|error| unreadable(&format!("in the snapshot {error}")))?;
    Ok(state)
}

/// What a newer schema adds, this program would drop in silence.
fn check_schema(state: &State) -> Result<(), String> {
    match state.cluster() {
        Some(cluster) if cluster.schema > Cluster::SCHEMA => Err(format!(
            "the state has schema {}, and this swarmlet knows {} at most",
            cluster.schema,
            Cluster::SCHEMA
        )),
        _ => Ok(()),
    }
}

/// What is sealed is what a swarmlet wrote, so that one who cannot read it is the older one.
fn unreadable(what: &str) -> String {
    format!("{what}; it was written by a newer swarmlet, update this manager and start it again")
}

/// Runs work on disk or of long computation beside the runtime.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| error.to_string())?
}
