//! Three managers and three workers, on six hosts with real engines. Needs root.

// Helpers of tests are no tests by clippy's rules; a panic here is a failed test all the same.
#![allow(clippy::unwrap_used)]

#[expect(dead_code, reason = "another binary's tests use the rest of it")]
#[path = "cluster/cluster.rs"]
mod cluster;

use std::{collections::BTreeMap, time::Instant};

use cluster::Cluster;
use swarmlet_integration_tests::measured::noted;

/// Behaviour check 1 of Docker Swarm. Each of the six answers for all sixty.
#[test]
fn sixty_replicas_run_and_are_spread_evenly_over_managers_and_workers() {
    let cluster = Cluster::of(6).unwrap();
    cluster.make_swarm(3).unwrap();
    let nodes = cluster.nodes(&cluster.hosts[0]).unwrap();
    let managers = nodes.values().filter(|node| node["ManagerStatus"] != "");
    assert_eq!((nodes.len(), managers.count()), (6, 3), "{nodes:?}");

    let begin = Instant::now();
    cluster.serve(60).unwrap();
    noted(
        "60 containers run after",
        &format!("{:.1?}", begin.elapsed()),
    );
    let tasks = cluster.tasks(&cluster.hosts[0], "ng").unwrap();
    assert!(tasks.iter().all(|task| task.is("Running")), "{tasks:?}");
    let mut by_node: BTreeMap<&str, usize> = BTreeMap::new();
    for task in &tasks {
        *by_node.entry(&task.node).or_default() += 1;
    }
    let counted: Vec<_> = by_node.into_values().collect();
    assert_eq!(counted, [10; 6]);
    let containers = cluster.containers().unwrap();
    let running: Vec<_> = containers.values().map(|names| names.len()).collect();
    assert_eq!(running, counted, "as the engines say");
    assert_eq!(cluster.all_answer(80).unwrap().len(), 60);
}
