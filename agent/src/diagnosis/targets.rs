//! Which port is tried when: often enough to tell a closed one within seconds, and never more
//! than a bounded number of attempts a second however many nodes there are.
//!
//! ```text
//!            answered                    no answer for 250 ms, or refused
//!   healthy ─────────▶ healthy   healthy ────────────────────────────────▶ suspect
//!   every 500 ms                 suspect: every 250 ms, until one attempt is answered
//! ```

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use swarmlet_core::diagnosis::{Failing, ProbedPort};
use swarmlet_core::model::{Closed, NodeId};
use tokio::time::Instant;

/// Attempts begun at one tick at most; four ticks a second make 64 attempts a second. With
/// more nodes than that, each is tried less often.
const BUDGET: usize = 16;

/// Of these, attempts at ports that do not answer: hosts that are gone must not keep the
/// others from being tried.
const SUSPECT_BUDGET: usize = 8;

/// Pause between two attempts at a port that answers.
const HEALTHY: Duration = Duration::from_millis(500);

/// Pause between two attempts at one that does not. A network that loses a third of its
/// packets answers one of the dozen attempts that fit into the time after which a port counts
/// as closed.
const SUSPECT: Duration = Duration::from_millis(250);

/// A port of another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) node: NodeId,
    pub(crate) port: ProbedPort,
    pub(crate) address: SocketAddr,
}

/// All of them, and how they do.
#[derive(Debug, Default)]
pub(super) struct Targets(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    target: Target,
    /// When the last attempt began.
    begun: Option<Instant>,
    /// When the latest attempt that was answered began.
    answered: Option<Instant>,
    /// Since when attempts fail, and how the last of them did.
    failing: Option<(Instant, Closed)>,
}

impl Entry {
    fn is_suspect(&self, now: Instant) -> bool {
        // An attempt that waits for its answer for longer than one takes.
        let waits = self.begun > self.answered
            && self
                .begun
                .is_some_and(|begun| now.saturating_duration_since(begun) >= SUSPECT);
        self.failing.is_some() || waits
    }

    fn is_due(&self, now: Instant) -> bool {
        let pause = if self.is_suspect(now) {
            SUSPECT
        } else {
            HEALTHY
        };
        self.begun
            .is_none_or(|begun| now.saturating_duration_since(begun) >= pause)
    }
}

impl Targets {
    /// Takes over what is to be tried; what was known of a port is kept.
    pub(super) fn replace(&mut self, wanted: Vec<Target>) {
        let same = |entry: &Entry, target: &Target| entry.target == *target;
        if self.0.len() == wanted.len() && self.0.iter().all(|entry| wanted.contains(&entry.target))
        {
            return;
        }
        self.0
            .retain(|entry| wanted.iter().any(|target| same(entry, target)));
        for target in wanted {
            if !self.0.iter().any(|entry| same(entry, &target)) {
                self.0.push(Entry {
                    target,
                    begun: None,
                    answered: None,
                    failing: None,
                });
            }
        }
    }

    /// What is to be tried now, those first that have waited longest.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Target> {
        let mut order: Vec<usize> = (0..self.0.len())
            .filter(|&index| self.0[index].is_due(now))
            .collect();
        order.sort_by_key(|&index| self.0[index].begun);
        let mut suspects = 0;
        let mut due = Vec::new();
        for index in order {
            if due.len() == BUDGET {
                break;
            }
            let entry = &mut self.0[index];
            if entry.is_suspect(now) {
                if suspects == SUSPECT_BUDGET {
                    continue;
                }
                suspects += 1;
            }
            entry.begun = Some(now);
            due.push(entry.target.clone());
        }
        due
    }

    /// Notes how an attempt ended, and tells whether it is news.
    pub(super) fn finished(
        &mut self,
        target: &Target,
        begun: Instant,
        outcome: Result<(), Closed>,
    ) -> bool {
        let Some(entry) = self.0.iter_mut().find(|entry| entry.target == *target) else {
            return false;
        };
        match outcome {
            Ok(()) => {
                entry.answered = entry.answered.max(Some(begun));
                entry.failing.take().is_some()
            }
            // A later one has been answered.
            Err(_) if entry.answered > Some(begun) => false,
            Err(found) => {
                let since = entry.failing.map_or(begun, |(since, _)| since.min(begun));
                let news = entry.failing != Some((since, found));
                entry.failing = Some((since, found));
                news
            }
        }
    }

    /// Ports on which nothing has been answered for at least `least`, and since when.
    pub(super) fn failing(&self, now: Instant, least: Duration) -> Vec<(Failing, Instant)> {
        let failing = |entry: &Entry| {
            let (since, found) = entry.failing?;
            let failing = Failing {
                node: entry.target.node.clone(),
                port: entry.target.port,
                found,
                lasting: Duration::ZERO,
            };
            let lasting = now.saturating_duration_since(since);
            (lasting >= least).then_some((failing, since))
        };
        self.0.iter().filter_map(failing).collect()
    }

    /// Addresses of managers that do not answer.
    pub(super) fn suspects(&self) -> BTreeSet<SocketAddr> {
        let suspects = self
            .0
            .iter()
            .filter(|entry| entry.target.port == ProbedPort::Cluster && entry.failing.is_some());
        suspects.map(|entry| entry.target.address).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(number: u8) -> Target {
        Target {
            node: NodeId::from_random(number.into()),
            port: ProbedPort::Tasks,
            address: SocketAddr::from(([10, 0, 0, number], 29_999)),
        }
    }

    /// Runs the schedule for some seconds; `answers` says how long an attempt that begins at a
    /// moment (in milliseconds) takes, and how it ends. Gives the moments of all attempts.
    fn run(
        targets: &mut Targets,
        start: Instant,
        milliseconds: std::ops::Range<u64>,
        answers: impl Fn(&Target, u64) -> (u64, Result<(), Closed>),
    ) -> Vec<(u64, Target)> {
        let mut attempts = Vec::new();
        let mut pending: Vec<(u64, Target, u64, Result<(), Closed>)> = Vec::new();
        for now in milliseconds.step_by(250) {
            let moment = start + Duration::from_millis(now);
            pending.retain(|(end, target, begun, outcome)| {
                if *end > now {
                    return true;
                }
                let begun = start + Duration::from_millis(*begun);
                targets.finished(target, begun, *outcome);
                false
            });
            for target in targets.due(moment) {
                let (takes, outcome) = answers(&target, now);
                pending.push((now + takes, target.clone(), now, outcome));
                attempts.push((now, target));
            }
        }
        attempts
    }

    #[test]
    fn a_port_that_falls_silent_is_suspected_at_once_and_known_within_three_and_a_half_seconds() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut targets = Targets::default();
        targets.replace(vec![target(1)]);
        let closed = |_: &Target, now| match now {
            0..2100 => (1, Ok(())),
            _ => (1000, Err(Closed::Dropped)),
        };
        let attempts = run(&mut targets, start, 0..6001, closed);
        let healthy = attempts.iter().filter(|(now, _)| *now < 2100).count();
        assert_eq!(healthy, 5, "every half second");
        let later = attempts.iter().filter(|(now, _)| *now > 3000).count();
        assert_eq!(later, 12, "every quarter second");
        let least = swarmlet_core::diagnosis::FAILING;
        assert!(targets.failing(at(5499), least).is_empty());
        let failing = targets.failing(at(5500), least);
        assert_eq!(failing.len(), 1);
        assert_eq!(failing[0].1, at(2500), "since the first attempt in vain");

        let open = |_: &Target, _| (1, Ok(()));
        run(&mut targets, start, 6250..7000, open);
        assert!(targets.failing(at(7000), Duration::ZERO).is_empty());
    }

    #[test]
    fn one_lost_packet_is_no_closed_port() {
        let start = Instant::now();
        let mut targets = Targets::default();
        targets.replace(vec![target(1)]);
        let lossy = |_: &Target, now: u64| {
            if now.is_multiple_of(1000) {
                (1000, Err(Closed::Dropped))
            } else {
                (1, Ok(()))
            }
        };
        run(&mut targets, start, 0..60_000, lossy);
        let now = start + Duration::from_secs(60);
        assert!(targets.failing(now, Duration::from_secs(1)).is_empty());
    }

    #[test]
    fn a_thousand_nodes_cost_no_more_than_the_budget_and_each_gets_its_turn() {
        let start = Instant::now();
        let mut targets = Targets::default();
        let many: Vec<Target> = (0..1000_u32)
            .map(|number| Target {
                node: NodeId::from_random(number.into()),
                address: SocketAddr::from((number.to_be_bytes(), 29_999)),
                ..target(1)
            })
            .collect();
        targets.replace(many.clone());
        let half_dead = |target: &Target, _| match target.address.ip() {
            std::net::IpAddr::V4(ip) if ip.to_bits().is_multiple_of(2) => (1, Ok(())),
            _ => (1000, Err(Closed::Dropped)),
        };
        let attempts = run(&mut targets, start, 0..60_000, half_dead);
        assert!(attempts.len() <= 240 * BUDGET, "{}", attempts.len());
        for target in many {
            assert!(
                attempts.iter().any(|(_, tried)| *tried == target),
                "{target:?}"
            );
        }
    }

    #[test]
    fn how_soon_a_closed_port_is_known_depends_on_how_many_are_tried() {
        for (nodes, managers, bound) in [(5, 5, 3.5), (30, 5, 3.75), (80, 5, 4.5), (1000, 5, 19.0)]
        {
            let target = |number: u32, port| Target {
                node: NodeId::from_random(number.into()),
                port,
                address: SocketAddr::from((number.to_be_bytes(), 2377)),
            };
            let tasks = (1..nodes).map(|number| target(number, ProbedPort::Tasks));
            let cluster = (1..managers).map(|number| target(number, ProbedPort::Cluster));
            let all: Vec<Target> = tasks.chain(cluster).collect();
            let start = Instant::now();
            let mut worst = Duration::ZERO;
            // Ports from all over the list, at moments that differ from the schedule's.
            for (round, closed) in (0..).zip(all.iter().step_by(all.len() / 4)) {
                let mut targets = Targets::default();
                targets.replace(all.clone());
                let from = 30_000 + 130 * round;
                let way = |tried: &Target, now| match tried == closed && now >= from {
                    true => (1000, Err(Closed::Dropped)),
                    false => (1, Ok(())),
                };
                run(&mut targets, start, 0..from + 25_000, way);
                let now = start + Duration::from_millis(from + 25_000);
                let failing = targets.failing(now, Duration::ZERO);
                assert_eq!(failing.len(), 1, "{nodes} nodes");
                let since = failing[0].1 - (start + Duration::from_millis(from));
                worst = worst.max(since + swarmlet_core::diagnosis::FAILING);
            }
            let known = worst.as_secs_f64();
            assert!(known <= bound, "{nodes} nodes: known after {known} s");
        }
    }

    #[test]
    fn what_is_known_of_a_port_outlives_a_change_of_the_others() {
        let start = Instant::now();
        let mut targets = Targets::default();
        targets.replace(vec![target(1)]);
        targets.finished(&target(1), start, Err(Closed::Refused));
        targets.replace(vec![target(2), target(1)]);
        assert_eq!(targets.failing(start, Duration::ZERO).len(), 1);
        targets.replace(vec![target(2)]);
        assert!(targets.failing(start, Duration::ZERO).is_empty());
        assert!(!targets.finished(&target(1), start, Err(Closed::Refused)));
    }
}
