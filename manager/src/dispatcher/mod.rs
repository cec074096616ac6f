//! Assignments to agents, and their reports back.
//!
//! Every manager serves sessions, from the state as it has been applied there, so that a
//! thousand agents do not all hang on the leader. [`session`] is one agent's stream,
//! [`assignments`] what goes to it, [`feed`] the endpoint table that all of them share, and
//! [`collector`] the way of the reports to the leader, and [`reach`] the doubt whether there is one.

mod assignments;
pub(crate) mod collector;
pub(crate) mod feed;
mod reach;
mod session;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use swarmlet_core::model::NodeId;
use swarmlet_proto::identity::PeerIdentity;
use swarmlet_proto::v1;
use swarmlet_proto::v1::dispatcher_server::Dispatcher;

use crate::dialer::Dialer;
use crate::raft::Raft;
use collector::Collector;
use feed::TableFeed;
use session::Session;

/// Messages to an agent that wait to be sent. A slow agent holds up only its own session:
/// what has not been sent is recomputed from the state, and the latest wins.
const WAITING: usize = 8;

/// The service.
#[derive(Clone)]
pub(crate) struct DispatcherService {
    pub(crate) raft: Raft,
    pub(crate) dialer: Dialer,
    pub(crate) feed: TableFeed,
    pub(crate) collector: Collector,
    pub(crate) sessions: Sessions,
    pub(crate) stop: CancellationToken,
}

#[tonic::async_trait]
impl Dispatcher for DispatcherService {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<v1::ManagerMessage, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let peer = request
            .extensions()
            .get::<PeerIdentity>()
            .cloned()
            .ok_or_else(|| Status::unauthenticated("a session needs a certificate"))?;
        let (sender, receiver) = mpsc::channel(WAITING);
        let session = Session {
            node: peer.node.clone(),
            raft: self.raft.clone(),
            dialer: self.dialer.clone(),
            feed: self.feed.clone(),
            collector: self.collector.clone(),
            outbound: sender,
        };
        let place = self.sessions.open(&peer.node, &self.collector);
        let inbound = request.into_inner();
        let stop = self.stop.clone();
        tokio::spawn(async move {
            session.run(inbound, &place, stop).await;
            drop(place);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// The sessions of this manager: one to a node, the latest.
#[derive(Clone, Default)]
pub(crate) struct Sessions {
    inner: Arc<Mutex<Table>>,
}

#[derive(Default)]
struct Table {
    last: u64,
    live: BTreeMap<NodeId, Live>,
}

struct Live {
    number: u64,
    replaced: CancellationToken,
    /// The way to the agent, once it was welcomed.
    outbound: Option<Outbound>,
}

/// The way to an agent.
type Outbound = mpsc::Sender<Result<v1::ManagerMessage, Status>>;

/// A session's place among the live ones; dropping it frees the place.
pub(crate) struct Place {
    node: NodeId,
    number: u64,
    /// Cancelled once a later session of the same node has begun.
    pub(crate) replaced: CancellationToken,
    sessions: Sessions,
    collector: Collector,
}

impl Sessions {
    fn open(&self, node: &NodeId, collector: &Collector) -> Place {
        let replaced = CancellationToken::new();
        let mut table = self.lock();
        table.last += 1;
        let number = table.last;
        let entry = Live {
            number,
            replaced: replaced.clone(),
            outbound: None,
        };
        if let Some(earlier) = table.live.insert(node.clone(), entry) {
            earlier.replaced.cancel();
        }
        collector.opened(node);
        Place {
            node: node.clone(),
            number,
            replaced,
            sessions: self.clone(),
            collector: collector.clone(),
        }
    }

    /// Sends an agent a message beside its assignments; tells whether it is on its way. One
    /// that takes no messages at the moment is as good as away.
    pub(crate) fn tell(&self, node: &NodeId, message: v1::ManagerMessage) -> bool {
        let outbound = {
            let table = self.lock();
            table.live.get(node).and_then(|live| live.outbound.clone())
        };
        outbound.is_some_and(|outbound| outbound.try_send(Ok(message)).is_ok())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Notes that the agent was welcomed, and may be told things.
    fn welcomed(&self, outbound: &Outbound) {
        let mut table = self.sessions.lock();
        if let Some(live) = table.live.get_mut(&self.node)
            && live.number == self.number
        {
            live.outbound = Some(outbound.clone());
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.sessions.lock();
        let live = table.live.get(&self.node);
        if live.is_some_and(|live| live.number == self.number) {
            table.live.remove(&self.node);
            self.collector.closed(&self.node);
        }
    }
}
