//! Which nodes are there.
//!
//! ```text
//! ready ──silent for node_unknown_after──▶ unknown ──for node_replace_delay more──▶ down
//!   ◀────────────────────────── a heartbeat ──────────────────────────────────────┘
//! any state ──it says that it leaves the swarm──▶ down, at once
//! ```
//!
//! A node that has joined is `unknown` until its first heartbeat, and goes down when it has been
//! there without one for as long as another may be silent.
//!
//! `unknown` takes a node's endpoints out of every balancer and costs nothing if it was a
//! mistake; `down` has its tasks replaced, so it comes later and, when much of the cluster
//! falls silent at once, slowly: then it is more likely that the leader was cut off, and
//! starting everything again on the few nodes left would bring those down, too.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::command::Command;
use crate::model::{ClusterSpec, Node, NodeId, NodeState, Timestamp};
use crate::state::State;

/// While replacement is paced, this is the time that one step of it covers. Two nodes of
/// three are replaced within ten seconds still, and an operator has time to look at a
/// hundred.
const PACE: Duration = Duration::from_secs(5);

/// While replacement is paced, one node in this many (and at least one) goes down in each step.
const PACED_SHARE: usize = 20;

/// Silence that this long ago turned a node down is no longer the same incident.
const INCIDENT: Duration = Duration::from_secs(60);

/// The age of a node that has said that it leaves the swarm: nobody needs to wait whether it is
/// heard again. More than a century, and so little that ages may be added up.
pub const LEFT: Duration = Duration::from_secs(u32::MAX as u64);

/// The ages to judge by: those of the nodes heard by this leader, and for all others the time
/// since it became the leader, once that is long enough for them to have been heard.
///
/// Clocks start anew with a leader. A node that it has not heard in its first seconds has no
/// age, and is not judged at all, so that a change of leader marks no node down.
#[must_use]
pub fn ages(
    state: &State,
    heard: &BTreeMap<NodeId, Duration>,
    leader_for: Duration,
) -> BTreeMap<NodeId, Duration> {
    let grace = spec(state).node_unknown_after;
    state
        .nodes()
        .filter_map(|node| {
            let age = heard.get(&node.id).copied();
            let age = age.or_else(|| (leader_for >= grace).then_some(leader_for))?;
            Some((node.id.clone(), age))
        })
        .collect()
}

/// Decides which nodes are ready, unknown and down. `heartbeats` has the age of each node's
/// last heartbeat; a node that is not in it is left as it is (see [`ages`]).
#[must_use]
pub fn judge(
    state: &State,
    heartbeats: &BTreeMap<NodeId, Duration>,
    now: Timestamp,
) -> Vec<Command> {
    let spec = spec(state);
    let mut allowed = allowance(state, heartbeats, &spec, now);
    let mut commands = Vec::new();
    for node in state.nodes() {
        let Some(&age) = heartbeats.get(&node.id) else {
            continue;
        };
        let verdict = verdict(node, age, &spec, now);
        if verdict == node.status.state {
            continue;
        }
        if verdict == NodeState::Down && age != LEFT {
            if allowed == 0 {
                continue;
            }
            allowed -= 1;
        }
        commands.push(Command::ReportNode {
            id: node.id.clone(),
            state: verdict,
            message: match verdict {
                NodeState::Ready => String::new(),
                _ if age == LEFT => "it has left the swarm".to_owned(),
                NodeState::Unknown | NodeState::Down => {
                    let silent = silence(node, age, now);
                    format!("no heartbeat for {} s", silent.as_secs())
                }
            },
        });
    }
    commands
}

/// When a node that is unknown may go down by time alone. When a ready one becomes unknown
/// depends on heartbeats, which the state does not have: the shell's own timer sees to that.
pub(crate) fn deadlines(state: &State) -> impl Iterator<Item = Timestamp> {
    let spec = spec(state);
    let (grace, delay) = (spec.node_unknown_after, spec.node_replace_delay);
    let paced_until = state
        .nodes()
        .filter(|node| node.status.state == NodeState::Down)
        .map(|node| node.status.since.after(PACE))
        .max()
        .unwrap_or_default();
    state
        .nodes()
        .filter(|node| node.status.state == NodeState::Unknown)
        .flat_map(move |node| {
            let joined = node.created_at.after(grace + delay);
            [node.status.since.after(delay), joined, paced_until]
        })
}

/// For how long a node has been silent: one that has never been heard since it joined, for no
/// longer than it has been there, however long the leader has been the leader.
fn silence(node: &Node, age: Duration, now: Timestamp) -> Duration {
    age.min(now.since(node.created_at))
}

fn verdict(node: &Node, age: Duration, spec: &ClusterSpec, now: Timestamp) -> NodeState {
    if age == LEFT {
        return NodeState::Down;
    }
    if age < spec.node_unknown_after {
        return NodeState::Ready;
    }
    match node.status.state {
        NodeState::Ready => NodeState::Unknown,
        NodeState::Unknown => {
            let silent_long =
                silence(node, age, now) >= spec.node_unknown_after + spec.node_replace_delay;
            let unknown_long = now.since(node.status.since) >= spec.node_replace_delay;
            if silent_long && unknown_long {
                NodeState::Down
            } else {
                NodeState::Unknown
            }
        }
        NodeState::Down => NodeState::Down,
    }
}

/// How many nodes may go down now: any number while at most a third of the cluster is silent,
/// and a few at a time otherwise. Nodes that have been down for long, or have left, are no part
/// of it.
fn allowance(
    state: &State,
    heartbeats: &BTreeMap<NodeId, Duration>,
    spec: &ClusterSpec,
    now: Timestamp,
) -> usize {
    let (mut total, mut silent, mut stepped) = (0, 0, 0);
    for node in state.nodes() {
        let down_for = match node.status.state {
            NodeState::Down => Some(now.since(node.status.since)),
            NodeState::Ready | NodeState::Unknown => None,
        };
        let left = heartbeats.get(&node.id) == Some(&LEFT);
        if left || down_for.is_some_and(|time| time >= INCIDENT) {
            continue;
        }
        total += 1;
        let quiet = match heartbeats.get(&node.id) {
            Some(&age) => age >= spec.node_unknown_after,
            None => node.status.state != NodeState::Ready,
        };
        silent += usize::from(quiet);
        stepped += usize::from(down_for.is_some_and(|time| time < PACE));
    }
    if silent * 3 <= total {
        return usize::MAX;
    }
    (total / PACED_SHARE).max(1).saturating_sub(stepped)
}

fn spec(state: &State) -> ClusterSpec {
    state
        .cluster()
        .map_or_else(ClusterSpec::default, |cluster| cluster.spec.clone())
}

#[cfg(test)]
mod tests;
