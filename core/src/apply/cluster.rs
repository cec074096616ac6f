//! Commands about the cluster itself.

use std::sync::Arc;

use super::{Change, Outcome, Rejection};
use crate::event::Event;
use crate::model::{Cluster, ClusterSpec, JoinSecret, Node, Role, Version};
use crate::state::State;

pub(super) fn init(state: &mut State, change: Change, cluster: &Cluster, node: &Node) -> Outcome {
    if state.cluster.is_some() {
        return Err(Rejection::ClusterExists);
    }
    let mut cluster = cluster.clone();
    cluster.version = change.index;
    cluster.created_at = change.at;
    if let Some(manager) = &node.manager {
        cluster.next_raft_id = cluster.next_raft_id.max(manager.raft_id.saturating_add(1));
    }
    state.cluster = Some(Arc::new(cluster));
    let mut node = node.clone();
    node.version = change.index;
    node.created_at = change.at;
    node.status.since = change.at;
    let event = Event::Node(node.id.clone());
    state.nodes.insert(node.id.clone(), Arc::new(node));
    Ok(vec![Event::Cluster, event])
}

pub(super) fn update(
    state: &mut State,
    change: Change,
    expected: Version,
    spec: &ClusterSpec,
) -> Outcome {
    let cluster = cluster(state)?;
    if cluster.version != expected {
        return Err(Rejection::OutOfSequence);
    }
    if cluster.spec == *spec {
        return Ok(Vec::new());
    }
    cluster.spec = spec.clone();
    cluster.version = change.index;
    Ok(vec![Event::Cluster])
}

pub(super) fn rotate_secret(
    state: &mut State,
    change: Change,
    role: Role,
    secret: &JoinSecret,
) -> Outcome {
    let cluster = cluster(state)?;
    let place = match role {
        Role::Worker => &mut cluster.worker_secret,
        Role::Manager => &mut cluster.manager_secret,
    };
    if place == secret {
        return Ok(Vec::new());
    }
    *place = secret.clone();
    cluster.version = change.index;
    Ok(vec![Event::Cluster])
}

pub(super) fn raise_schema(state: &mut State, change: Change, schema: u32) -> Outcome {
    let behind = state
        .nodes()
        .find(|node| node.manager.is_some() && node.description.schema < schema)
        .map(|node| format!("manager {} does not know it", node.id));
    let cluster = cluster(state)?;
    if schema == cluster.schema {
        return Ok(Vec::new());
    }
    if schema < cluster.schema {
        let reason = format!("schema {} is in use", cluster.schema);
        return Err(Rejection::Schema { schema, reason });
    }
    if let Some(reason) = behind {
        return Err(Rejection::Schema { schema, reason });
    }
    cluster.schema = schema;
    cluster.version = change.index;
    Ok(vec![Event::Cluster])
}

/// Notes that a manager's number is in use. The number never comes back: a voter that lost its
/// log under an old number could vote twice.
pub(super) fn claim_raft_id(
    state: &mut State,
    change: Change,
    raft_id: u64,
) -> Result<(), Rejection> {
    let cluster = cluster(state)?;
    if raft_id < cluster.next_raft_id {
        return Err(Rejection::RaftIdTaken(raft_id));
    }
    cluster.next_raft_id = raft_id.saturating_add(1);
    cluster.version = change.index;
    Ok(())
}

fn cluster(state: &mut State) -> Result<&mut Cluster, Rejection> {
    let cluster = state.cluster.as_mut().ok_or(Rejection::NoCluster)?;
    Ok(Arc::make_mut(cluster))
}
