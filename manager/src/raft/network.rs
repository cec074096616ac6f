//! The sending side of Raft between managers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use openraft::error::{
    InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use swarmlet_proto::v1::raft_client::RaftClient;
use swarmlet_proto::{expelled, v1};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::contact::Contacts;
use super::election::Question;
use super::lineage::Lineage;
use super::server::MESSAGE_LIMIT_BYTES;
use super::types::{Peer, TypeConfig};
use super::wire::{self, Ends};

/// Pause after a manager could not be reached. Heartbeats pause as well, so it has to be well
/// below the shortest election timeout, or a restarted follower would stand for election
/// before its leader tries it again.
const BACKOFF: Duration = Duration::from_millis(150);
/// Unanswered calls in a row after which the connection is made anew. A connection that was
/// cut off resends ever more rarely, and would stay silent for seconds after the cut is over.
const SILENT_CALLS: u32 = 8;

/// Makes a channel to an address; it connects when it is first used.
pub(crate) type Dialer = Arc<dyn Fn(SocketAddr) -> Channel + Send + Sync>;

/// Makes clients; those of one manager share a connection.
#[derive(Clone)]
pub(crate) struct Network {
    dialer: Dialer,
    contacts: Arc<Contacts>,
    lineage: Arc<Lineage>,
    lines: Arc<Mutex<Lines>>,
}

/// One for each manager and address that it has had.
type Lines = BTreeMap<(u64, SocketAddr), Arc<Line>>;

/// A connection to one manager.
struct Line {
    channel: Mutex<Channel>,
    /// Calls since the last answer.
    silent: AtomicU32,
}

/// Talks to one manager.
pub(crate) struct Client {
    target: u64,
    address: SocketAddr,
    line: Arc<Line>,
    dialer: Dialer,
    contacts: Arc<Contacts>,
    lineage: Arc<Lineage>,
}

/// Which of the service's calls.
#[derive(Clone, Copy)]
enum Call {
    Append,
    PreVote,
    Vote,
    Snapshot,
}

impl Network {
    pub(crate) fn new(dialer: Dialer, contacts: Arc<Contacts>, lineage: Arc<Lineage>) -> Self {
        Self {
            dialer,
            contacts,
            lineage,
            lines: Arc::default(),
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: u64, node: &Peer) -> Client {
        let address = node.address;
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let line = lines.entry((target, address)).or_insert_with(|| {
            Arc::new(Line {
                channel: Mutex::new((self.dialer)(address)),
                silent: AtomicU32::new(0),
            })
        });
        Client {
            target,
            address,
            line: Arc::clone(line),
            dialer: Arc::clone(&self.dialer),
            contacts: Arc::clone(&self.contacts),
            lineage: Arc::clone(&self.lineage),
        }
    }
}

impl Client {
    /// Asks whether the manager would vote for this one; see [`super::election`].
    pub(crate) async fn would_grant(
        &self,
        question: Question,
        deadline: Duration,
    ) -> Result<bool, RPCError<u64, Peer, RaftError<u64>>> {
        self.call(Call::PreVote, question, deadline).await
    }

    /// Sends one message and waits for the answer, at most as long as `deadline`.
    async fn call<Q, A, E>(
        &self,
        call: Call,
        request: Q,
        deadline: Duration,
    ) -> Result<A, RPCError<u64, Peer, RaftError<u64, E>>>
    where
        Q: Serialize,
        A: DeserializeOwned,
        E: std::error::Error + DeserializeOwned,
    {
        let ends = Ends {
            raft_id: self.target,
            incarnation: self.lineage.own(),
        };
        let body = wire::encode(ends, &request).map_err(|e| NetworkError::new(&e))?;
        let answer = self.send(call, body, deadline).await.map_err(|status| {
            if let Some(incarnation) = expelled::superseded_by(&status) {
                self.lineage.heard(incarnation, self.address);
            }
            tracing::debug!(raft_id = self.target, address = %self.address, %status, "manager not reached");
            RPCError::Unreachable(Unreachable::new(&status))
        })?;
        self.line.silent.store(0, Ordering::Relaxed);
        let answer: Result<A, RaftError<u64, E>> =
            wire::decode(ends, &answer).map_err(|e| NetworkError::new(&e))?;
        let peer = Peer {
            address: self.address,
        };
        let answer =
            answer.map_err(|error| RemoteError::new_with_node(self.target, peer, error))?;
        // Only an answer of its Raft counts: a manager whose storage has failed still listens.
        self.contacts.answered(self.target);
        Ok(answer)
    }

    async fn send(&self, call: Call, body: Bytes, deadline: Duration) -> Result<Bytes, Status> {
        let message = v1::RaftMessage { body };
        let mut client = RaftClient::new(self.channel())
            .max_decoding_message_size(MESSAGE_LIMIT_BYTES)
            .max_encoding_message_size(MESSAGE_LIMIT_BYTES);
        let answer = async {
            match call {
                Call::Append => client.append(message).await,
                Call::PreVote => client.pre_vote(message).await,
                Call::Vote => client.vote(message).await,
                Call::Snapshot => client.snapshot(message).await,
            }
        };
        match tokio::time::timeout(deadline, answer).await {
            Ok(answer) => Ok(answer?.into_inner().body),
            Err(_) => Err(Status::new(
                Code::DeadlineExceeded,
                "no answer before the deadline",
            )),
        }
    }

    /// The connection, or a new one where the last calls all remained without an answer. It
    /// is counted before the call, because the library drops calls that take too long.
    fn channel(&self) -> Channel {
        let silent = self.line.silent.fetch_add(1, Ordering::Relaxed);
        let mut channel = self
            .line
            .channel
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if silent >= SILENT_CALLS {
            self.line.silent.store(0, Ordering::Relaxed);
            *channel = (self.dialer)(self.address);
        }
        channel.clone()
    }
}

impl RaftNetwork<TypeConfig> for Client {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RPCError<u64, Peer, RaftError<u64>>> {
        self.call(Call::Append, request, option.hard_ttl()).await
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<
        InstallSnapshotResponse<u64>,
        RPCError<u64, Peer, RaftError<u64, InstallSnapshotError>>,
    > {
        let chunk = wire::Chunk::from(request);
        self.call(Call::Snapshot, chunk, option.hard_ttl()).await
    }

    async fn vote(
        &mut self,
        request: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, RPCError<u64, Peer, RaftError<u64>>> {
        self.call(Call::Vote, request, option.hard_ttl()).await
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(BACKOFF))
    }
}
