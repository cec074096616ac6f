//! The managers as other nodes and the command line see them.

use swarmlet_core::state::State;
use swarmlet_proto::v1;

/// Where each manager takes calls, by node.
pub(crate) fn addresses(state: &State) -> Vec<v1::ManagerAddress> {
    let managers = state.nodes().filter_map(|node| {
        let manager = node.manager.as_ref()?;
        Some(v1::ManagerAddress {
            node_id: node.id.to_string(),
            address: manager.address.to_string(),
        })
    });
    managers.collect()
}
