//! What the leader knows by ear alone: heartbeats and balancers' acknowledgements.
//!
//! None of it is in the log; it changes too often, and a new leader may do without: clocks
//! start anew, acknowledgements are sent again, and silence counts as none.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use swarmlet_core::diagnosis::Heard;
use swarmlet_core::drain::{Acks, NodeAck};
use swarmlet_core::model::{NodeId, Version};
use swarmlet_core::{liveness, state::State};

use crate::news::{NodeNews, Seen, TableNews};

/// A heartbeat after a longer pause than this may change a decision, and wakes the loop at
/// once; of the others it hears at its next round. Heartbeats come about every second.
const PAUSE: Duration = Duration::from_secs(2);

/// Heartbeats by which a clock is judged. They come every second, and a clock that was set
/// is told within 5 s.
const CLOCK_HEARTBEATS: usize = 3;

/// The leader's memory; shared by the loop, which reads, and the intake, which writes.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// Since when this manager leads.
    since: Option<Instant>,
    heartbeats: BTreeMap<NodeId, Instant>,
    /// Nodes that have left the swarm, and were not heard since.
    left: BTreeSet<NodeId>,
    tables: BTreeMap<NodeId, TableNews>,
    observations: BTreeMap<NodeId, Seen>,
    clocks: BTreeMap<NodeId, Clock>,
}

/// By how much a node's clock was ahead, at its last few heartbeats. A message's way makes a
/// clock look behind, never ahead, so the largest of them is nearest to the truth.
#[derive(Debug, Default)]
struct Clock(VecDeque<i64>);

impl Clock {
    fn note(&mut self, ahead_ms: i64) {
        self.0.push_back(ahead_ms);
        if self.0.len() > CLOCK_HEARTBEATS {
            self.0.pop_front();
        }
    }

    fn ahead_ms(&self) -> Option<i64> {
        self.0.iter().max().copied()
    }
}

impl Memory {
    /// Starts all clocks anew: this manager leads from now on. Heartbeats from before do not
    /// count, because none could arrive while nobody led; what balancers have acknowledged
    /// stays true. A node that has left may have come back under another leader.
    pub(crate) fn begin(&self, now: Instant) {
        let mut inner = self.lock();
        inner.since = Some(now);
        inner.left.clear();
        // What was seen in an earlier leadership may be long over; sessions tell it again.
        inner.observations.clear();
        inner.clocks.clear();
    }

    /// Takes in what nodes reported.
    pub(crate) fn take<'a>(
        &self,
        batch: impl Iterator<Item = (&'a NodeId, &'a NodeNews)>,
        now: Instant,
    ) {
        let mut wake = false;
        {
            let mut inner = self.lock();
            for (node, news) in batch {
                let before = inner.heartbeats.insert(node.clone(), now);
                wake |= before.is_none_or(|last| now.saturating_duration_since(last) > PAUSE);
                wake |= if news.leaving {
                    inner.left.insert(node.clone())
                } else {
                    inner.left.remove(node)
                };
                if let Some(seen) = &news.observation {
                    inner.observations.insert(node.clone(), seen.clone());
                    wake = true;
                }
                if let Some(ahead) = news.clock_ahead_ms {
                    inner.clocks.entry(node.clone()).or_default().note(ahead);
                }
                if let Some(table) = &news.table {
                    let before = inner.tables.insert(node.clone(), table.clone());
                    wake |= before.as_ref() != Some(table);
                }
            }
        }
        if wake {
            self.changed.notify_one();
        }
    }

    /// Waits until something came that may change a decision.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// How long ago each node was heard, as [`liveness::judge`] wants it; forgets nodes that
    /// are not in the state.
    pub(crate) fn ages(&self, state: &State, now: Instant) -> BTreeMap<NodeId, Duration> {
        let mut inner = self.lock();
        inner
            .heartbeats
            .retain(|node, _| state.node(node).is_some());
        inner.left.retain(|node| state.node(node).is_some());
        inner.tables.retain(|node, _| state.node(node).is_some());
        let since = inner.since.unwrap_or(now);
        let heartbeats = inner.heartbeats.iter().filter(|(_, last)| **last >= since);
        let mut heard: BTreeMap<_, _> = heartbeats
            .map(|(node, last)| (node.clone(), now.saturating_duration_since(*last)))
            .collect();
        heard.extend(inner.left.iter().map(|node| (node.clone(), liveness::LEFT)));
        liveness::ages(state, &heard, now.saturating_duration_since(since))
    }

    /// What nodes see, as [`swarmlet_core::diagnosis::judge`] wants it; `ages` are those of [`Self::ages`].
    pub(crate) fn heard(
        &self,
        state: &State,
        ages: BTreeMap<NodeId, Duration>,
        now: Instant,
    ) -> Heard {
        let mut inner = self.lock();
        inner
            .observations
            .retain(|node, _| state.node(node).is_some());
        inner.clocks.retain(|node, _| state.node(node).is_some());
        let observations = inner.observations.iter();
        let clocks = inner.clocks.iter();
        Heard {
            observations: observations
                .map(|(node, seen)| (node.clone(), seen.by(now)))
                .collect(),
            clocks: clocks
                .filter_map(|(node, clock)| Some((node.clone(), clock.ahead_ms()?)))
                .collect(),
            ages,
        }
    }

    /// How far the balancers have come.
    pub(crate) fn acks(&self) -> Acks {
        let inner = self.lock();
        let nodes = inner.tables.iter().map(|(node, table)| {
            let ack = NodeAck {
                version: Version(table.version),
                active: table.draining.clone(),
            };
            (node.clone(), ack)
        });
        Acks {
            nodes: nodes.collect(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use swarmlet_core::model::Role;

    use super::*;
    use crate::access::tests::node;

    #[test]
    fn a_farewell_counts_for_one_leadership() {
        let memory = Memory::default();
        let node = node(1, Role::Worker);
        let id = node.id.clone();
        let state = State::restore(Version(1), None, vec![node], Vec::new(), Vec::new());
        let begun = Instant::now();
        memory.begin(begun);
        let leaves = NodeNews {
            leaving: true,
            ..NodeNews::default()
        };
        memory.take([(&id, &leaves)].into_iter(), begun);
        let ages = memory.ages(&state, begun);
        assert_eq!(ages.get(&id), Some(&liveness::LEFT));

        // Another one has led meanwhile.
        let again = begun + Duration::from_secs(60);
        memory.begin(again);
        assert_eq!(memory.ages(&state, again), BTreeMap::new());
    }
}
