//! A balancer dies under load: nobody is refused, and the next one accepts at once.

use std::time::{Duration, Instant};

use swarmlet_integration_tests::{
    Signal,
    measured::{at_most, within},
    wait_until,
};

use crate::{
    cluster::{Cluster, SOON},
    probe::{load, no_errors, nothing_restarted},
};

/// Each host's balancer dies twice.
const ROUNDS: usize = 6;

/// Clients that ask one after the other.
const CLIENTS: usize = 4;

#[test]
fn a_killed_balancer_refuses_nobody_and_accepts_within_500_ms() {
    let cluster = Cluster::serving(3, 6).unwrap();
    let names = cluster.all_answer(80).unwrap();
    let before = cluster.started().unwrap();
    let running = load(&cluster, 80, CLIENTS).unwrap();
    for round in 0..ROUNDS {
        let host = &cluster.hosts[round % 3];
        let (balancer, daemon) = (host.balancer().unwrap(), host.daemon().unwrap());
        host.signal(balancer, Signal::KILL).unwrap();
        let killed = Instant::now();
        // A connection that begins now waits in the socket's queue for the next balancer.
        let report = cluster.ask(host, 80, 1).unwrap();
        let took = killed.elapsed();
        assert_eq!(report.failed(), 0, "{}", report.to_json());
        within(
            "answers again after its balancer was killed",
            took,
            Duration::from_millis(500),
        );
        wait_until(SOON, "another balancer", || {
            Ok((host.balancer()? != balancer).then_some(()))
        })
        .unwrap();
        assert_eq!(host.daemon().unwrap(), daemon, "the daemon was replaced");
    }
    let report = running.stop().unwrap();
    let refused = report.errors.get("connect refused").copied();
    at_most("connections refused", refused.unwrap_or_default(), 0);
    // A client has one connection at a time.
    no_errors("balancers killed", &report, (CLIENTS * ROUNDS) as u64);
    for host in cluster.hosts.iter() {
        cluster.answers(host, 80, &names).unwrap();
    }
    nothing_restarted(&cluster, &before);
}
