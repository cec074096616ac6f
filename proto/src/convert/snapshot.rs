//! The whole state as bytes.

use prost::Message;
use swarmlet_core::model::{Cluster, Node, Service, Task, Version};
use swarmlet_core::state::State;

use super::Malformed;
use super::field::{Result, list, malformed, optional};
use crate::v1;

/// Encodes a state. Equal states give equal bytes: objects are in the order of their
/// identifiers and maps in that of their keys, so that replicas can be compared by a hash.
#[must_use]
pub fn encode_snapshot(state: &State) -> Vec<u8> {
    let snapshot = v1::Snapshot {
        version: state.version().0,
        cluster: state.cluster().map(Into::into),
        nodes: state.nodes().map(Into::into).collect(),
        services: state.services().map(Into::into).collect(),
        tasks: state.tasks().map(Into::into).collect(),
    };
    snapshot.encode_to_vec()
}

/// Reads a state.
///
/// # Errors
/// [`Malformed`] where the bytes are no snapshot, or hold what the model cannot.
pub fn decode_snapshot(bytes: &[u8]) -> Result<State> {
    let snapshot = v1::Snapshot::decode(bytes).map_err(|source| Malformed::Bytes {
        what: "snapshot",
        source,
    })?;
    let cluster = optional::<_, Cluster>("cluster", snapshot.cluster)?;
    let nodes: Vec<Node> = list("nodes", snapshot.nodes)?;
    let services: Vec<Service> = list("services", snapshot.services)?;
    let tasks: Vec<Task> = list("tasks", snapshot.tasks)?;
    sorted("nodes", nodes.iter().map(|node| &node.id))?;
    sorted("services", services.iter().map(|service| &service.id))?;
    sorted("tasks", tasks.iter().map(|task| &task.id))?;
    let version = Version(snapshot.version);
    Ok(State::restore(version, cluster, nodes, services, tasks))
}

/// Two objects of one identifier would be one too few after the restore, unnoticed.
fn sorted<T: Ord>(field: &str, ids: impl Iterator<Item = T>) -> Result<()> {
    if ids.is_sorted_by(|before, after| before < after) {
        return Ok(());
    }
    Err(malformed(field, "identifiers are not in order, or double"))
}
