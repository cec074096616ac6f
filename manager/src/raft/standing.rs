//! Who leads, as this manager sees it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::{RaftMetrics, ServerState};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::contact::Contacts;
use super::election::Voter;
use super::error::Leader;
use super::types::{Consensus, Peer};

/// Who leads in which term.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Leadership {
    /// Raft's term.
    pub term: u64,
    /// The leader, where one is known. A leader that can no longer reach a quorum does not
    /// know one, not even itself.
    pub leader: Option<Leader>,
    /// Whether it is this manager.
    pub is_self: bool,
}

/// What the library says at one moment.
pub(crate) type Metrics = RaftMetrics<u64, Peer>;

/// Whether this manager holds the office, and whether it can still act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Office {
    /// It follows, or nobody leads.
    Follower,
    /// It leads.
    Leader,
    /// It was elected and nobody else, as far as it knows, but too few managers answer it.
    Isolated,
}

/// This manager's office.
pub(crate) fn office(metrics: &Metrics, contacts: &Contacts) -> Office {
    if metrics.state != ServerState::Leader {
        return Office::Follower;
    }
    let reachable = contacts.reachable();
    let configs = metrics
        .membership_config
        .membership()
        .get_joint_config()
        .iter();
    // While voters change, each of the two sets has to agree.
    if configs.clone().all(|voters| has_quorum(voters, &reachable)) {
        Office::Leader
    } else {
        Office::Isolated
    }
}

/// Whether more than half of the voters are among the reachable.
pub(crate) fn has_quorum(voters: &BTreeSet<u64>, reachable: &BTreeSet<u64>) -> bool {
    voters.intersection(reachable).count() >= quorum(voters.len())
}

/// How many of so many voters decide.
pub(crate) fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

/// Who leads, with the address that the membership has for it.
pub(crate) fn leadership(metrics: &Metrics, contacts: &Contacts) -> Leadership {
    let is_self = match office(metrics, contacts) {
        Office::Leader => true,
        Office::Follower => false,
        Office::Isolated => {
            return Leadership {
                term: metrics.current_term,
                ..Leadership::default()
            };
        }
    };
    let leader = metrics
        .current_leader
        .and_then(|raft_id| find(metrics, raft_id));
    Leadership {
        term: metrics.current_term,
        leader,
        is_self,
    }
}

fn find(metrics: &Metrics, raft_id: u64) -> Option<Leader> {
    let peer = metrics.membership_config.membership().get_node(&raft_id)?;
    Some(Leader {
        raft_id,
        address: peer.address,
    })
}

/// What [`follow`] needs to know who leads.
pub(crate) struct Follow {
    pub(crate) raft: Consensus,
    pub(crate) contacts: Arc<Contacts>,
    pub(crate) voter: Voter,
    /// How often the leader is heard of.
    pub(crate) heartbeat: Duration,
    /// After so much silence a leader is none that this manager knows.
    pub(crate) patience: Duration,
}

/// Keeps `leadership` up to date until `stop`.
///
/// The library tells of elections; that the others have fallen silent shows in nothing but
/// the passing of time, so the clock is asked as well. That goes for a follower, too: as it
/// stands for election only where it can win, its term may stay that of a leader that it does
/// not hear any more.
pub(crate) async fn follow(
    this: Follow,
    leadership_out: watch::Sender<Leadership>,
    stop: CancellationToken,
) {
    let mut metrics = this.raft.metrics();
    let mut clock = tokio::time::interval(this.heartbeat);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = metrics.changed() => if changed.is_err() {
                return;
            },
            _ = clock.tick() => {}
        }
        let Ok(silence) = this.voter.silence().await else {
            // It takes no part any more, and knows no leader.
            leadership_out.send_modify(|leadership| {
                leadership.leader = None;
                leadership.is_self = false;
            });
            return;
        };
        let mut now = leadership(&metrics.borrow_and_update(), &this.contacts);
        if !now.is_self && silence.is_none_or(|silence| silence > this.patience) {
            now.leader = None;
        }
        leadership_out.send_if_modified(|before| {
            let changed = *before != now;
            if changed {
                tracing::info!(term = now.term, leader = ?now.leader, is_self = now.is_self, "leadership");
            }
            *before = now;
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_half_decide() {
        let set = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<_>>();
        for (voters, reachable, expected) in [
            (set(&[1]), set(&[1]), true),
            (set(&[1, 2]), set(&[1]), false),
            (set(&[1, 2, 3]), set(&[1, 3]), true),
            (set(&[1, 2, 3]), set(&[1, 7, 8]), false),
            (set(&[1, 2, 3, 4]), set(&[1, 2]), false),
            (set(&[1, 2, 3, 4, 5]), set(&[2, 3, 5]), true),
        ] {
            assert_eq!(
                has_quorum(&voters, &reachable),
                expected,
                "{voters:?} {reachable:?}"
            );
        }
    }
}
