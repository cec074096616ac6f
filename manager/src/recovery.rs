//! A manager goes on without the others, which are lost for ever.

use std::net::SocketAddr;
use std::time::Duration;

use swarmlet_core::model::NodeId;
use swarmlet_core::recovery::Survivor;
use tokio::time::timeout;

use crate::clock;
use crate::error::ManagerError;
use crate::manager::{Manager, ManagerConfig};
use crate::raft::{self, RaftError};

/// How long is waited until it is certain whether there is a leader: an election takes two seconds
/// at most, and one that was lost is noticed sooner.
const LEADER_WAIT: Duration = Duration::from_secs(3);

/// Why this manager must not go on alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAlone {
    /// The swarm works.
    #[error(
        "the swarm has a leader (the manager at {0}), so that nothing has to be forced: take managers \
         that are lost out of it with `swarmlet node rm --force NODE`, or `swarmlet node demote NODE`"
    )]
    Leader(SocketAddr),
    /// This is the only manager.
    #[error(
        "this is the only manager of its swarm and leads it, so that nothing has to be forced; where \
         its address has changed, name the new one with --advertise-addr"
    )]
    OnlyManager,
    /// The swarm is about to work.
    #[error(
        "{present} of the {voters} managers are there, and {needed} are enough to elect a leader: wait \
         for it (`swarmlet node ls`), then take managers that are lost out with `swarmlet node rm \
         --force NODE`"
    )]
    Majority {
        /// How many are there.
        present: usize,
        /// How many there are.
        voters: usize,
        /// How many decide.
        needed: usize,
    },
    /// Another manager has done it already.
    #[error("{0}")]
    Superseded(raft::Superseded),
}

impl Manager {
    /// Whether this manager may go on without the others: while it has no leader, and too few of
    /// them answer for one. `moves` is whether it is to have another address, which the only
    /// manager of a cluster may take as well.
    ///
    /// # Errors
    /// [`NotAlone`] says what there is.
    pub async fn may_go_on_alone(&self, moves: bool) -> Result<(), NotAlone> {
        let raft = self.raft();
        let survey = raft.survey().await;
        if let Some(superseded) = raft.superseded() {
            // One that was left behind may go on only where nobody is there who did before.
            return if survey.superseded {
                Err(NotAlone::Superseded(superseded))
            } else {
                Ok(())
            };
        }
        if survey.voters <= 1 {
            return if moves {
                Ok(())
            } else {
                Err(NotAlone::OnlyManager)
            };
        }
        let mut leadership = raft.watch_leadership();
        // Managers that are there elect one; without them, one may have been lost a moment ago.
        let settled = leadership.wait_for(|now| now.leader.is_some() == survey.has_quorum);
        // It stays as it is, then.
        let _ = timeout(LEADER_WAIT, settled).await;
        let leader = raft.watch_leadership().borrow().leader;
        match leader {
            Some(leader) => Err(NotAlone::Leader(leader.address)),
            None if survey.has_quorum => Err(NotAlone::Majority {
                present: survey.present,
                voters: survey.voters,
                needed: survey.needed,
            }),
            None => Ok(()),
        }
    }

    /// Rewrites what a manager that does not run has on disk: at its next start it is the only
    /// voter, at the address of `config`, and the state is the one that it has. Returns the host
    /// names of the managers that were left behind.
    ///
    /// # Errors
    /// [`ManagerError::Raft`], in which case nothing has changed.
    pub async fn go_on_alone(
        config: ManagerConfig,
        raft_id: u64,
        node: NodeId,
    ) -> Result<Vec<String>, ManagerError> {
        let survivor = Survivor {
            node,
            address: config.address,
            now: clock::now(),
        };
        let dir = config.raft(raft_id).dir;
        // In a task of its own, because the store may panic on bytes that it did not write.
        let rewritten =
            tokio::task::spawn_blocking(move || raft::go_on_alone(&dir, raft_id, &survivor)).await;
        let state = match rewritten {
            Ok(rewritten) => rewritten?,
            Err(error) => return Err(RaftError::Failed(error.to_string()).into()),
        };
        let incarnation = state.cluster().map_or(0, |cluster| cluster.incarnation);
        let mut left_behind: Vec<String> = state
            .nodes()
            .filter(|node| node.superseded && node.version == state.version())
            .map(|node| node.description.hostname.clone())
            .collect();
        left_behind.sort_unstable();
        tracing::warn!(
            incarnation,
            ?left_behind,
            "this manager goes on without the others"
        );
        Ok(left_behind)
    }
}
