//! Which of the other managers are there: asked when somebody wants to go on without them.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft::network::RaftNetworkFactory;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::election::Question;
use super::lineage::Lineage;
use super::network::Network;
use super::standing::{Metrics, has_quorum, quorum};
use super::types::Consensus;

/// How long a manager may take to answer. One that runs does so within milliseconds; a lost
/// packet is sent again after a second.
const DEADLINE: Duration = Duration::from_secs(2);

/// What the other voters answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// How many managers vote, this one included.
    pub voters: usize,
    /// How many of them decide.
    pub needed: usize,
    /// How many are there, this one included.
    pub present: usize,
    /// Whether those that are there are enough to decide.
    pub has_quorum: bool,
    /// Whether one of them is of a later incarnation of the cluster.
    pub superseded: bool,
}

/// Asks all voters at once.
pub(crate) async fn ask(
    network: &Network,
    lineage: &Lineage,
    consensus: &Consensus,
    own: u64,
) -> Survey {
    let membership = {
        let mut metrics = consensus.metrics();
        // Right after the start nothing is known of anybody yet. One that never joined has no
        // voters at all, and is done with waiting for them.
        let voters = metrics.wait_for(|now| voters(now).next().is_some());
        let _ = timeout(DEADLINE, voters).await;
        let metrics = metrics.borrow();
        metrics.membership_config.membership().clone()
    };
    let told = lineage.told();
    let mut asked = JoinSet::new();
    for raft_id in membership.voter_ids().filter(|id| *id != own) {
        let Some(peer) = membership.get_node(&raft_id) else {
            continue;
        };
        let client = network.clone().new_client(raft_id, peer).await;
        asked.spawn(async move {
            let answer = client.would_grant(Question::nothing(), DEADLINE).await;
            answer.is_ok().then_some(raft_id)
        });
    }
    let mut present = BTreeSet::from([own]);
    while let Some(answer) = asked.join_next().await {
        present.extend(answer.ok().flatten());
    }
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    let configs = membership.get_joint_config();
    Survey {
        voters: voters.len(),
        needed: quorum(voters.len()),
        present: voters.intersection(&present).count(),
        has_quorum: configs.iter().all(|config| has_quorum(config, &present)),
        superseded: lineage.told() > told,
    }
}

fn voters(metrics: &Metrics) -> impl Iterator<Item = u64> {
    metrics.membership_config.membership().voter_ids()
}
