//! How a cluster that has lost most of its managers for ever goes on with one that is left.
//!
//! No majority can agree on anything any more, so this is no command of the log: the manager
//! that is left takes the state that it has, and this function says what it becomes. Services,
//! tasks, workers, tokens and certificates stay as they are. The other managers are managers no
//! longer, and superseded: each may have a state that went another way, so that none of them is
//! let in again as it is. The incarnation tells everybody which of two states is the later one.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::model::{ManagerInfo, Node, NodeId, NodeState, Role, Timestamp, Version};
use crate::state::State;

/// By how much the version goes forward. The managers that are lost may have known versions
/// that the one that is left does not, and nobody may take a new state for an older one of
/// theirs: at a hundred changes a second this is as much as they could make in four months.
const VERSIONS: u64 = 1_000_000_000;

/// Who goes on, where and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survivor {
    /// The manager that is left.
    pub node: NodeId,
    /// Where other nodes will reach it.
    pub address: SocketAddr,
    /// Its clock.
    pub now: Timestamp,
}

/// Why a manager cannot go on alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    /// It has never had the cluster's state.
    #[error("this manager has no copy of the cluster's state yet")]
    NoState,
    /// It has the state of a time before it was one.
    #[error("this manager's copy of the cluster's state does not know it as a manager yet")]
    NoManager,
}

/// The state in which the survivor goes on. Of two survivors of the same cluster the later one
/// has the greater incarnation.
///
/// # Errors
/// [`RecoveryError`] where the state is none to go on with.
pub fn go_on_alone(state: &State, survivor: &Survivor) -> Result<State, RecoveryError> {
    let mut cluster = state.cluster().cloned().ok_or(RecoveryError::NoState)?;
    let own = state
        .node(&survivor.node)
        .and_then(|node| node.manager.as_ref())
        .ok_or(RecoveryError::NoManager)?;
    let raft_id = own.raft_id;
    let version = Version(state.version().0 + VERSIONS);
    cluster.incarnation = (cluster.incarnation + 1).max(survivor.now.0);
    cluster.version = version;

    let mut next = state.clone();
    next.version = version;
    next.cluster = Some(Arc::new(cluster));
    for node in state.nodes().filter(|node| node.manager.is_some()) {
        let mut node = node.clone();
        node.version = version;
        if node.id == survivor.node {
            node.manager = Some(ManagerInfo {
                raft_id,
                address: survivor.address,
            });
            // It may have been about to be demoted: nobody would be left.
            node.spec.role = Role::Manager;
        } else {
            leave_behind(&mut node, survivor.now);
        }
        next.nodes.insert(node.id.clone(), Arc::new(node));
    }
    Ok(next)
}

/// What a manager is to the one that goes on without it: a node that is lost, whose tasks are
/// replaced at once.
fn leave_behind(node: &mut Node, now: Timestamp) {
    node.manager = None;
    node.spec.role = Role::Worker;
    node.superseded = true;
    node.problems.clear();
    node.port_problems.clear();
    if node.status.state != NodeState::Down {
        node.status.state = NodeState::Down;
        node.status.since = now;
    }
    node.status.message = "left behind as a manager by `swarmlet init --force-new-cluster`; where \
         it comes back, run `swarmlet leave --force` on it and join it again"
        .to_owned();
}

#[cfg(test)]
mod tests;
