//! Commands about nodes.

use std::sync::Arc;

use super::cluster::claim_raft_id;
use super::{Change, Outcome, Rejection, task};
use crate::event::Event;
use crate::model::{
    ManagerInfo, Node, NodeDescription, NodeId, NodeSpec, NodeState, PortProblem, Problem, Role,
    TaskId, Version,
};
use crate::state::State;

pub(super) fn add(state: &mut State, change: Change, node: &Node) -> Outcome {
    if state.nodes.contains_key(&node.id) {
        return Err(Rejection::NodeExists(node.id.clone()));
    }
    let mut events = vec![Event::Node(node.id.clone())];
    if let Some(manager) = &node.manager {
        may_manage(state, node)?;
        claim_raft_id(state, change, manager.raft_id)?;
        events.push(Event::Cluster);
    }
    let mut node = node.clone();
    node.version = change.index;
    node.created_at = change.at;
    node.status.since = change.at;
    state.nodes.insert(node.id.clone(), Arc::new(node));
    Ok(events)
}

pub(super) fn update(
    state: &mut State,
    change: Change,
    id: &NodeId,
    expected: Version,
    spec: &NodeSpec,
) -> Outcome {
    let node = find(state, id)?;
    if node.version != expected {
        return Err(Rejection::OutOfSequence);
    }
    let demoted = node.spec.role == Role::Manager && spec.role == Role::Worker;
    if demoted && !state.has_other_manager(id) {
        return Err(Rejection::LastManager);
    }
    if node.spec.role == Role::Worker && spec.role == Role::Manager {
        may_manage(state, node)?;
    }
    edit(state, change, id, |node| node.spec = spec.clone())
}

pub(super) fn describe(
    state: &mut State,
    change: Change,
    id: &NodeId,
    description: &NodeDescription,
) -> Outcome {
    edit(state, change, id, |node| {
        node.description = description.clone();
    })
}

pub(super) fn report(
    state: &mut State,
    change: Change,
    id: &NodeId,
    reported: NodeState,
    message: &str,
) -> Outcome {
    edit(state, change, id, |node| {
        if node.status.state != reported {
            node.status.state = reported;
            node.status.since = change.at;
        }
        message.clone_into(&mut node.status.message);
    })
}

pub(super) fn report_ports(
    state: &mut State,
    change: Change,
    id: &NodeId,
    problems: &[PortProblem],
) -> Outcome {
    edit(state, change, id, |node| {
        node.port_problems = problems.to_vec();
    })
}

pub(super) fn report_problems(
    state: &mut State,
    change: Change,
    id: &NodeId,
    problems: &[Problem],
) -> Outcome {
    edit(state, change, id, |node| {
        node.problems = problems.to_vec();
    })
}

pub(super) fn set_manager(
    state: &mut State,
    change: Change,
    id: &NodeId,
    manager: Option<&ManagerInfo>,
) -> Outcome {
    let node = find(state, id)?;
    let current = node.manager.as_ref().map(|info| info.raft_id);
    let claimed = manager
        .map(|info| info.raft_id)
        .filter(|&raft_id| current != Some(raft_id));
    let mut events = Vec::new();
    if let Some(raft_id) = claimed {
        may_manage(state, node)?;
        claim_raft_id(state, change, raft_id)?;
        events.push(Event::Cluster);
    }
    events.extend(edit(state, change, id, |node| {
        node.manager = manager.cloned();
    })?);
    Ok(events)
}

/// Whether a node's program knows the schema that is in use: a manager that does not would have
/// to stop at once.
fn may_manage(state: &State, node: &Node) -> Result<(), Rejection> {
    let in_use = state.cluster().map_or(0, |cluster| cluster.schema);
    if node.description.schema < in_use {
        return Err(Rejection::OldManager {
            hostname: node.description.hostname.clone(),
            known: node.description.schema,
            in_use,
        });
    }
    Ok(())
}

pub(super) fn remove(state: &mut State, change: Change, id: &NodeId) -> Outcome {
    find(state, id)?;
    let live: Vec<TaskId> = state
        .tasks_on(id)
        .filter(|task| task.is_live())
        .map(|task| task.id.clone())
        .collect();
    let mut events = vec![Event::Node(id.clone())];
    for task_id in live {
        events.extend(task::orphan(state, change, &task_id));
    }
    state.nodes.remove(id);
    Ok(events)
}

fn find<'a>(state: &'a State, id: &NodeId) -> Result<&'a Node, Rejection> {
    state
        .node(id)
        .ok_or_else(|| Rejection::NodeNotFound(id.clone()))
}

/// Changes a node; without a difference nothing happens.
fn edit(state: &mut State, change: Change, id: &NodeId, edit: impl FnOnce(&mut Node)) -> Outcome {
    let before = find(state, id)?;
    let mut node = before.clone();
    edit(&mut node);
    if node == *before {
        return Ok(Vec::new());
    }
    node.version = change.index;
    state.nodes.insert(id.clone(), Arc::new(node));
    Ok(vec![Event::Node(id.clone())])
}
