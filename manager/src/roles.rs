//! Takes managers that are to be workers out of the voters.
//!
//! ```text
//! role: worker ──► no voter any more ──► no manager in the state ──► a worker's certificate
//!   (user)            (the leader)            (the leader)             (its node asks)
//! ```
//!
//! The way to a manager goes through the node itself, which asks for a place
//! ([`ca`](crate::ca)), opens its log, and asks to vote.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use swarmlet_core::command::Command;
use swarmlet_core::model::{ManagerInfo, NodeId, Role};
use swarmlet_core::state::State;

use crate::propose;
use crate::raft::Raft;

/// Pause after an attempt that failed: too few of the others answer, or an election.
const RETRY: Duration = Duration::from_secs(1);

/// Watches the state until it is cancelled, and acts while this manager leads.
pub(crate) async fn run(raft: Raft, stop: CancellationToken) {
    let work = async {
        let mut states = raft.watch_state();
        let mut leadership = raft.watch_leadership();
        loop {
            let state = states.borrow_and_update().clone();
            let leads = leadership.borrow_and_update().is_self;
            match demoted(&state).filter(|_| leads) {
                Some((node, manager)) => {
                    if !withdraw(&raft, node, manager).await {
                        sleep(RETRY).await;
                    }
                }
                None => tokio::select! {
                    changed = states.changed() => if changed.is_err() { return },
                    changed = leadership.changed() => if changed.is_err() { return },
                },
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

/// A manager that is to be a worker.
fn demoted(state: &State) -> Option<(&NodeId, &ManagerInfo)> {
    state.nodes().find_map(|node| {
        let manager = node.manager.as_ref()?;
        (node.spec.role == Role::Worker).then_some((&node.id, manager))
    })
}

/// Returns whether it has come to an end. A leader that removes itself stops leading on the
/// way; the next one finds it gone and writes the rest.
async fn withdraw(raft: &Raft, node: &NodeId, manager: &ManagerInfo) -> bool {
    if let Err(error) = raft.remove_voter(manager.raft_id).await {
        tracing::warn!(%node, %error, "a demoted manager cannot leave the voters yet");
        return false;
    }
    let command = Command::SetManager {
        id: node.clone(),
        manager: None,
    };
    match propose::one(raft, command).await {
        Ok(_) => {
            tracing::info!(%node, raft_id = manager.raft_id, "demoted to a worker");
            true
        }
        Err(refused) => {
            tracing::debug!(%node, reason = %tonic::Status::from(refused).message(), "the demotion is finished later");
            false
        }
    }
}
