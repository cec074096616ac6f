//! What the node sees of itself and of the others, so that a closed port, a full disk or a
//! silent engine explains itself.
//!
//! ```text
//!   session ──peers, problems──▶ Watcher ──attempts──▶ ports of other nodes   (targets, probe)
//!      ▲                           │  └──looks──────▶ disks, engine, limits   (host)
//!      └──────── observation ◀─────┘
//! ```
//!
//! Nothing is decided here: what follows from an observation is [`swarmlet_core::diagnosis`],
//! at the leader, and for a node without a session on the spot.

mod host;
mod probe;
mod targets;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use swarmlet_core::diagnosis::{self, Failing, Observation, Peer, ProbedPort};
use swarmlet_core::model::{DiskUser, NodeId, NodeProblem, Place, Problem, RuntimeKind};
use swarmlet_proto::clock;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use self::host::Host;
pub(crate) use self::probe::answer;
use self::targets::{Target, Targets};
use crate::runtime::Runtime;
use crate::session::Connection;

/// How often attempts are begun and their results put together.
const TICK: Duration = Duration::from_millis(250);

/// Results that wait; a tick begins far fewer attempts.
const RESULTS: usize = 256;

/// What is looked at beside the ports of other nodes.
#[derive(Debug, Clone, Default)]
pub struct Watched {
    /// Folders whose disks must not fill up, each with what is on it.
    pub disks: Vec<(DiskUser, PathBuf)>,
    /// Processes whose descriptors must last: a name, and the file that holds the process id.
    pub processes: Vec<(String, PathBuf)>,
}

/// What a manager has told of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) peers: Vec<Peer>,
    pub(crate) problems: Vec<NodeProblem>,
}

/// What the node sees, with moments instead of spans, so that it stays true while it waits to
/// be sent.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Seen {
    failing: Vec<(Failing, Instant)>,
    host: Observation,
}

impl Seen {
    /// The observation as of a moment.
    pub(crate) fn at(&self, now: Instant) -> Observation {
        let failing = |(failing, since): &(Failing, Instant)| Failing {
            lasting: now.saturating_duration_since(*since),
            ..failing.clone()
        };
        Observation {
            failing: self.failing.iter().map(failing).collect(),
            ..self.host.clone()
        }
    }

    /// Whether both say the same but for values that move all the time.
    fn is_same(&self, other: &Self, kind: RuntimeKind) -> bool {
        let own = |seen: &Self| diagnosis::own(&seen.host, kind);
        let (one, two) = (own(self), own(other));
        self.failing == other.failing
            && one.len() == two.len()
            && one.iter().zip(&two).all(|(one, two)| one.is_same(two))
    }
}

/// What the watcher tells the rest of the agent.
#[derive(Clone)]
pub(crate) struct Views {
    /// For the managers; changes only where there is something new.
    pub(crate) seen: watch::Receiver<Seen>,
    /// Addresses of managers that do not answer at the moment.
    pub(crate) suspects: watch::Receiver<BTreeSet<SocketAddr>>,
    /// Everything that is known to be wrong, for people.
    pub(crate) problems: watch::Receiver<Vec<NodeProblem>>,
}

/// Looks and tries, for as long as the agent lives.
pub(crate) struct Watcher {
    own: Place,
    runtime: Arc<dyn Runtime>,
    watched: Watched,
    told: watch::Receiver<Told>,
    session: watch::Receiver<Connection>,
    /// Managers that are known without a session, by address only.
    managers: Vec<SocketAddr>,
    seen: watch::Sender<Seen>,
    suspects: watch::Sender<BTreeSet<SocketAddr>>,
    problems: watch::Sender<Vec<NodeProblem>>,
}

impl Watcher {
    /// A watcher, and what it will tell.
    pub(crate) fn new(
        own: Place,
        runtime: Arc<dyn Runtime>,
        watched: Watched,
        told: watch::Receiver<Told>,
        session: watch::Receiver<Connection>,
        managers: Vec<SocketAddr>,
    ) -> (Self, Views) {
        let (seen, seen_out) = watch::channel(Seen::default());
        let (suspects, suspects_out) = watch::channel(BTreeSet::new());
        let (problems, problems_out) = watch::channel(Vec::new());
        let watcher = Self {
            own,
            runtime,
            watched,
            told,
            session,
            managers,
            seen,
            suspects,
            problems,
        };
        let views = Views {
            seen: seen_out,
            suspects: suspects_out,
            problems: problems_out,
        };
        (watcher, views)
    }

    /// Runs until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let host = Host::start(self.runtime.clone(), self.watched.clone(), stop.clone());
        let (results, mut finished) = mpsc::channel(RESULTS);
        let mut targets = Targets::default();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
                Some(result) = finished.recv() => {
                    let probe::Finished { target, begun, outcome } = result;
                    if !targets.finished(&target, begun, outcome) {
                        continue;
                    }
                }
            }
            let now = Instant::now();
            targets.replace(self.wanted());
            for target in targets.due(now) {
                probe::begin(target, results.clone());
            }
            self.publish(&targets, host.borrow().clone(), now);
        }
    }

    /// What is to be tried: what the managers have told, or else what is known of managers.
    fn wanted(&self) -> Vec<Target> {
        let told = self.told.borrow();
        let mut wanted = Vec::new();
        for peer in &told.peers {
            if peer.probe_port != 0 {
                wanted.push(Target {
                    node: peer.place.node.clone(),
                    port: ProbedPort::Tasks,
                    address: SocketAddr::new(peer.place.address, peer.probe_port),
                });
            }
            wanted.extend(peer.manager.map(|address| Target {
                node: peer.place.node.clone(),
                port: ProbedPort::Cluster,
                address,
            }));
        }
        if told.peers.is_empty() {
            let others = self
                .managers
                .iter()
                .filter(|at| at.ip() != self.own.address);
            wanted.extend(others.map(|&address| Target {
                node: unnamed(address).node,
                port: ProbedPort::Cluster,
                address,
            }));
        }
        wanted
    }

    fn publish(&self, targets: &Targets, host: Observation, now: Instant) {
        let suspects = targets.suspects();
        self.suspects.send_if_modified(|before| {
            let news = *before != suspects;
            *before = suspects;
            news
        });
        let failing = targets.failing(now, diagnosis::SUSPECT);
        let seen = Seen { failing, host };
        let kind = self.runtime.kind();
        let found = self.problems_of(&seen.at(now));
        self.seen.send_if_modified(|before| {
            let news = !before.is_same(&seen, kind);
            if news {
                *before = seen;
            }
            news
        });
        self.problems.send_if_modified(|before| {
            let news = merge(before, found);
            if news == *before {
                return false;
            }
            self.log(before, &news);
            *before = news;
            true
        });
    }

    /// Everything that is wrong, as far as it is known here: what the managers say while there
    /// is a session, and what the node knows of itself.
    fn problems_of(&self, observation: &Observation) -> Vec<NodeProblem> {
        let connected = self.session.borrow().manager.is_some();
        let told = self.told.borrow();
        let mut own = diagnosis::own(observation, self.runtime.kind());
        if !connected {
            own.extend(diagnosis::alone(observation, &self.known_managers(&told)));
        }
        let mut problems = if connected {
            told.problems.clone()
        } else {
            Vec::new()
        };
        for kind in own {
            let known = |found: &NodeProblem| {
                found.at.node == self.own.node && found.problem.kind.is_same(&kind)
            };
            if !problems.iter().any(known) {
                problems.push(NodeProblem {
                    at: self.own.clone(),
                    problem: Problem {
                        since: clock::now(),
                        kind,
                    },
                });
            }
        }
        problems
    }

    fn known_managers(&self, told: &Told) -> Vec<(Place, u16)> {
        let named = told.peers.iter().filter_map(|peer| {
            let address = peer.manager?;
            Some((peer.place.clone(), address.port()))
        });
        let named: Vec<_> = named.collect();
        if named.is_empty() {
            let unnamed = self.managers.iter().map(|&at| (unnamed(at), at.port()));
            return unnamed.collect();
        }
        named
    }

    /// Tells the log what concerns this node.
    fn log(&self, before: &[NodeProblem], now: &[NodeProblem]) {
        let concerns =
            |found: &&NodeProblem| found.problem.kind.concerns(&found.at, &self.own.node);
        let is_in = |list: &[NodeProblem], wanted: &NodeProblem| {
            list.iter().any(|found| {
                found.at == wanted.at && found.problem.kind.is_same(&wanted.problem.kind)
            })
        };
        for found in now.iter().filter(concerns) {
            if !is_in(before, found) {
                tracing::warn!(kind = found.problem.kind.name(), "problem: {found}");
            }
        }
        for found in before.iter().filter(concerns) {
            if !is_in(now, found) {
                let kind = &found.problem.kind;
                tracing::info!(kind = kind.name(), "solved: {}", kind.what(&found.at));
            }
        }
    }
}

/// Problems that were known keep the moment at which they were noticed.
fn merge(before: &[NodeProblem], found: Vec<NodeProblem>) -> Vec<NodeProblem> {
    let keep = |found: NodeProblem| {
        let same = before
            .iter()
            .find(|known| known.at == found.at && known.problem.kind.is_same(&found.problem.kind));
        same.cloned().unwrap_or(found)
    };
    found.into_iter().map(keep).collect()
}

/// A manager of which nothing is known but where it takes calls.
fn unnamed(address: SocketAddr) -> Place {
    let bits = match address.ip() {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    };
    Place {
        // It only tells managers apart until one of them has named them all.
        node: NodeId::from_random(bits),
        hostname: format!("the manager at port {}", address.port()),
        address: address.ip(),
    }
}

#[cfg(test)]
mod tests;
