//! When a task that is to stop may be told so.
//!
//! Not before every ready node works by a table that gives it no new connection, and its
//! connections have come to an end. A node that does not answer cannot hold this up: both
//! conditions have a deadline, and a balancer that still sends connections there finds the
//! port closed and takes another endpoint.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::command::Command;
use crate::model::{
    Draining, NodeId, NodeState, Service, ServiceSpec, Task, TaskId, TaskState, Timestamp, Version,
};
use crate::state::State;

/// The longest wait for balancers to acknowledge: longer than any healthy one takes, short
/// enough that a hung one does not hold up every scale-down.
pub const ACKNOWLEDGE_WITHIN: Duration = Duration::from_secs(2);

/// What balancers said last, by node. It lives in the leader's memory; after a change of
/// leader nodes say it again, and silence counts as nothing acknowledged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acks {
    /// One for each node that has reported.
    pub nodes: BTreeMap<NodeId, NodeAck>,
}

/// What one node's balancer said last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeAck {
    /// Every worker of the balancer works by this version of the table.
    pub version: Version,
    /// Connections still open, by draining task. One that is not named has none.
    pub active: BTreeMap<TaskId, u64>,
}

/// Tells those draining tasks to stop that have been waited for long enough.
#[must_use]
pub fn advance(state: &State, acks: &Acks, now: Timestamp) -> Vec<Command> {
    waiting(state)
        .filter(|&(task, draining)| is_drained(state, acks, now, task, draining))
        .map(|(task, _)| Command::SetDesired {
            id: task.id.clone(),
            desired: TaskState::Shutdown,
        })
        .collect()
}

/// When a drain may end by time alone.
pub(crate) fn deadlines(state: &State) -> impl Iterator<Item = Timestamp> {
    waiting(state).flat_map(|(task, draining)| {
        let timeout = drain_timeout(state.service(&task.service));
        [ACKNOWLEDGE_WITHIN, timeout].map(|wait| draining.since.after(wait))
    })
}

fn waiting(state: &State) -> impl Iterator<Item = (&Task, Draining)> {
    state
        .tasks()
        .filter(|task| task.desired <= TaskState::Running)
        .filter_map(|task| Some((task, task.draining?)))
}

fn is_drained(state: &State, acks: &Acks, now: Timestamp, task: &Task, draining: Draining) -> bool {
    let ready = |node: &NodeId| {
        state
            .node(node)
            .is_some_and(|node| node.status.state == NodeState::Ready)
    };
    // It has ended, or its node is away: no table has it any more, and nobody reports on it.
    if !task.is_live() || !task.node.as_ref().is_some_and(ready) {
        return true;
    }
    let service = state.service(&task.service);
    // The listeners of a removed service left the table at its removal, and no later table
    // differs from that one.
    let version = match service {
        Some(service) if service.removing => service.version.min(draining.version),
        _ => draining.version,
    };
    let acked: Vec<Option<&NodeAck>> = state
        .nodes()
        .filter(|node| node.status.state == NodeState::Ready)
        .map(|node| {
            acks.nodes
                .get(&node.id)
                .filter(|ack| ack.version >= version)
        })
        .collect();
    let waited = now.since(draining.since);
    if acked.iter().any(Option::is_none) && waited < ACKNOWLEDGE_WITHIN {
        return false;
    }
    let idle = acked
        .iter()
        .flatten()
        .all(|ack| ack.active.get(&task.id).is_none_or(|&active| active == 0));
    idle || waited >= drain_timeout(service)
}

fn drain_timeout(service: Option<&Service>) -> Duration {
    service.map_or(ServiceSpec::DEFAULT_DRAIN_TIMEOUT, |service| {
        service.spec.drain_timeout
    })
}

#[cfg(test)]
mod tests;
