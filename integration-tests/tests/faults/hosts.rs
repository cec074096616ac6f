//! A host is lost, and comes back.
//!
//! What is measured beside the tasks: how long the other hosts' balancers still choose the lost
//! endpoints, and that their clients see nothing of it.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::ensure;
use swarmlet_integration_tests::wait_until;

use crate::{
    cluster::{Cluster, LATER, at},
    probe::{load_at, no_errors, watch, within},
};

/// Often enough that the slowest of them says something.
const ROUNDS: usize = 10;

/// After which a host that is back is as it should be.
const RECOVERY: Duration = Duration::from_secs(30);

/// Behaviour checks 2 and 3 of Docker Swarm.
#[test]
fn tasks_of_a_lost_host_run_elsewhere_within_10_s() {
    let cluster = Cluster::serving(1, 6).unwrap();
    let mut times = Vec::new();
    let mut outs = Vec::new();
    for round in 0..ROUNDS {
        let lost = &cluster.hosts[1 + round % 2];
        let others: Vec<_> = cluster
            .hosts
            .iter()
            .filter(|host| host.name() != lost.name())
            .collect();
        let on_it = lost.docker(&["ps", "--quiet"]).unwrap().success().unwrap();
        let gone = on_it.lines().count() as u64;
        ensure_tasks(&cluster, gone);
        let stale: BTreeSet<String> = on_it.lines().map(str::to_owned).collect();
        let targets = others.iter().map(|host| at(host, 80)).collect();
        let running = load_at(&cluster, targets, 1).unwrap();
        let out: Vec<_> = others
            .iter()
            .map(|host| watch(&cluster, host, 6 - gone).unwrap())
            .collect();
        cluster.hosts.disconnect(lost).unwrap();
        let moment = Instant::now();
        for (host, watch) in others.iter().zip(out) {
            let took = watch.after(moment).unwrap();
            outs.push(took);
            eprintln!(
                "round {round}: {gone} endpoints out of {}: {took:.3?}",
                host.name()
            );
        }
        let back: Vec<_> = others
            .iter()
            .map(|host| watch(&cluster, host, 6).unwrap())
            .collect();
        let slowest = back
            .into_iter()
            .map(|watch| watch.after(moment).unwrap())
            .max()
            .unwrap();
        eprintln!(
            "round {round}: {} lost, six run elsewhere after {slowest:.3?}",
            lost.name()
        );
        times.push(slowest);
        let nodes = cluster.nodes(&cluster.hosts[0]).unwrap();
        assert_eq!(nodes[lost.name()]["Status"], "Down", "{nodes:?}");
        let report = running.stop().unwrap();
        no_errors(&format!("round {round}: clients of the others"), &report, 1);

        cluster.hosts.connect(lost).unwrap();
        let moment = Instant::now();
        wait_until(LATER, "the lost host without its old tasks", || {
            let nodes = cluster.nodes(&cluster.hosts[0])?;
            ensure!(nodes[lost.name()]["Status"] == "Ready", "{nodes:?}");
            let ids = lost.docker(&["ps", "--quiet"])?.success()?;
            let left = ids.lines().filter(|id| stale.contains(*id)).count();
            ensure!(left == 0, "{left} stale tasks");
            let running = cluster.names()?.len();
            ensure!(running == 6, "{running} containers instead of 6");
            Ok(Some(()))
        })
        .unwrap();
        within(
            &format!("round {round}: stale tasks stopped after the return"),
            moment.elapsed(),
            RECOVERY,
        );
        // Some of its tasks for the next round.
        for count in ["1", "6"] {
            cluster
                .swarmlet(&["service", "scale", &format!("ng={count}")])
                .unwrap();
        }
        cluster.all_answer(80).unwrap();
    }
    outs.sort_unstable();
    within(
        &format!("endpoints out of every balancer, {ROUNDS} times, p99"),
        outs.last().copied().unwrap(),
        Duration::from_millis(2_500),
    );
    times.sort_unstable();
    let slowest = times.last().copied().unwrap();
    within(
        "its tasks run elsewhere, p99 of ten rounds",
        slowest,
        Duration::from_secs(10),
    );
}

#[track_caller]
fn ensure_tasks(cluster: &Cluster, gone: u64) {
    assert!(
        (1..6).contains(&gone),
        "{gone} tasks on it: {:?}",
        cluster.containers()
    );
}
