//! When this manager stands for election: only where a quorum would vote for it.
//!
//! The library's own timer stands whenever the leader has been silent, and raises the term with
//! each attempt. A follower that is cut off does so for as long as the cut lasts, and once it is
//! back its term unseats a leader that everybody else was content with. So that timer is off,
//! and this one asks first, by a call that changes nothing anywhere ("pre-vote", section 9.6 of
//! Ongaro's thesis on Raft):
//!
//! ```text
//! silence ─→ ask every voter ─→ a quorum would grant ─→ the library's election
//!    ↑              ╰─────────→ refused, or nobody answers
//!    ╰───────────── pause, drawn at random ─────╯
//! ```

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use openraft::error::Fatal;
use openraft::network::RaftNetworkFactory;
use openraft::{RaftState, ServerState};
use serde::{Deserialize, Serialize};
use swarmlet_core::random::Random;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::contact::Contacts;
use super::lineage::Lineage;
use super::network::Network;
use super::standing::{self, Metrics, Office, has_quorum};
use super::types::{Consensus, LogId, Peer, Vote};

/// What a manager asks before it stands: would you vote for one who has entries up to here?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Question {
    last_log: Option<LogId>,
}

impl Question {
    /// Of one who only wants to know whether somebody answers.
    pub(crate) fn nothing() -> Self {
        Self { last_log: None }
    }
}

/// What an answer depends on.
#[derive(Debug, Clone, Copy)]
struct Position {
    /// Whether this manager leads and a quorum hears it.
    leads: bool,
    /// The vote that it gave last; a committed one is that of a leader.
    vote: Vote,
    /// How long that vote was not confirmed by the one who got it.
    silence: Duration,
    /// Whether a vote was given or confirmed since this manager started.
    took_part: bool,
    last_log: Option<LogId>,
}

impl Position {
    /// Whether it would vote for whoever asks. A leader that is heard need not be replaced, and
    /// a candidate without entries that may be acknowledged must not lead.
    fn would_grant(&self, question: Question, lease: Duration) -> bool {
        let content = self.leads || (self.vote.is_committed() && self.silence < lease);
        !content && question.last_log >= self.last_log
    }
}

/// Answers the question of other managers.
#[derive(Clone)]
pub(crate) struct Voter {
    consensus: Consensus,
    contacts: Arc<Contacts>,
    /// How long a leader that was heard of counts as leading.
    lease: Duration,
    /// A leader of before the start may be about to be heard of.
    began: Instant,
}

impl Voter {
    pub(crate) fn new(consensus: Consensus, contacts: Arc<Contacts>, lease: Duration) -> Self {
        Self {
            consensus,
            contacts,
            lease,
            began: Instant::now(),
        }
    }

    /// Whether this manager would vote for the one that asks.
    pub(crate) async fn would_grant(&self, question: Question) -> Result<bool, Fatal<u64>> {
        let position = self.position().await?;
        Ok(position.would_grant(question, self.lease))
    }

    /// For how long the leader that this manager follows has not been heard of; `None` where
    /// it follows nobody.
    pub(crate) async fn silence(&self) -> Result<Option<Duration>, Fatal<u64>> {
        let position = self.position().await?;
        Ok(position.vote.is_committed().then_some(position.silence))
    }

    async fn position(&self) -> Result<Position, Fatal<u64>> {
        let read =
            |state: &RaftState<u64, Peer, Instant>| (*state.vote_ref(), state.vote_last_modified());
        let (vote, confirmed) = self.consensus.with_raft_state(read).await?;
        let confirmed = confirmed.map_or(self.began, |at| at.max(self.began));
        let office = standing::office(&self.consensus.metrics().borrow(), &self.contacts);
        Ok(Position {
            leads: office == Office::Leader,
            vote,
            silence: confirmed.elapsed(),
            took_part: confirmed > self.began,
            last_log: self.consensus.data_metrics().borrow().last_log,
        })
    }
}

/// Stands for election when that is due.
pub(crate) struct Election {
    pub(crate) raft_id: u64,
    pub(crate) voter: Voter,
    pub(crate) network: Network,
    pub(crate) lineage: Arc<Lineage>,
    /// Bounds of the pause that is drawn at random, so that two managers seldom stand at once.
    pub(crate) pause: Range<Duration>,
}

impl Election {
    /// Works until `stop`, or until the library has ended.
    pub(crate) async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            fatal = self.watch() => {
                tracing::debug!(?fatal, "no more elections");
            }
        }
    }

    async fn watch(&self) -> Fatal<u64> {
        // Without random bytes the number of the manager still tells it from the others.
        let mut random = Random::new(crate::random::seed().unwrap_or(self.raft_id));
        let mut not_before = Instant::now();
        loop {
            let pause = self.draw(&mut random);
            let round = async {
                sleep_until(self.due(pause).await?.max(not_before)).await;
                // The leader may have been heard of while this slept.
                if self.due(pause).await? <= Instant::now() {
                    self.try_to_stand().await?;
                    return Ok(Instant::now() + pause);
                }
                Ok(not_before)
            };
            match round.await {
                Ok(at) => not_before = at,
                Err(fatal) => return fatal,
            }
        }
    }

    fn draw(&self, random: &mut Random) -> Duration {
        let span = self.pause.end.saturating_sub(self.pause.start).as_millis();
        let more = random.below(u64::try_from(span).unwrap_or(u64::MAX));
        self.pause.start + Duration::from_millis(more)
    }

    /// When this manager has to look again: for one that follows, the moment at which the
    /// leader has been silent for too long.
    async fn due(&self, pause: Duration) -> Result<Instant, Fatal<u64>> {
        let (state, voters) = {
            let metrics = self.voter.consensus.metrics();
            let metrics = metrics.borrow();
            (metrics.state, voters(&metrics))
        };
        if state == ServerState::Leader || !voters.contains(&self.raft_id) {
            return Ok(Instant::now() + self.voter.lease);
        }
        if voters.len() == 1 {
            return Ok(Instant::now());
        }
        let position = self.voter.position().await?;
        let patience = if position.vote.is_committed() {
            self.voter.lease + pause
        } else {
            pause
        };
        Ok(Instant::now() + patience.saturating_sub(position.silence))
    }

    async fn try_to_stand(&self) -> Result<(), Fatal<u64>> {
        let before = self.voter.position().await?;
        let question = Question {
            last_log: before.last_log,
        };
        // One that comes back may have been left behind meanwhile, together with a majority of
        // managers that do not know it either: it hears everybody before its first election.
        let hears_all = !before.took_part;
        if !self.quorum_would_grant(question, hears_all).await {
            tracing::debug!("too few managers would vote for this one");
            return Ok(());
        }
        if self.lineage.superseded().is_some() {
            return Ok(());
        }
        // Who was heard of meanwhile is not to be disturbed.
        if self.voter.position().await?.vote != before.vote {
            return Ok(());
        }
        tracing::info!("the leader is silent, and a quorum would vote for this manager");
        self.voter.consensus.trigger().elect().await
    }

    /// Asks all voters at once; done as soon as there are enough, or once all have been heard or
    /// had their time.
    async fn quorum_would_grant(&self, question: Question, hears_all: bool) -> bool {
        let membership = {
            let metrics = self.voter.consensus.metrics();
            let metrics = metrics.borrow();
            metrics.membership_config.membership().clone()
        };
        let enough = |granted: &BTreeSet<u64>| {
            let configs = membership.get_joint_config();
            configs.iter().all(|voters| has_quorum(voters, granted))
        };
        let deadline = 2 * self.voter.lease;
        let mut asked = JoinSet::new();
        for raft_id in membership.voter_ids().filter(|id| *id != self.raft_id) {
            let Some(peer) = membership.get_node(&raft_id) else {
                continue;
            };
            let client = self.network.clone().new_client(raft_id, peer).await;
            asked.spawn(async move {
                let answer = client.would_grant(question, deadline).await;
                matches!(answer, Ok(true)).then_some(raft_id)
            });
        }
        let mut granted = BTreeSet::from([self.raft_id]);
        while hears_all || !enough(&granted) {
            match asked.join_next().await {
                Some(answer) => granted.extend(answer.ok().flatten()),
                None => break,
            }
        }
        enough(&granted)
    }
}

/// Everybody who votes, in both configurations while they change.
fn voters(metrics: &Metrics) -> BTreeSet<u64> {
    let membership = metrics.membership_config.membership();
    membership.voter_ids().collect()
}

#[cfg(test)]
mod tests {
    use openraft::CommittedLeaderId;

    use super::*;

    const LEASE: Duration = Duration::from_millis(400);

    fn log(term: u64, index: u64) -> Option<LogId> {
        Some(LogId::new(CommittedLeaderId::new(term, 1), index))
    }

    /// A follower that has heard of its leader just now, and has entries up to 2-9.
    fn follower() -> Position {
        Position {
            leads: false,
            vote: Vote::new_committed(2, 1),
            silence: Duration::ZERO,
            took_part: true,
            last_log: log(2, 9),
        }
    }

    #[track_caller]
    fn check(position: Position, asked: Option<LogId>, expected: bool) {
        let question = Question { last_log: asked };
        let answer = position.would_grant(question, LEASE);
        assert_eq!(answer, expected, "{position:?} asked with {asked:?}");
    }

    #[test]
    fn who_hears_of_a_leader_votes_for_nobody_else() {
        check(follower(), log(2, 9), false);
        check(follower(), log(3, 20), false);
        let silent = Position {
            silence: LEASE,
            ..follower()
        };
        check(silent, log(2, 9), true);
        let candidate = Position {
            vote: Vote::new(3, 2),
            ..follower()
        };
        check(candidate, log(2, 9), true);
    }

    #[test]
    fn a_leader_that_is_heard_votes_for_nobody_else() {
        let leader = Position {
            leads: true,
            silence: Duration::from_secs(60),
            ..follower()
        };
        check(leader, log(2, 9), false);
        let isolated = Position {
            leads: false,
            ..leader
        };
        check(isolated, log(2, 9), true);
    }

    #[test]
    fn who_lacks_entries_is_not_voted_for() {
        let silent = Position {
            silence: LEASE,
            ..follower()
        };
        for (asked, expected) in [
            (None, false),
            (log(2, 8), false),
            (log(1, 30), false),
            (log(2, 10), true),
            (log(3, 1), true),
        ] {
            check(silent, asked, expected);
        }
    }
}
