//! Many proposals, one log entry.
//!
//! An entry costs a sync on each manager, however small it is. While one entry is on its way
//! the next proposals gather, and then go together: a lone proposal is not delayed at all, and
//! under load the number of entries does not depend on the number of proposals.

use std::time::Duration;

use openraft::error::{ClientWriteError, Fatal};
use swarmlet_core::apply::Rejection;
use swarmlet_core::command::{Command, Proposal};
use swarmlet_core::event::Event;
use swarmlet_core::model::Version;
use swarmlet_proto::clock;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::{Leader, ProposeError};
use super::types::{Consensus, Payload};

/// How long a proposal waits for its result. Users are promised an answer within two seconds,
/// and it still has to reach them.
pub(crate) const DEADLINE: Duration = Duration::from_millis(1_800);
/// The largest log entry.
pub(crate) const ENTRY_LIMIT_BYTES: usize = 3 << 19;
/// A batch is closed once it has this many bytes; replication sends up to 4 MiB at once.
const BATCH_BYTES: usize = 512 << 10;
/// A batch is closed once it has this many commands: they are applied in one go, and readers
/// wait for that.
const BATCH_COMMANDS: usize = 256;
/// How long proposals gather after the first one when they do not have to wait anyway. They
/// often come in bursts, and a sync takes about as long.
const GATHER: Duration = Duration::from_millis(1);
/// Proposals that wait for the batch after the next; further ones wait in their callers.
const QUEUE: usize = 1024;

/// What became of a proposal.
#[derive(Debug, Clone, PartialEq)]
pub struct Committed {
    /// Index of the log entry, which is the version of all objects that it touched.
    pub version: Version,
    /// One result for each command, in order.
    pub results: Vec<Result<Vec<Event>, Rejection>>,
}

/// The way into the batches.
#[derive(Debug, Clone)]
pub(crate) struct Batcher {
    queue: mpsc::Sender<Waiting>,
}

/// A proposal on its way into a batch.
#[derive(Debug)]
struct Waiting {
    commands: Vec<Command>,
    /// Encoded size.
    size: usize,
    until: Instant,
    answer: oneshot::Sender<Result<Committed, ProposeError>>,
}

impl Batcher {
    /// Starts the task that makes the batches; it ends with `stop`.
    pub(crate) fn start(raft: Consensus, stop: CancellationToken) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        tokio::spawn(run(raft, waiting, stop));
        Self { queue }
    }

    /// Proposes commands and waits for their results.
    pub(crate) async fn propose(&self, commands: Vec<Command>) -> Result<Committed, ProposeError> {
        let until = Instant::now() + DEADLINE;
        let proposal = Proposal {
            at: clock::now(),
            commands,
        };
        let size = swarmlet_proto::encode_proposal(&proposal).len();
        if size > ENTRY_LIMIT_BYTES {
            return Err(ProposeError::TooLarge {
                size,
                limit: ENTRY_LIMIT_BYTES,
            });
        }
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting {
            commands: proposal.commands,
            size,
            until,
            answer,
        };
        let result = tokio::time::timeout_at(until, async {
            let sent = self.queue.send(waiting).await;
            sent.map_err(|_| ProposeError::Stopped)?;
            answered.await.map_err(|_| ProposeError::Stopped)?
        });
        result.await.unwrap_or(Err(ProposeError::NoQuorum))
    }
}

async fn run(raft: Consensus, mut queue: mpsc::Receiver<Waiting>, stop: CancellationToken) {
    // The one that did not fit into the batch before.
    let mut left = None;
    loop {
        let first = match left.take() {
            Some(first) => first,
            None => tokio::select! {
                () = stop.cancelled() => return,
                first = queue.recv() => match first {
                    Some(first) => first,
                    None => return,
                },
            },
        };
        let batch;
        (batch, left) = gather(first, &mut queue).await;
        if batch.is_empty() {
            continue;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = write(&raft, batch) => {}
        }
    }
}

/// Takes what waits and what comes within a moment, up to the size of a batch.
async fn gather(
    first: Waiting,
    queue: &mut mpsc::Receiver<Waiting>,
) -> (Vec<Waiting>, Option<Waiting>) {
    let until = Instant::now() + GATHER;
    let (mut size, mut commands) = (0, 0);
    let mut batch = Vec::new();
    let mut next = Some(first);
    while let Some(waiting) = next {
        // Its caller has been told that the outcome is unknown, and may have tried again.
        // What has not been written yet need not be.
        if waiting.until > Instant::now() && !waiting.answer.is_closed() {
            size += waiting.size;
            commands += waiting.commands.len();
            if !batch.is_empty() && (size > BATCH_BYTES || commands > BATCH_COMMANDS) {
                return (batch, Some(waiting));
            }
            batch.push(waiting);
        }
        next = match queue.try_recv() {
            Ok(waiting) => Some(waiting),
            Err(_) => tokio::time::timeout_at(until, queue.recv())
                .await
                .unwrap_or(None),
        };
    }
    (batch, None)
}

/// Writes one entry and hands the results back. It waits no longer than the last of the
/// callers does: without a quorum the library would never answer.
async fn write(raft: &Consensus, mut batch: Vec<Waiting>) {
    let until = batch
        .iter()
        .map(|waiting| waiting.until)
        .max()
        .unwrap_or_else(Instant::now);
    let lengths: Vec<usize> = batch.iter().map(|w| w.commands.len()).collect();
    let proposal = Proposal {
        at: clock::now(),
        commands: batch
            .iter_mut()
            .flat_map(|waiting| std::mem::take(&mut waiting.commands))
            .collect(),
    };
    let payload = Payload(swarmlet_proto::encode_proposal(&proposal));
    let written = tokio::time::timeout_at(until, submit(raft, payload)).await;
    let result = written.unwrap_or(Err(ProposeError::NoQuorum));
    match result {
        Ok(Committed { version, results }) => {
            let mut results = results.into_iter();
            for (waiting, length) in batch.into_iter().zip(lengths) {
                let results = results.by_ref().take(length).collect();
                // A caller may have given up by now; the entry is written all the same.
                let _ = waiting.answer.send(Ok(Committed { version, results }));
            }
        }
        Err(error) => {
            for waiting in batch {
                // As above.
                let _ = waiting.answer.send(Err(error.clone()));
            }
        }
    }
}

async fn submit(raft: &Consensus, payload: Payload) -> Result<Committed, ProposeError> {
    let answer = raft.client_write_ff(payload).await.map_err(from_fatal)?;
    let answer = answer.await.map_err(|_| stopped(raft))?;
    match answer {
        Ok(written) => Ok(Committed {
            version: Version(written.log_id.index),
            results: written.data.results,
        }),
        Err(ClientWriteError::ForwardToLeader(forward)) => Err(ProposeError::NotLeader {
            leader: forward
                .leader_id
                .zip(forward.leader_node)
                .map(|(raft_id, peer)| Leader {
                    raft_id,
                    address: peer.address,
                }),
        }),
        Err(ClientWriteError::ChangeMembershipError(error)) => {
            Err(ProposeError::Storage(error.to_string()))
        }
    }
}

/// Why Raft does not run.
pub(crate) fn from_fatal(fatal: Fatal<u64>) -> ProposeError {
    match fatal {
        Fatal::Stopped => ProposeError::Stopped,
        Fatal::StorageError(error) => ProposeError::Storage(error.to_string()),
        Fatal::Panicked => ProposeError::Storage("the consensus task panicked".to_owned()),
    }
}

fn stopped(raft: &Consensus) -> ProposeError {
    let running = raft.metrics().borrow().running_state.clone();
    running.err().map_or(ProposeError::Stopped, from_fatal)
}
