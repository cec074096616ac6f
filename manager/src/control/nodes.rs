//! The rules about nodes.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tonic::Status;

use swarmlet_core::apply::Rejection;
use swarmlet_core::model::{Node, NodeState, Role};
use swarmlet_core::state::State;
use swarmlet_proto::v1;

use crate::raft::Raft;
use crate::status;

/// Whether the user insists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Removal {
    /// Without `--force`.
    Asked,
    /// With `--force`.
    Forced,
}

/// All nodes, and what only the leader knows of its fellow managers.
pub(super) fn list(state: &State, raft: &Raft) -> v1::ListNodesResponse {
    let leader = raft
        .watch_leadership()
        .borrow()
        .leader
        .map(|leader| leader.raft_id);
    let reachable = raft.reachable();
    let voters = raft.voters();
    let view = |node: &Node| {
        let manager_status = match &node.manager {
            None => "",
            Some(manager) if Some(manager.raft_id) == leader => "leader",
            Some(manager) if !voters.contains_key(&manager.raft_id) => "joining",
            Some(manager) if reachable.contains(&manager.raft_id) => "reachable",
            Some(_) => "unreachable",
        };
        v1::NodeView {
            node: Some(node.into()),
            manager_status: manager_status.to_owned(),
        }
    };
    v1::ListNodesResponse {
        version: state.version().0,
        nodes: state.nodes().map(view).collect(),
    }
}

/// Whether a node may change its role.
///
/// # Errors
/// Docker's words where nobody would be left to decide.
pub(super) async fn may_become(
    state: &State,
    node: &Node,
    wanted: Role,
    raft: &Raft,
) -> Result<(), Status> {
    if node.superseded && wanted == Role::Manager {
        return Err(Status::failed_precondition(format!(
            "node {} was left behind as a manager (`swarmlet init --force-new-cluster`) and cannot \
             be one again: run `swarmlet leave --force` on it, then `swarmlet join`",
            node.id
        )));
    }
    if wanted == Role::Manager || node.spec.role == wanted {
        return Ok(());
    }
    // Said before anything about voters is: that one cannot spare itself is true, and less clear.
    if !state.has_other_manager(&node.id) {
        return Err(status::of_rejection(&Rejection::LastManager));
    }
    let Some(manager) = &node.manager else {
        return Ok(());
    };
    let may = raft.may_remove_voter(manager.raft_id).await;
    may.map_err(|error| {
        let status = status::of_members(&error);
        let text = format!("node {} cannot be demoted: {}", node.id, status.message());
        Status::new(status.code(), text)
    })
}

/// Refuses to remove a node that is still there.
pub(super) fn may_remove(
    node: &Node,
    voters: &BTreeMap<u64, SocketAddr>,
    how: Removal,
) -> Result<(), Status> {
    if how == Removal::Forced {
        return Ok(());
    }
    let votes = node
        .manager
        .as_ref()
        .is_some_and(|manager| voters.contains_key(&manager.raft_id));
    if votes {
        return Err(Status::failed_precondition(format!(
            "node {} is a cluster manager and is a member of the raft cluster. It must be demoted \
             to worker before removal",
            node.id
        )));
    }
    if node.status.state != NodeState::Down {
        return Err(Status::failed_precondition(format!(
            "node {} is not down and can't be removed",
            node.id
        )));
    }
    Ok(())
}

/// Takes a manager out of the voters, where it is one of them.
pub(super) async fn withdraw(node: &Node, raft: &Raft) -> Result<(), Status> {
    let Some(manager) = &node.manager else {
        return Ok(());
    };
    let leadership = *raft.watch_leadership().borrow();
    let leads = leadership
        .leader
        .is_some_and(|leader| leader.raft_id == manager.raft_id);
    if leads {
        return Err(Status::failed_precondition(format!(
            "node {} leads the cluster and cannot be removed: run `swarmlet leave` on it",
            node.id
        )));
    }
    let removed = raft.remove_voter(manager.raft_id).await;
    removed.map_err(|error| status::of_members(&error))
}

/// The addresses of all managers, the leader's first.
pub(super) fn leader_first(managers: Vec<v1::ManagerAddress>, raft: &Raft) -> Vec<String> {
    let leader = raft.watch_leadership().borrow().leader;
    let leader = leader.map(|leader| leader.address.to_string());
    let mut addresses: Vec<String> = managers.into_iter().map(|m| m.address).collect();
    addresses.sort_by_key(|address| Some(address) != leader.as_ref());
    addresses
}
