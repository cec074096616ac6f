//! Ends the connections of nodes that were removed.
//!
//! New calls of such a node are refused by the access rules; a stream that it has opened
//! before must not outlive its place in the cluster either.

use std::collections::BTreeSet;

use tokio_util::sync::CancellationToken;

use swarmlet_core::model::NodeId;
use swarmlet_core::state::State;
use swarmlet_proto::transport::IdentityStore;

use crate::raft::Raft;

/// Watches the state until it is cancelled.
pub(crate) async fn run(identities: IdentityStore, raft: Raft, stop: CancellationToken) {
    let mut states = raft.watch_state();
    let work = async {
        let mut known = nodes(&states.borrow_and_update().clone());
        while states.changed().await.is_ok() {
            let state = states.borrow_and_update().clone();
            if known.iter().eq(state.nodes().map(|node| &node.id)) {
                continue;
            }
            let now = nodes(&state);
            for removed in known.difference(&now) {
                tracing::info!(node = %removed, "node removed, its connections end");
                identities.disconnect(removed);
            }
            known = now;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

fn nodes(state: &State) -> BTreeSet<NodeId> {
    state.nodes().map(|node| node.id.clone()).collect()
}
