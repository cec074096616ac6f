//! Clients notice nothing of an update, a rollback, a drain and a scale, whatever else happens.

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use swarmlet_integration_tests::{
    Host, Signal,
    measured::{at_least, noted},
    wait_until,
};

use crate::{
    cluster::{Cluster, SOON},
    traffic::{RATE, Traffic},
};

/// Longest wait for ten containers to be replaced while clients are served.
const REPLACED: Duration = Duration::from_secs(90);

/// Pause between two looks at the engines, which cost time that clients would be served in.
const LOOK: Duration = Duration::from_millis(400);

/// How often a change is made in search of one under the promised load. A machine that is busy with
/// other things has no time for that; that no connection may be lost holds for it all the same.
const ROUNDS: usize = 4;

/// Containers at the beginning.
const TEN: usize = 10;

const CREATE: &str = "--name ng --replicas 10 --publish 80:80 --drain-timeout 1s \
    --update-parallelism 2 --update-monitor 1s --rollback-parallelism 2 --rollback-monitor 1s whoami";

/// Three managers with ten containers that answer on port 80.
fn ten() -> Cluster {
    let cluster = Cluster::start(3).unwrap();
    let words: Vec<&str> = CREATE.split_whitespace().collect();
    cluster.create(&words).unwrap();
    assert_eq!(cluster.all_answer(80).unwrap().len(), TEN);
    cluster
}

/// A change, and what the running containers are to be after it.
struct Change {
    what: &'static str,
    command: &'static str,
    /// Whether the containers are as they should be, given those from before.
    done: fn(&Cluster, &BTreeSet<String>) -> Result<bool>,
    /// What makes everything as it was before.
    undo: &'static [&'static str],
}

/// What is done to a service of ten, one change after the other.
const CHANGES: [Change; 4] = [
    Change {
        what: "update of ten",
        command: "service update --detach --env-add VERSION=2 ng",
        done: are_replaced,
        undo: &["service update --quiet --env-rm VERSION ng"],
    },
    Change {
        what: "rollback",
        command: "service rollback --detach ng",
        done: are_replaced,
        undo: &["service update --quiet --env-add VERSION=2 ng"],
    },
    Change {
        what: "drain of a host",
        command: "node update --availability drain host2",
        done: |cluster, _| {
            let now = cluster.containers()?;
            let all: usize = now.values().map(BTreeSet::len).sum();
            Ok(all == TEN && now["host2"].is_empty())
        },
        undo: &[
            "node update --availability active host2",
            "service update --quiet --force ng",
        ],
    },
    Change {
        what: "scale from ten to three",
        command: "service scale --detach ng=3",
        done: |cluster, before| {
            let now = cluster.names()?;
            Ok(now.len() == 3 && now.is_subset(before))
        },
        undo: &["service scale ng=10"],
    },
];

fn are_replaced(cluster: &Cluster, before: &BTreeSet<String>) -> Result<bool> {
    let now = cluster.names()?;
    Ok(now.len() == TEN && now.is_disjoint(before))
}

fn run(host: &Host, command: &str) {
    let words: Vec<&str> = command.split_whitespace().collect();
    host.swarmlet(&words).unwrap().success().unwrap();
}

/// Makes a change under load, with a fault in the middle of it, until it was made under as many
/// connections a second as promised.
#[track_caller]
fn make(cluster: &Cluster, change: &Change, fault: impl Fn(&Cluster)) {
    let mut best = 0;
    for round in 1..=ROUNDS {
        best = best.max(once(cluster, change, &fault));
        cluster.all_answer(80).unwrap();
        if best >= u64::from(RATE) || round == ROUNDS {
            break;
        }
        eprintln!(
            "{}: once more, {best} connections a second were too few",
            change.what
        );
        for command in change.undo {
            run(&cluster.hosts[0], command);
        }
        cluster.all_answer(80).unwrap();
    }
    let rate = format!("{}: new connections a second", change.what);
    at_least(&rate, best, u64::from(RATE));
}

/// Makes a change under load and waits for its end; how many connections there were a second.
#[track_caller]
fn once(cluster: &Cluster, change: &Change, fault: impl Fn(&Cluster)) -> u64 {
    let before = cluster.names().unwrap();
    let traffic = Traffic::start(cluster, 80).unwrap();
    let begin = Instant::now();
    run(&cluster.hosts[0], change.command);
    fault(cluster);
    wait_until(REPLACED, change.what, || {
        thread::sleep(LOOK);
        let done = (change.done)(cluster, &before)?;
        ensure!(done, "{:?}", cluster.containers()?);
        Ok(Some(()))
    })
    .unwrap();
    noted(
        &format!("{}: until the last container has ended", change.what),
        &format!("{:.1?}", begin.elapsed()),
    );
    traffic.lost_nothing(change.what)
}

/// An update, a rollback, a drain (behaviour check 4 of Docker Swarm) and a scale.
#[test]
fn an_update_a_rollback_a_drain_and_a_scale_lose_no_connection() {
    let cluster = ten();
    for change in CHANGES {
        make(&cluster, &change, |_| {});
    }
}

/// The same while a balancer is replaced and the leader dies.
#[test]
fn no_connection_is_lost_although_a_balancer_is_restarted_and_the_leader_killed() {
    let cluster = ten();
    for change in CHANGES {
        make(&cluster, &change, |cluster| {
            wait_until(SOON, "a draining container", || {
                thread::sleep(LOOK / 4);
                let status = cluster.swarmlet(&["lb", "status"])?;
                Ok(status.contains(" draining ").then_some(()))
            })
            .unwrap();
            let leader = cluster.leader(&cluster.hosts[0]).unwrap();
            restart_balancer(&cluster.hosts[(leader + 1) % 3]);
            kill_leader(cluster, leader);
        });
    }
}

fn restart_balancer(host: &Host) {
    let old = host.balancer().unwrap();
    run(host, "lb restart");
    assert_ne!(host.balancer().unwrap(), old);
}

/// Kills the leader's daemon, and waits until another one leads and all three are there again.
fn kill_leader(cluster: &Cluster, leader: usize) {
    let killed = &cluster.hosts[leader];
    let asked = &cluster.hosts[(leader + 1) % 3];
    let daemon = killed.daemon().unwrap();
    killed.signal(daemon, Signal::KILL).unwrap();
    wait_until(SOON, "three managers, one of which leads", || {
        thread::sleep(LOOK / 4);
        ensure!(killed.daemon()? != daemon, "it has not died yet");
        let nodes = cluster.nodes(asked)?;
        let standing = |standing: &str| {
            let ready = |node: &&serde_json::Value| {
                node["Status"] == "Ready" && node["ManagerStatus"] == standing
            };
            nodes.values().filter(ready).count()
        };
        let both = (standing("Leader"), standing("Reachable"));
        ensure!(both == (1, 2), "{nodes:?}");
        Ok(Some(()))
    })
    .unwrap();
}
