//! The receiving side of Raft between managers.
//!
//! Who may call is decided in front of this service; here the caller is a manager of the
//! cluster. Its bytes are still not trusted to decode.

use std::sync::Arc;

use openraft::error::RaftError;
use openraft::raft::AppendEntriesRequest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use swarmlet_proto::{expelled, v1};
use tonic::{Request, Response, Status};

use super::election::Voter;
use super::error::ProposeError;
use super::lineage::Lineage;
use super::space::Space;
use super::types::{Consensus, TypeConfig};
use super::wire::{self, Ends, WireError};

/// The largest message: a chunk of a snapshot or 4 MiB of entries, with room for one entry of
/// the largest size and the encoding around it.
pub(crate) const MESSAGE_LIMIT_BYTES: usize = 16 << 20;

type Append = AppendEntriesRequest<TypeConfig>;

/// Hands messages to the consensus library.
#[derive(Clone)]
pub struct RaftService {
    raft_id: u64,
    raft: Consensus,
    voter: Voter,
    lineage: Arc<Lineage>,
    space: Arc<Space>,
}

impl RaftService {
    pub(crate) fn new(
        raft_id: u64,
        raft: Consensus,
        voter: Voter,
        lineage: Arc<Lineage>,
        space: Arc<Space>,
    ) -> Self {
        Self {
            raft_id,
            raft,
            voter,
            lineage,
            space,
        }
    }

    /// Takes from an append what a full disk has room for: that there is a leader.
    ///
    /// The refusal has the leader pause, and send the entries again until there is room; it counts
    /// this manager as one that does not answer meanwhile, since it adds nothing to a quorum.
    async fn follow_only(&self, message: Append, full: &ProposeError) -> Status {
        let heard = Append {
            leader_commit: message.leader_commit.min(message.prev_log_id),
            entries: Vec::new(),
            ..message
        };
        match self.raft.append_entries(heard).await {
            Ok(_) => Status::resource_exhausted(full.to_string()),
            Err(error) => Status::internal(error.to_string()),
        }
    }

    fn ends(&self) -> Ends {
        Ends {
            raft_id: self.raft_id,
            incarnation: self.lineage.own(),
        }
    }

    fn decode<T: DeserializeOwned>(&self, request: Request<v1::RaftMessage>) -> Result<T, Status> {
        if let Some(superseded) = self.lineage.superseded() {
            let refusal = Status::failed_precondition(superseded.to_string());
            return Err(expelled::superseded(refusal, superseded.incarnation));
        }
        wire::decode(self.ends(), &request.into_inner().body).map_err(|error| {
            let text = error.to_string();
            match error {
                WireError::Incarnation { theirs, own } if theirs < own => {
                    expelled::superseded(Status::failed_precondition(text), own)
                }
                _ => Status::invalid_argument(text),
            }
        })
    }

    fn encode<T: Serialize>(&self, answer: &T) -> Result<Response<v1::RaftMessage>, Status> {
        let body = wire::encode(self.ends(), answer)
            .map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(v1::RaftMessage { body }))
    }
}

impl std::fmt::Debug for RaftService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RaftService({})", self.raft_id)
    }
}

#[tonic::async_trait]
impl v1::raft_server::Raft for RaftService {
    async fn append(
        &self,
        request: Request<v1::RaftMessage>,
    ) -> Result<Response<v1::RaftMessage>, Status> {
        let message: Append = self.decode(request)?;
        if !message.entries.is_empty()
            && let Err(full) = self.space.for_replication().await
        {
            return Err(self.follow_only(message, &full).await);
        }
        self.encode(&self.raft.append_entries(message).await)
    }

    async fn pre_vote(
        &self,
        request: Request<v1::RaftMessage>,
    ) -> Result<Response<v1::RaftMessage>, Status> {
        let question = self.decode(request)?;
        let answer = self.voter.would_grant(question).await;
        self.encode(&answer.map_err(RaftError::<u64>::Fatal))
    }

    async fn vote(
        &self,
        request: Request<v1::RaftMessage>,
    ) -> Result<Response<v1::RaftMessage>, Status> {
        let message = self.decode(request)?;
        self.encode(&self.raft.vote(message).await)
    }

    async fn snapshot(
        &self,
        request: Request<v1::RaftMessage>,
    ) -> Result<Response<v1::RaftMessage>, Status> {
        let chunk: wire::Chunk = self.decode(request)?;
        if let Err(full) = self.space.for_replication().await {
            return Err(Status::resource_exhausted(full.to_string()));
        }
        self.encode(&self.raft.install_snapshot(chunk.into()).await)
    }
}
