//! What the daemon is at the moment, for everybody who only wants to know: the local service,
//! the gate in front of the control service, the health page and the metrics.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use swarmlet_agent::Agent;
use swarmlet_core::model::{ClusterId, NodeId, Role, RuntimeKind};
use swarmlet_manager::Manager;
use swarmlet_proto::transport::IdentityStore;
use tokio::sync::watch;
use tokio::time::timeout;

use super::balancer::Balancer;

/// What the daemon is.
#[derive(Clone)]
pub(crate) enum Phase {
    /// It belongs to no cluster.
    Inactive,
    /// The node on disk is being brought back.
    Starting,
    /// It is a node of a cluster.
    Active(Active),
    /// It has left its cluster and is about to end.
    Ending,
}

/// A node of a cluster.
#[derive(Clone)]
pub(crate) struct Active {
    pub(crate) node: NodeId,
    pub(crate) cluster: ClusterId,
    pub(crate) role: Role,
    pub(crate) address: SocketAddr,
    pub(crate) runtime: RuntimeKind,
    pub(crate) manager: Option<Manager>,
    pub(crate) identities: IdentityStore,
    pub(crate) agent: Arc<Agent>,
    pub(crate) balancer: Balancer,
}

impl Active {
    /// Why the node is none of its swarm's any more, and what to do about it.
    pub(crate) fn expelled(&self) -> Option<String> {
        let superseded = self.manager.as_ref().and_then(|m| m.raft().superseded());
        let told = || self.agent.connected().borrow().expelled.clone();
        superseded
            .map(|superseded| superseded.to_string())
            .or_else(told)
    }
}

impl Phase {
    /// The phase's name in `Info`.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Starting => "starting",
            Self::Active(_) => "active",
            Self::Ending => "ending",
        }
    }

    /// The node, while it is one of a cluster.
    pub(crate) fn active(&self) -> Option<&Active> {
        match self {
            Self::Active(active) => Some(active),
            _ => None,
        }
    }

    /// Resolves once the node's manager cannot go on; never for one without.
    pub(crate) fn failed(&self) -> impl Future<Output = anyhow::Error> + use<> {
        let manager = self.active().and_then(|active| active.manager.clone());
        async move {
            match manager {
                Some(manager) => {
                    anyhow::Error::new(manager.failed().await).context("the manager cannot go on")
                }
                None => pending().await,
            }
        }
    }
}

/// Where the phase is kept. The daemon writes it, everybody else reads.
#[derive(Clone)]
pub(crate) struct Views(watch::Sender<Phase>);

impl Views {
    pub(crate) fn new(phase: Phase) -> Self {
        Self(watch::Sender::new(phase))
    }

    pub(crate) fn show(&self, phase: Phase) {
        self.0.send_replace(phase);
    }

    pub(crate) fn now(&self) -> Phase {
        self.0.borrow().clone()
    }

    /// What the daemon is once its node is no more about to become something else, or what it is
    /// so far.
    pub(crate) async fn settled(&self, within: Duration) -> Phase {
        let mut phases = self.subscribe();
        let settled = phases.wait_for(|phase| !matches!(phase, Phase::Starting));
        // Neither running out of time nor the daemon's end is an error: the phase tells.
        drop(timeout(within, settled).await);
        self.now()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Phase> {
        self.0.subscribe()
    }
}
