//! The service `Logs`: what containers have written, from every node, in the order of time.
//!
//! ```text
//!  command line ─ReadLogs─▶ Reader ──tickets──▶ (own sessions | AskAgents) ──▶ agents
//!       ▲                    │  ▲                                               │
//!       └───── lines ────────┘  └────────── PublishLogs, with a ticket ─────────┘
//! ```
//!
//! Any manager answers, by the state as it has been applied there, so that logs can be read
//! without a leader as well. It asks the agents for what they have ([`asking`]); each brings it
//! on a connection of its own, shows its ticket ([`tickets`]), and [`reader`] puts their lines
//! in order. Nothing is read ahead of whoever reads: what waits here is one message to a node.

mod asking;
mod lines;
mod reader;
pub(crate) mod tickets;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use swarmlet_core::logs::Target;
use swarmlet_core::model::{NodeId, Version};
use swarmlet_core::state::State;
use swarmlet_proto::identity::PeerIdentity;
use swarmlet_proto::v1;
use swarmlet_proto::v1::logs_server::Logs;
use swarmlet_proto::v1::peer_client::PeerClient;
use swarmlet_proto::v1::publish_logs_request::Kind;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::control::resolve;
use crate::dialer::Dialer;
use crate::dispatcher::Sessions;
use crate::raft::Raft;
use crate::status;
use lines::Outbox;
use reader::Reader;
use tickets::{Inbound, Tickets};

/// Readers at a time. Each costs a connection from every node, and a person reads one.
const MAX_READERS: usize = 64;

/// Messages on their way to a reader, behind which everything waits.
const WAITING: usize = 4;

/// The largest message of an agent: it holds one long line, or many short ones.
pub(crate) const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// How long an agent may take to show its ticket.
const TICKET_WAIT: Duration = Duration::from_secs(5);

/// How long a reader waits for this manager's state to be current; without a leader it makes do
/// with what there is.
const CURRENT_WAIT: Duration = Duration::from_millis(700);

/// The service; copies are handles of the same one.
#[derive(Clone)]
pub(crate) struct LogsService {
    pub(crate) node: NodeId,
    pub(crate) raft: Raft,
    pub(crate) dialer: Dialer,
    pub(crate) sessions: Sessions,
    pub(crate) tickets: Tickets,
    pub(crate) readers: Arc<Semaphore>,
    pub(crate) stop: CancellationToken,
}

impl LogsService {
    pub(crate) fn new(
        node: NodeId,
        raft: Raft,
        dialer: Dialer,
        sessions: Sessions,
        stop: CancellationToken,
    ) -> Self {
        Self {
            node,
            raft,
            dialer,
            sessions,
            tickets: Tickets::default(),
            readers: Arc::new(Semaphore::new(MAX_READERS)),
            stop,
        }
    }

    /// Waits until this manager knows what the leader knows; tells whether it does.
    async fn is_current(&self) -> bool {
        let current = async {
            let leadership = *self.raft.watch_leadership().borrow();
            if leadership.is_self {
                return self.raft.linearizable().await.is_ok();
            }
            let Some(leader) = leadership.leader else {
                return false;
            };
            let mut peer = PeerClient::new(self.dialer.channel(leader.address));
            let Ok(read) = peer.read_version(v1::ReadVersionRequest {}).await else {
                return false;
            };
            let version = Version(read.into_inner().version);
            let mut states = self.raft.watch_state();
            let reached = states.wait_for(|state| state.version() >= version).await;
            reached.is_ok()
        };
        timeout(CURRENT_WAIT, current).await.unwrap_or(false)
    }
}

#[tonic::async_trait]
impl Logs for LogsService {
    type ReadLogsStream = Pin<Box<dyn Stream<Item = Result<v1::ReadLogsResponse, Status>> + Send>>;

    async fn read_logs(
        &self,
        request: Request<v1::ReadLogsRequest>,
    ) -> Result<Response<Self::ReadLogsStream>, Status> {
        let request = request.into_inner();
        let Ok(place) = self.readers.clone().try_acquire_owned() else {
            return Err(Status::resource_exhausted(format!(
                "{MAX_READERS} readers of logs are served already: end one, or ask another manager"
            )));
        };
        let is_current = self.is_current().await;
        let target = target(&self.raft.state(), &request)?;
        let (sender, receiver) = mpsc::channel(WAITING);
        let mut outbox = Outbox::new(sender);
        if !is_current {
            outbox.warn(format!(
                "this manager may not know the latest tasks: {}",
                status::NO_LEADER
            ));
        }
        let query = request.query.unwrap_or_default();
        let reader = Reader::new(self.clone(), target, query, outbox);
        let stop = self.stop.clone();
        tokio::spawn(async move {
            let _place = place;
            tokio::select! {
                () = stop.cancelled() => {}
                () = reader.run() => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn ask_agents(
        &self,
        request: Request<v1::AskAgentsRequest>,
    ) -> Result<Response<v1::AskAgentsResponse>, Status> {
        let mut node_ids = Vec::new();
        for wanted in request.into_inner().wanted {
            let node = NodeId::parse(&wanted.node_id)
                .map_err(|error| Status::invalid_argument(error.to_string()))?;
            let told = wanted
                .wanted
                .is_some_and(|wanted| self.sessions.tell(&node, asking::message(wanted)));
            node_ids.extend(told.then_some(wanted.node_id));
        }
        Ok(Response::new(v1::AskAgentsResponse { node_ids }))
    }

    async fn publish_logs(
        &self,
        request: Request<Streaming<v1::PublishLogsRequest>>,
    ) -> Result<Response<v1::PublishLogsResponse>, Status> {
        let peer = request.extensions().get::<PeerIdentity>().cloned();
        let peer = peer.ok_or_else(|| Status::unauthenticated("logs need a certificate"))?;
        let mut messages = request.into_inner();
        let first = timeout(TICKET_WAIT, messages.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no ticket within 5 s"))??;
        let Some(Kind::Ticket(ticket)) = first.and_then(|first| first.kind) else {
            return Err(Status::invalid_argument("logs begin with a ticket"));
        };
        let reader = self.tickets.take(&ticket, &peer.node)?;
        let (done, over) = oneshot::channel();
        let inbound = Inbound::new(messages, done);
        if reader.send(inbound).is_err() {
            return Ok(Response::new(v1::PublishLogsResponse {}));
        }
        tokio::select! {
            // It is never sent, only dropped, with whoever reads.
            _ = over => Ok(Response::new(v1::PublishLogsResponse {})),
            () = self.stop.cancelled() => Err(Status::unavailable("this manager is stopping")),
        }
    }
}

/// Finds what the user wants to read.
fn target(state: &State, request: &v1::ReadLogsRequest) -> Result<Target, Status> {
    let text = request.target.as_str();
    let task = || resolve::task(state, text).map(|task| Target::Task(task.id.clone()));
    match request.kind() {
        v1::LogTarget::Task => task(),
        v1::LogTarget::ServiceOrTask => match resolve::service(state, text) {
            Ok(service) => Ok(Target::Service(service.id.clone())),
            Err(status) if status.code() == tonic::Code::NotFound => task().map_err(|status| {
                if status.code() == tonic::Code::NotFound {
                    Status::not_found(format!("no such task or service: {text}"))
                } else {
                    status
                }
            }),
            Err(status) => Err(status),
        },
        v1::LogTarget::Unspecified => Err(Status::invalid_argument(
            "the request does not say what its target is",
        )),
    }
}
