//! What is wrong with the nodes, from what they see of themselves and of each other.
//!
//! Nodes try each other's ports all the time, look at their own disks, engine and limits, and
//! tell the leader what they find. Which problems follow from it is decided here, by rules
//! that keep three things apart which look alike from one node: a closed port, a node that is
//! gone, and a node that reaches no manager.
//!
//! | another node tries in vain | its heartbeats | what it is |
//! |---|---|---|
//! | yes | go on | its port is closed to that node |
//! | yes | stopped, too | it is gone: its state says so |
//! | no | stopped | it is cut off from the managers |

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use crate::command::Command;
use crate::liveness::LEFT;
use crate::model::{
    Closed, DiskUser, Node, NodeId, NodeProblem, NodeState, Place, Problem, ProblemKind,
    RuntimeKind, Timestamp,
};
use crate::state::State;

/// Attempts must have failed for this long. A host of a lossy network answers one of the dozen
/// attempts in this time, and a rule that was set a moment ago is still told within 5 s.
pub const FAILING: Duration = Duration::from_secs(3);

/// What a node tells before that, so that a node that died is known to be dead in time.
pub const SUSPECT: Duration = Duration::from_secs(1);

/// Heartbeats come about every second. A node was alive while attempts failed if its last
/// heartbeat is younger than the failure by more than this.
const MARGIN: Duration = Duration::from_millis(500);

/// A difference of clocks that people notice in logs and that certificates and back-offs still
/// bear; etcd warns at the same.
const CLOCK_LIMIT_MS: u64 = 1000;

/// A problem with the clock ends below this, so that a value at the limit does not flap.
const CLOCK_SOLVED_MS: u64 = 800;

/// A disk counts as full below a twentieth, and no earlier than at this: a large disk with a
/// gigabyte left still works for long.
const DISK_FREE_BYTES: u64 = 1 << 30;

/// A disk counts as full below this in any case: managers refuse changes below 64 MiB.
const DISK_FLOOR_BYTES: u64 = 128 << 20;

/// Of so many descriptors one in this many must be free.
const DESCRIPTORS_FREE: u64 = 20;

/// Problems that one node keeps. A host whose firewall is closed has one with each other host,
/// and the first few say all.
const MAX_PROBLEMS: usize = 20;

/// Clusters of more nodes than this are not tried within [`SUSPECT`] of each other.
const PROMPT_NODES: usize = 33;

/// What a node sees.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observation {
    /// Ports of other nodes that it tries in vain.
    pub failing: Vec<Failing>,
    /// Its disks.
    pub disks: Vec<DiskSpace>,
    /// Its processes.
    pub descriptors: Vec<DescriptorUse>,
    /// Why its engine does not answer, where it has one and it does not.
    pub engine: Option<String>,
}

impl Observation {
    /// The same some time later, where nothing was observed since.
    #[must_use]
    pub fn after(&self, time: Duration) -> Self {
        let mut later = self.clone();
        for failing in &mut later.failing {
            failing.lasting = failing.lasting.saturating_add(time);
        }
        later
    }
}

/// A port that is tried in vain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Failing {
    /// Whose.
    pub node: NodeId,
    /// Which.
    pub port: ProbedPort,
    /// What becomes of an attempt.
    pub found: Closed,
    /// For how long no attempt has succeeded.
    pub lasting: Duration,
}

/// Ports that nodes try on each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProbedPort {
    /// One of the range for tasks.
    Tasks,
    /// The one on which managers take calls.
    Cluster,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSpace {
    /// Who lives on it.
    pub user: DiskUser,
    /// Where.
    pub path: String,
    /// Bytes that can still be written.
    pub free_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

/// A process and its open files and connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescriptorUse {
    /// Which.
    pub process: String,
    /// Descriptors in use.
    pub open: u64,
    /// Its limit.
    pub limit: u64,
}

/// Another node, as far as one needs to know it to try its ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Who it is.
    pub place: Place,
    /// The port of its range for tasks on which its agent answers; zero where it has none.
    pub probe_port: u16,
    /// Where it takes calls, as a manager.
    pub manager: Option<SocketAddr>,
}

/// What the leader knows by ear of all nodes.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    /// What each node saw last.
    pub observations: BTreeMap<NodeId, Observation>,
    /// The age of each node's last heartbeat (see [`crate::liveness::ages`]).
    pub ages: BTreeMap<NodeId, Duration>,
    /// By how many milliseconds each node's clock is ahead of the leader's.
    pub clocks: BTreeMap<NodeId, i64>,
}

/// Brings the problems of all nodes up to date; commands only where something changed.
///
/// A node that this leader has not heard of yet keeps what it has.
#[must_use]
pub fn judge(state: &State, heard: &Heard, now: Timestamp) -> Vec<Command> {
    let clocks = clocks(state, heard);
    let mut commands = Vec::new();
    for node in state.nodes() {
        let known = heard.observations.contains_key(&node.id);
        if !known && node.status.state == NodeState::Ready {
            continue;
        }
        let mut found = found(state, heard, node);
        found.extend(clock(node, clocks.get(&node.id).copied()));
        found.truncate(MAX_PROBLEMS);
        let problems = merge(&node.problems, found, now);
        if problems != node.problems {
            commands.push(Command::ReportProblems {
                id: node.id.clone(),
                problems,
            });
        }
    }
    commands
}

/// What a node can tell of itself without anybody else.
#[must_use]
pub fn own(observation: &Observation, runtime: RuntimeKind) -> Vec<ProblemKind> {
    let mut found = Vec::new();
    if let (RuntimeKind::Docker, Some(reason)) = (runtime, &observation.engine) {
        found.push(ProblemKind::Engine {
            reason: reason.clone(),
        });
    }
    found.extend(
        observation
            .disks
            .iter()
            .filter(|disk| is_full(disk))
            .map(|disk| ProblemKind::Disk {
                user: disk.user,
                path: disk.path.clone(),
                free_bytes: disk.free_bytes,
                total_bytes: disk.total_bytes,
            }),
    );
    let scarce = |used: &&DescriptorUse| {
        used.open.saturating_add(used.limit / DESCRIPTORS_FREE) >= used.limit
    };
    found.extend(observation.descriptors.iter().filter(scarce).map(|used| {
        ProblemKind::Descriptors {
            process: used.process.clone(),
            open: used.open,
            limit: used.limit,
        }
    }));
    found
}

/// What a node says of managers that it tries in vain while it has no session: whether they
/// live is not known, and it is the first thing to look at all the same.
#[must_use]
pub fn alone(observation: &Observation, managers: &[(Place, u16)]) -> Vec<ProblemKind> {
    let closed = |failing: &Failing| {
        let (to, port) = managers.iter().find(|(to, _)| to.node == failing.node)?;
        Some(ProblemKind::Closed {
            to: to.clone(),
            ports: vec![(*port, *port)],
            found: failing.found,
        })
    };
    observation
        .failing
        .iter()
        .filter(|failing| failing.port == ProbedPort::Cluster && failing.lasting >= FAILING)
        .filter_map(closed)
        .collect()
}

/// Everybody but the node itself, for it to try their ports.
#[must_use]
pub fn peers(state: &State, but: &NodeId) -> Vec<Peer> {
    let peer = |node: &Node| Peer {
        place: place(node),
        probe_port: node.description.probe_port,
        manager: node.manager.as_ref().map(|manager| manager.address),
    };
    let others = state.nodes().filter(|node| node.id != *but);
    others.map(peer).collect()
}

/// All problems of the cluster, those that began last first.
#[must_use]
pub fn all(state: &State) -> Vec<NodeProblem> {
    let of = |node: &Node| {
        let at = place(node);
        let with = move |problem: &Problem| NodeProblem {
            at: at.clone(),
            problem: problem.clone(),
        };
        node.problems.iter().map(with).collect::<Vec<_>>()
    };
    let mut all: Vec<NodeProblem> = state.nodes().flat_map(of).collect();
    all.sort_by_key(|found| std::cmp::Reverse(found.problem.since));
    all
}

/// Whether a disk is full, or so nearly that something is about to fail.
#[must_use]
pub fn is_full(disk: &DiskSpace) -> bool {
    let enough = (disk.total_bytes / 20).min(DISK_FREE_BYTES);
    disk.free_bytes < enough.max(DISK_FLOOR_BYTES)
}

/// A node as people know it.
#[must_use]
pub fn place(node: &Node) -> Place {
    Place {
        node: node.id.clone(),
        hostname: node.description.hostname.clone(),
        address: node.description.address,
    }
}

/// The problems of one node, but for its clock.
fn found(state: &State, heard: &Heard, node: &Node) -> Vec<ProblemKind> {
    if node.status.state != NodeState::Ready {
        return cut_off(state, heard, node).into_iter().collect();
    }
    let Some(observation) = heard.observations.get(&node.id) else {
        return Vec::new();
    };
    let mut found = own(observation, node.description.runtime);
    let mut closed: BTreeMap<(&NodeId, Closed), Vec<(u16, u16)>> = BTreeMap::new();
    for failing in &observation.failing {
        if let Some(ports) = closed_ports(state, heard, failing) {
            let key = (&failing.node, failing.found);
            closed.entry(key).or_default().push(ports);
        }
    }
    for ((to, how), ports) in closed {
        found.extend(state.node(to).map(|to| ProblemKind::Closed {
            to: place(to),
            ports,
            found: how,
        }));
    }
    found
}

/// The ports that are closed where an attempt fails; `None` where it may well be the node that
/// is gone.
fn closed_ports(state: &State, heard: &Heard, failing: &Failing) -> Option<(u16, u16)> {
    let to = state.node(&failing.node)?;
    let age = *heard.ages.get(&failing.node)?;
    let lived_on = age + MARGIN < failing.lasting;
    if failing.lasting < FAILING || to.status.state != NodeState::Ready || !lived_on {
        return None;
    }
    match failing.port {
        ProbedPort::Tasks => Some(to.description.task_ports),
        ProbedPort::Cluster => {
            let port = to.manager.as_ref()?.address.port();
            Some((port, port))
        }
    }
}

/// A silent node that every other one reaches is cut off from the managers: what answers the
/// attempts is its agent, which sends the heartbeats, too.
fn cut_off(state: &State, heard: &Heard, node: &Node) -> Option<ProblemKind> {
    if state.nodes().count() > PROMPT_NODES || node.description.probe_port == 0 {
        return None;
    }
    // Its agent answers for as long as its tasks take to stop.
    if heard.ages.get(&node.id) == Some(&LEFT) {
        return None;
    }
    // One that has just joined answers attempts before its first heartbeat.
    let was_cut_off = node
        .problems
        .iter()
        .any(|problem| matches!(problem.kind, ProblemKind::CutOff { .. }));
    if !was_cut_off && !heard.observations.contains_key(&node.id) {
        return None;
    }
    let mut asked = 0;
    for other in state.nodes().filter(|other| other.id != node.id) {
        let observation = heard.observations.get(&other.id);
        let (NodeState::Ready, Some(observation)) = (other.status.state, observation) else {
            continue;
        };
        let vain = observation
            .failing
            .iter()
            .any(|failing| failing.node == node.id && failing.port == ProbedPort::Tasks);
        if vain {
            return None;
        }
        asked += 1;
    }
    let managers = state.nodes().filter_map(|manager| {
        let address = manager.manager.as_ref()?.address;
        Some((place(manager), address.port()))
    });
    let (places, ports): (Vec<Place>, Vec<u16>) =
        managers.filter(|(place, _)| place.node != node.id).unzip();
    let port = *ports.first()?;
    (asked > 0).then_some(ProblemKind::CutOff {
        managers: places,
        port,
    })
}

/// By how much each node's clock is ahead of most nodes'. Against the leader's alone a leader
/// with a wrong clock would blame everybody else.
fn clocks(state: &State, heard: &Heard) -> BTreeMap<NodeId, i64> {
    let ready: BTreeSet<&NodeId> = state
        .nodes()
        .filter(|node| node.status.state == NodeState::Ready)
        .map(|node| &node.id)
        .collect();
    let known = || heard.clocks.iter().filter(|(node, _)| ready.contains(node));
    let mut sorted: Vec<i64> = known().map(|(_, ahead)| *ahead).collect();
    sorted.sort_unstable();
    let middle = match sorted.len() {
        0 => return BTreeMap::new(),
        // Of two in the middle the one nearer to the leader's own.
        even if even % 2 == 0 => {
            let (low, high) = (sorted[even / 2 - 1], sorted[even / 2]);
            if low.unsigned_abs() < high.unsigned_abs() {
                low
            } else {
                high
            }
        }
        odd => sorted[odd / 2],
    };
    known()
        .map(|(node, ahead)| (node.clone(), ahead.saturating_sub(middle)))
        .collect()
}

fn clock(node: &Node, ahead_ms: Option<i64>) -> Option<ProblemKind> {
    let ahead_ms = ahead_ms?;
    let had = node
        .problems
        .iter()
        .any(|problem| matches!(problem.kind, ProblemKind::Clock { .. }));
    let limit = if had { CLOCK_SOLVED_MS } else { CLOCK_LIMIT_MS };
    (ahead_ms.unsigned_abs() > limit).then_some(ProblemKind::Clock { ahead_ms })
}

/// Problems that were there stay as they are, with the moment at which they began.
fn merge(before: &[Problem], found: Vec<ProblemKind>, now: Timestamp) -> Vec<Problem> {
    let keep = |kind: ProblemKind| {
        let same = before.iter().find(|problem| problem.kind.is_same(&kind));
        same.cloned().unwrap_or(Problem { since: now, kind })
    };
    found.into_iter().map(keep).collect()
}

#[cfg(test)]
mod tests;
