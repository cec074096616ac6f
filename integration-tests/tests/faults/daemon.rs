//! The daemon dies or is paused; containers, balancers and clients do not notice.

use std::{
    thread,
    time::{Duration, Instant},
};

use swarmlet_integration_tests::{Signal, wait_until};

use crate::{
    cluster::{Cluster, LATER},
    probe::{load, no_errors, nothing_restarted, within},
};

#[test]
fn a_killed_daemon_is_back_within_4_s_and_adopts_everything() {
    let cluster = Cluster::serving(3, 6).unwrap();
    cluster.all_answer(80).unwrap();
    let before = cluster.started().unwrap();
    let balancers: Vec<_> = cluster
        .hosts
        .iter()
        .map(|host| host.balancer().unwrap())
        .collect();
    let running = load(&cluster, 80, 3).unwrap();
    for round in 0..6 {
        let host = &cluster.hosts[round % 3];
        let killed = host.daemon().unwrap();
        let moment = Instant::now();
        host.signal(killed, Signal::KILL).unwrap();
        let label = format!("round={round}");
        cluster.wait_for_write(host, &label).unwrap();
        within(
            "a killed daemon takes commands again",
            moment.elapsed(),
            Duration::from_secs(4),
        );
        assert_ne!(host.daemon().unwrap(), killed);
    }
    let report = running.stop().unwrap();
    no_errors("daemons killed", &report, 0);
    nothing_restarted(&cluster, &before);
    for (host, balancer) in cluster.hosts.iter().zip(balancers) {
        assert_eq!(
            host.balancer().unwrap(),
            balancer,
            "a balancer was replaced"
        );
    }
}

#[test]
fn a_pause_of_5_s_restarts_nothing() {
    let cluster = Cluster::serving(1, 6).unwrap();
    cluster.all_answer(80).unwrap();
    let before = cluster.started().unwrap();
    let tasks = |cluster: &Cluster| {
        let tasks = cluster.tasks(&cluster.hosts[0], "ng").unwrap();
        let mut ids: Vec<_> = tasks.into_iter().map(|task| (task.id, task.node)).collect();
        ids.sort();
        ids
    };
    let placed = tasks(&cluster);
    let running = load(&cluster, 80, 3).unwrap();
    let host = &cluster.hosts[1];
    let daemon = host.daemon().unwrap();
    host.signal(daemon, Signal::STOP).unwrap();
    thread::sleep(Duration::from_secs(5));
    host.signal(daemon, Signal::CONT).unwrap();
    let moment = Instant::now();
    wait_until(LATER, "three ready nodes", || {
        let nodes = cluster.nodes(&cluster.hosts[0])?;
        Ok(nodes
            .values()
            .all(|node| node["Status"] == "Ready")
            .then_some(()))
    })
    .unwrap();
    within(
        "ready again after a pause of 5 s",
        moment.elapsed(),
        Duration::from_secs(3),
    );
    // Whatever were decided because of the pause would come within the replace delay.
    thread::sleep(Duration::from_secs(4));
    cluster.all_answer(80).unwrap();
    no_errors("daemon paused", &running.stop().unwrap(), 0);
    nothing_restarted(&cluster, &before);
    assert_eq!(tasks(&cluster), placed, "tasks were replaced");
}
