//! Who votes: managers come as learners and become voters once they have caught up.
//!
//! Each step is checked before it is taken: after it, the managers that answer now must still
//! be more than half of those that vote.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::error::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::raft::ClientWriteResponse;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::batch::{DEADLINE, from_fatal};
use super::contact::Contacts;
use super::error::{Leader, MembersError, ProposeError};
use super::standing::{self, Metrics, Office, has_quorum, quorum};
use super::types::{Consensus, Peer, TypeConfig};

/// How long a new manager may take to catch up: a snapshot of a large cluster over a slow
/// link, and the start of a process.
const CATCH_UP: Duration = Duration::from_secs(60);
/// Entries by which a learner may lag when it becomes a voter. New ones arrive all the time,
/// so that to wait for none would be to wait for ever.
const LAG: u64 = 64;

/// How often it is looked whether enough of the others have answered: well below a heartbeat.
const CONTACT_POLL: Duration = Duration::from_millis(20);

/// Changes the voters, one change at a time.
pub(crate) struct Members {
    raft: Consensus,
    contacts: Arc<Contacts>,
    one_at_a_time: Mutex<()>,
}

type Written = Result<ClientWriteResponse<TypeConfig>, RaftError<u64, ClientWriteError<u64, Peer>>>;

impl Members {
    pub(crate) fn new(raft: Consensus, contacts: Arc<Contacts>) -> Self {
        Self {
            raft,
            contacts,
            one_at_a_time: Mutex::new(()),
        }
    }

    /// The voters and where they listen.
    pub(crate) fn voters(&self) -> BTreeMap<u64, SocketAddr> {
        voters(&self.raft.metrics().borrow())
    }

    /// Makes a manager a voter; returns once it is one. A voter that is one already is fine.
    pub(crate) async fn add(&self, raft_id: u64, address: SocketAddr) -> Result<(), MembersError> {
        let _guard = self.one_at_a_time.lock().await;
        self.settle().await?;
        let metrics = self.metrics()?;
        let voters = voters(&metrics);
        if voters.get(&raft_id) == Some(&address) {
            return Ok(());
        }
        let taken = |(id, at): &(&u64, &SocketAddr)| **id == raft_id || **at == address;
        if let Some((id, at)) = voters.iter().find(taken) {
            return Err(MembersError::Taken {
                raft_id: *id,
                address: *at,
            });
        }
        // A learner of an attempt that failed may stand at another address.
        let peer = Peer { address };
        let nodes = BTreeMap::from([(raft_id, peer)]);
        self.change(ChangeMembers::SetNodes(nodes)).await?;
        if let Err(error) = self.catch_up(raft_id, address).await {
            // Otherwise the leader would go on trying to reach it for ever.
            let forget = ChangeMembers::RemoveNodes(BTreeSet::from([raft_id]));
            if let Err(error) = self.change(forget).await {
                tracing::warn!(raft_id, %error, "the new manager remains a learner");
            }
            return Err(error);
        }
        let after = voters.keys().copied().chain([raft_id]).collect();
        self.check_quorum(&after).await?;
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([raft_id])))
            .await
    }

    /// Takes a manager out of the voters; one that is none is fine.
    pub(crate) async fn remove(&self, raft_id: u64) -> Result<(), MembersError> {
        let _guard = self.one_at_a_time.lock().await;
        self.settle().await?;
        let metrics = self.metrics()?;
        let id = BTreeSet::from([raft_id]);
        if !voters(&metrics).contains_key(&raft_id) {
            let membership = metrics.membership_config.membership();
            if membership.get_node(&raft_id).is_none() {
                return Ok(());
            }
            return self.change(ChangeMembers::RemoveNodes(id)).await;
        }
        self.may_remove(raft_id).await?;
        self.change(ChangeMembers::RemoveVoters(id)).await
    }

    /// Whether a manager could be taken out of the voters now.
    pub(crate) async fn may_remove(&self, raft_id: u64) -> Result<(), MembersError> {
        let mut after: BTreeSet<u64> = voters(&self.metrics()?).into_keys().collect();
        if !after.remove(&raft_id) {
            return Ok(());
        }
        if after.is_empty() {
            return Err(MembersError::LastVoter(raft_id));
        }
        self.check_quorum(&after).await
    }

    /// Ends a change that another leader began and did not finish.
    async fn settle(&self) -> Result<(), MembersError> {
        let metrics = self.metrics()?;
        let configs = metrics.membership_config.membership().get_joint_config();
        match configs.as_slice() {
            [_, goal] => {
                self.change(ChangeMembers::ReplaceAllVoters(goal.clone()))
                    .await
            }
            _ => Ok(()),
        }
    }

    /// Waits until a learner has what the leader has.
    async fn catch_up(&self, raft_id: u64, address: SocketAddr) -> Result<(), MembersError> {
        let mut metrics = self.raft.metrics();
        let until = Instant::now() + CATCH_UP;
        loop {
            let lag = {
                let now = metrics.borrow_and_update();
                leading(&now, &self.contacts)?;
                lag(&now, raft_id)
            };
            if lag.is_some_and(|lag| lag <= LAG) {
                return Ok(());
            }
            match tokio::time::timeout_at(until, metrics.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(ProposeError::Stopped.into()),
                Err(_) => {
                    return Err(MembersError::NotCaughtUp {
                        raft_id,
                        address,
                        waited_s: CATCH_UP.as_secs(),
                    });
                }
            }
        }
    }

    /// Counts only who answers from now on: one that died a moment ago answered lately, too,
    /// and a change made on its word could not be undone without it.
    async fn check_quorum(&self, after: &BTreeSet<u64>) -> Result<(), MembersError> {
        let asked = std::time::Instant::now();
        let reachable = loop {
            let reachable = self.contacts.since(asked);
            if has_quorum(after, &reachable) {
                return Ok(());
            }
            if asked.elapsed() > self.contacts.patience() {
                break reachable;
            }
            tokio::time::sleep(CONTACT_POLL).await;
        };
        Err(MembersError::LossOfQuorum {
            voters: after.len(),
            needed: quorum(after.len()),
            reachable: after.intersection(&reachable).count(),
        })
    }

    /// What the library says now, provided that this manager leads.
    fn metrics(&self) -> Result<Metrics, MembersError> {
        let metrics = self.raft.metrics().borrow().clone();
        leading(&metrics, &self.contacts)?;
        Ok(metrics)
    }

    async fn change(&self, change: ChangeMembers<u64, Peer>) -> Result<(), MembersError> {
        // Two entries, one after the other, and so twice the time of one.
        let written: Written =
            tokio::time::timeout(2 * DEADLINE, self.raft.change_membership(change, false))
                .await
                .map_err(|_| ProposeError::NoQuorum)?;
        match written {
            Ok(_) => Ok(()),
            Err(RaftError::Fatal(fatal)) => Err(from_fatal(fatal).into()),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                let leader = forward.leader_id.zip(forward.leader_node);
                Err(ProposeError::NotLeader {
                    leader: leader.map(|(raft_id, peer)| Leader {
                        raft_id,
                        address: peer.address,
                    }),
                }
                .into())
            }
            Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(error))) => {
                Err(refused(&error))
            }
        }
    }
}

/// The voters of the newest configuration, and where they listen.
pub(crate) fn voters(metrics: &Metrics) -> BTreeMap<u64, SocketAddr> {
    let membership = metrics.membership_config.membership();
    let newest = membership.get_joint_config().last();
    newest
        .into_iter()
        .flatten()
        .filter_map(|id| Some((*id, membership.get_node(id)?.address)))
        .collect()
}

/// Refuses unless this manager leads and is heard.
fn leading(metrics: &Metrics, contacts: &Contacts) -> Result<(), ProposeError> {
    match standing::office(metrics, contacts) {
        Office::Leader => Ok(()),
        Office::Isolated => Err(ProposeError::NoQuorum),
        Office::Follower => Err(ProposeError::NotLeader {
            leader: standing::leadership(metrics, contacts).leader,
        }),
    }
}

/// By how many entries a learner lags; `None` before it has answered.
fn lag(metrics: &Metrics, raft_id: u64) -> Option<u64> {
    let matched = (*metrics.replication.as_ref()?.get(&raft_id)?)?;
    Some(metrics.last_log_index?.saturating_sub(matched.index))
}

fn refused(error: &ChangeMembershipError<u64>) -> MembersError {
    match error {
        ChangeMembershipError::InProgress(_) => MembersError::InProgress,
        // Neither can come of the changes that are made here.
        ChangeMembershipError::EmptyMembership(_) | ChangeMembershipError::LearnerNotFound(_) => {
            ProposeError::Storage(error.to_string()).into()
        }
    }
}
