//! Who may call what: one table over every RPC, and what is not in it is refused.
//!
//! The caller's role comes from its certificate, and its node must still be in the state: a
//! certificate stays valid for months after its node was removed. The check comes before a
//! request is forwarded to the leader, against whoever made the call; were it made after
//! forwarding, the caller would always be a manager.

use axum::extract::{Request, State as Injected};
use axum::middleware::Next;
use axum::response::Response;
use tonic::Status;

use swarmlet_core::model::{ClusterId, Role, Timestamp};
use swarmlet_core::state::State;
use swarmlet_proto::expelled;
use swarmlet_proto::identity::PeerIdentity;

use crate::clock;
use crate::raft::{Leadership, Raft, Superseded};

/// Callers that an RPC admits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Callers {
    /// Whoever reaches the port. The RPC itself asks for a secret.
    Anybody,
    /// Every node of this cluster.
    Nodes,
    /// Managers of this cluster.
    Managers,
}

/// Every RPC that is served between nodes. `Local` is missing on purpose: it is served on the
/// socket of its own machine only.
const RULES: [(&str, Callers); 28] = [
    ("/swarmlet.v1.Ca/Check", Callers::Anybody),
    ("/swarmlet.v1.Ca/Join", Callers::Anybody),
    ("/swarmlet.v1.Ca/Renew", Callers::Nodes),
    ("/swarmlet.v1.Control/CreateService", Callers::Managers),
    ("/swarmlet.v1.Control/JoinToken", Callers::Managers),
    ("/swarmlet.v1.Control/ListNodes", Callers::Managers),
    ("/swarmlet.v1.Control/ListServices", Callers::Managers),
    ("/swarmlet.v1.Control/ListTasks", Callers::Managers),
    ("/swarmlet.v1.Control/Plan", Callers::Managers),
    ("/swarmlet.v1.Control/RebalanceService", Callers::Managers),
    ("/swarmlet.v1.Control/RemoveNode", Callers::Managers),
    ("/swarmlet.v1.Control/RemoveService", Callers::Managers),
    ("/swarmlet.v1.Control/RollbackService", Callers::Managers),
    ("/swarmlet.v1.Control/UpdateNode", Callers::Managers),
    ("/swarmlet.v1.Control/UpdateService", Callers::Managers),
    ("/swarmlet.v1.Control/WatchService", Callers::Managers),
    ("/swarmlet.v1.Dispatcher/Session", Callers::Nodes),
    ("/swarmlet.v1.Logs/AskAgents", Callers::Managers),
    ("/swarmlet.v1.Logs/PublishLogs", Callers::Nodes),
    ("/swarmlet.v1.Logs/ReadLogs", Callers::Managers),
    ("/swarmlet.v1.Peer/AddVoter", Callers::Managers),
    ("/swarmlet.v1.Peer/ReadVersion", Callers::Managers),
    ("/swarmlet.v1.Peer/RemoveVoter", Callers::Managers),
    ("/swarmlet.v1.Peer/Report", Callers::Managers),
    ("/swarmlet.v1.Raft/Append", Callers::Managers),
    ("/swarmlet.v1.Raft/PreVote", Callers::Managers),
    ("/swarmlet.v1.Raft/Snapshot", Callers::Managers),
    ("/swarmlet.v1.Raft/Vote", Callers::Managers),
];

/// Paths of Raft itself, where a replica that lags behind must listen to managers that it
/// does not know yet.
const RAFT: &str = "/swarmlet.v1.Raft/";

/// What a node calls whose certificate ends, or has ended.
const RENEW: &str = "/swarmlet.v1.Ca/Renew";

/// Who may call a path; `None` is nobody.
pub(crate) fn callers(path: &str) -> Option<Callers> {
    RULES
        .iter()
        .find(|(rule, _)| *rule == path)
        .map(|(_, callers)| *callers)
}

/// Why a call is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// There is no rule for the path.
    #[error("{0} is not served here")]
    NoRule(String),
    /// There is no certificate.
    #[error("this call needs a certificate of the cluster")]
    NoCertificate,
    /// The certificate is another cluster's.
    #[error("the certificate of node {node} is of another cluster ({cluster})")]
    OtherCluster {
        /// The caller.
        node: String,
        /// Its cluster.
        cluster: String,
    },
    /// The node is no longer in the state.
    #[error(
        "node {node} is not part of the swarm any more: it was removed. Run `swarmlet leave --force` \
         on it, then `swarmlet join`"
    )]
    RemovedNode {
        /// The caller.
        node: String,
        /// The cluster's incarnation: it may have been left behind before it was removed.
        incarnation: u64,
    },
    /// The node is not in the state, which may lag behind.
    #[error("node {0} is not part of the cluster: it was removed, or joined a moment ago")]
    UnknownNode(String),
    /// The node was a manager when another one went on without it.
    #[error(
        "node {node} was a manager when the swarm went on without it (`swarmlet init \
         --force-new-cluster`). Run `swarmlet leave --force` on it, then `swarmlet join`"
    )]
    SupersededNode {
        /// The caller.
        node: String,
        /// The incarnation that it is not part of.
        incarnation: u64,
    },
    /// This manager was left behind itself.
    #[error("the manager that was asked is not part of the swarm any more: {0}")]
    Superseded(Superseded),
    /// Its certificate has ended, and this call is not the way to another one.
    #[error(
        "the certificate of node {0} has ended: it has to renew it first, which it does by itself"
    )]
    Expired(String),
    /// The node is a worker.
    #[error("node {0} is a worker, and this call is for managers")]
    NotManager(String),
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.to_string();
        match refusal {
            Refusal::NoCertificate | Refusal::Expired(_) => Self::unauthenticated(text),
            Refusal::RemovedNode { incarnation, .. }
            | Refusal::SupersededNode { incarnation, .. } => {
                expelled::superseded(expelled::expelled(text), incarnation)
            }
            // Another manager can help.
            Refusal::Superseded(Superseded { incarnation, .. }) => {
                expelled::superseded(Self::unavailable(text), incarnation)
            }
            _ => Self::permission_denied(text),
        }
    }
}

/// What a decision needs to know of this manager.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    /// The cluster that this manager belongs to.
    pub(crate) cluster: &'a ClusterId,
    /// The state as it has been applied here.
    pub(crate) state: &'a State,
    /// By this manager's clock.
    pub(crate) now: Timestamp,
    /// Whether this replica follows a leader that its state knows.
    pub(crate) follows_known_leader: bool,
    /// The later incarnation of the cluster that this manager is not part of.
    pub(crate) superseded: Option<Superseded>,
    /// The incarnation that it is part of.
    pub(crate) incarnation: u64,
}

/// Decides about one call.
pub(crate) fn check(
    path: &str,
    peer: Option<&PeerIdentity>,
    view: View<'_>,
) -> Result<(), Refusal> {
    check_caller(path, peer, view)?;
    match peer {
        // After everything else: one that was removed is to hear that it was.
        Some(peer)
            if peer.not_after < view.now
                && callers(path) != Some(Callers::Anybody)
                && !is_open_to_expired(path, peer, view.state) =>
        {
            Err(Refusal::Expired(peer.node.to_string()))
        }
        _ => Ok(()),
    }
}

/// Whether a node may call this although its certificate has ended: to have another one signed,
/// and, as a manager that the state knows, to elect the leader who signs it. Where all managers were
/// off for months there is no other.
fn is_open_to_expired(path: &str, peer: &PeerIdentity, state: &State) -> bool {
    let is_manager = || {
        let node = state.node(&peer.node);
        node.is_some_and(|node| node.manager.is_some())
    };
    path == RENEW || (path.starts_with(RAFT) && is_manager())
}

fn check_caller(path: &str, peer: Option<&PeerIdentity>, view: View<'_>) -> Result<(), Refusal> {
    let callers = callers(path).ok_or_else(|| Refusal::NoRule(path.to_owned()))?;
    if let Some(superseded) = view.superseded {
        return Err(Refusal::Superseded(superseded));
    }
    if callers == Callers::Anybody {
        return Ok(());
    }
    let peer = peer.ok_or(Refusal::NoCertificate)?;
    if peer.cluster != *view.cluster {
        return Err(Refusal::OtherCluster {
            node: peer.node.to_string(),
            cluster: peer.cluster.to_string(),
        });
    }
    // Before its role: it was one, and its certificate still says so.
    if let Some(node) = view.state.node(&peer.node).filter(|node| node.superseded) {
        return Err(Refusal::SupersededNode {
            node: node.id.to_string(),
            incarnation: view.incarnation,
        });
    }
    let not_manager = || Refusal::NotManager(peer.node.to_string());
    if callers == Callers::Managers && peer.role != Role::Manager {
        return Err(not_manager());
    }
    match view.state.node(&peer.node) {
        // One that is to be a worker has a voice until it was taken out of the voters: without
        // it those that remain might have no majority to do so.
        Some(node) if path.starts_with(RAFT) && node.manager.is_some() => Ok(()),
        Some(node) if callers == Callers::Managers && node.spec.role != Role::Manager => {
            Err(not_manager())
        }
        Some(_) => Ok(()),
        // A replica that was away cannot know the managers that joined meanwhile, and would
        // never learn of them if it refused their messages. So while it follows no leader that
        // it knows, the certificate alone counts for Raft; as soon as it does, a removed
        // manager is refused here, too.
        None if path.starts_with(RAFT) && !view.follows_known_leader => Ok(()),
        None if view.follows_known_leader => Err(Refusal::RemovedNode {
            node: peer.node.to_string(),
            incarnation: view.incarnation,
        }),
        None => Err(Refusal::UnknownNode(peer.node.to_string())),
    }
}

/// What the middleware needs.
#[derive(Clone)]
pub(crate) struct Gate {
    /// This manager's cluster.
    pub(crate) cluster: ClusterId,
    /// For the state and the leader.
    pub(crate) raft: Raft,
}

/// The middleware in front of every service of the cluster port.
pub(crate) async fn guard(
    Injected(gate): Injected<Gate>,
    request: Request,
    next: Next,
) -> Response {
    let state = gate.raft.state();
    let leadership = *gate.raft.watch_leadership().borrow();
    let view = View {
        cluster: &gate.cluster,
        state: &state,
        now: clock::now(),
        follows_known_leader: knows_leader(&state, &leadership),
        incarnation: gate.raft.incarnation(),
        superseded: gate.raft.superseded(),
    };
    let peer = request.extensions().get::<PeerIdentity>();
    if let Err(refusal) = check(request.uri().path(), peer, view) {
        tracing::warn!(path = request.uri().path(), reason = %refusal, "call refused");
        return Status::from(refusal).into_http();
    }
    next.run(request).await
}

fn knows_leader(state: &State, leadership: &Leadership) -> bool {
    let Some(leader) = &leadership.leader else {
        return false;
    };
    state.nodes().any(|node| {
        node.manager
            .as_ref()
            .is_some_and(|manager| manager.raft_id == leader.raft_id)
    })
}

#[cfg(test)]
pub(crate) mod tests;
