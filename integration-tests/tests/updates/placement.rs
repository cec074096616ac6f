//! Where tasks are placed, and which of them go.

use anyhow::{Result, ensure};
use swarmlet_integration_tests::wait_until;

use crate::cluster::{Cluster, LATER, SOON, TaskLine};

/// How many containers each host runs.
fn counts(cluster: &Cluster) -> Result<Vec<usize>> {
    Ok(cluster
        .containers()?
        .into_values()
        .map(|c| c.len())
        .collect())
}

fn wait_for_counts(cluster: &Cluster, expected: [usize; 3]) {
    wait_until(LATER, &format!("{expected:?} containers"), || {
        let now = counts(cluster)?;
        ensure!(now == expected, "{now:?}");
        Ok(Some(()))
    })
    .unwrap();
}

/// Behaviour check 13 of Docker Swarm.
#[test]
fn a_scale_to_three_leaves_one_on_each_and_waiting_tasks_go_first() {
    let cluster = Cluster::start(1).unwrap();
    let set = |availability: &str| {
        for host in ["host2", "host3"] {
            let words = ["node", "update", "--availability", availability, host];
            cluster.swarmlet(&words).unwrap();
        }
    };
    // Paused nodes take nothing, so that the first three are on one.
    set("pause");
    cluster
        .create(&["--name", "ng", "--replicas", "3", "whoami"])
        .unwrap();
    wait_for_counts(&cluster, [3, 0, 0]);
    set("active");
    cluster.swarmlet(&["service", "scale", "ng=5"]).unwrap();
    wait_for_counts(&cluster, [3, 1, 1]);
    cluster.swarmlet(&["service", "scale", "ng=3"]).unwrap();
    wait_for_counts(&cluster, [1, 1, 1]);
    cluster.swarmlet(&["service", "rm", "ng"]).unwrap();
    wait_for_counts(&cluster, [0, 0, 0]);

    // The fourth finds no place; it is the one that goes, whichever its number.
    cluster
        .swarmlet(&[
            "service",
            "create",
            "--detach",
            "--name",
            "one-each",
            "--replicas",
            "4",
            "--replicas-max-per-node",
            "1",
            "whoami",
        ])
        .unwrap();
    let tasks = || cluster.tasks(&cluster.hosts[0], "one-each");
    let in_state = |tasks: &[TaskLine], state: &str| tasks.iter().filter(|t| t.is(state)).count();
    let waiting = wait_until(SOON, "three that run and one that waits", || {
        let tasks = tasks()?;
        ensure!(in_state(&tasks, "Running") == 3, "{tasks:?}");
        Ok(tasks.iter().find(|task| task.is("Pending")).cloned())
    })
    .unwrap();
    let reason = "no suitable node (max replicas per node limit exceed on 3 nodes)";
    assert_eq!(waiting.error, reason);
    let before = cluster.started().unwrap();
    cluster
        .swarmlet(&["service", "scale", "one-each=3"])
        .unwrap();
    let after = tasks().unwrap();
    assert_eq!(in_state(&after, "Running"), 3, "{after:?}");
    assert_eq!(in_state(&after, "Pending"), 0, "{after:?}");
    assert_eq!(
        cluster.started().unwrap(),
        before,
        "one that ran was stopped"
    );
}
