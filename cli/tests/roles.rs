//! Workers become managers and managers workers, on loopback clusters.

// Helpers of tests are no tests by clippy's rules; a panic here is a failed test all the same.
#![allow(clippy::unwrap_used)]

// Shared with the other loopback tests, which use the rest of it.
#[allow(dead_code)]
#[path = "loopback/cluster.rs"]
mod cluster;

use cluster::{Cluster, free_port, wait_until};

/// The hosts that are managers, by what `node ls` on a node says, the leader first.
fn managers(cluster: &Cluster, node: usize) -> Result<Vec<String>, String> {
    let listed = cluster.run(node, &["node", "ls", "--format=json"]);
    if listed.code != Some(0) {
        return Err(format!("{listed:?}"));
    }
    let mut found: Vec<(bool, String)> = listed
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter_map(|row| match row["ManagerStatus"].as_str().unwrap() {
            "Leader" => Some((false, row["Hostname"].as_str().unwrap().to_owned())),
            "Reachable" => Some((true, row["Hostname"].as_str().unwrap().to_owned())),
            _ => None,
        })
        .collect();
    found.sort();
    Ok(found.into_iter().map(|(_, host)| host).collect())
}

fn wait_for_managers(cluster: &Cluster, node: usize, expected: &[&str]) {
    let mut expected: Vec<_> = expected.to_vec();
    expected.sort_unstable();
    wait_until(
        &format!("node {node} sees the managers {expected:?}"),
        || {
            let mut found = managers(cluster, node)?;
            found.sort_unstable();
            if found == expected {
                Ok(())
            } else {
                Err(format!("{found:?}"))
            }
        },
    );
}

/// Three nodes, the first a manager, that serve one task each.
fn cluster() -> (Cluster, u16, Vec<String>) {
    let cluster = Cluster::with_workers(2);
    let port = free_port();
    let publish = format!("{port}:80");
    let line = [
        "service",
        "create",
        "--name=ng",
        "--replicas=3",
        "-p",
        &publish,
        "whoami",
    ];
    cluster.ok(0, &line);
    let names = names(&cluster, port);
    assert_eq!(names.len(), 3, "{names:?}");
    (cluster, port, names)
}

/// Who answers, sorted.
fn names(cluster: &Cluster, port: u16) -> Vec<String> {
    let mut names: Vec<String> = (0..9)
        .map(|request| cluster.ask(request % 3, port).unwrap())
        .collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn workers_are_promoted_and_the_leader_is_demoted_and_nothing_restarts() {
    let (cluster, port, before) = cluster();
    let promoted = cluster.ok(0, &["node", "promote", "host2"]);
    assert_eq!(
        promoted.stdout,
        "Node host2 promoted to a manager in the swarm.\n"
    );
    assert!(promoted.stderr.contains("two managers"), "{promoted:?}");
    wait_for_managers(&cluster, 0, &["host1", "host2"]);
    let promoted = cluster.ok(0, &["node", "promote", "host2", "host3"]);
    assert_eq!(
        promoted.stdout,
        "Node host2 is already a manager.\nNode host3 promoted to a manager in the swarm.\n"
    );
    for node in 0..3 {
        wait_for_managers(&cluster, node, &["host1", "host2", "host3"]);
    }
    assert_eq!(names(&cluster, port), before, "no task was restarted");

    // The leader itself, asked on itself.
    let demoted = cluster.ok(0, &["node", "demote", "self"]);
    assert_eq!(demoted.stdout, "Manager self demoted in the swarm.\n");
    wait_for_managers(&cluster, 1, &["host2", "host3"]);
    wait_until("the node knows that it is a worker", || {
        let refused = cluster.run(0, &["node", "ls"]);
        match refused.stderr.contains("This node is not a swarm manager") {
            true => Ok(()),
            false => Err(format!("{refused:?}")),
        }
    });
    assert_eq!(names(&cluster, port), before, "no task was restarted");
    // It is a node like any other: tasks come and go on it.
    cluster.ok(1, &["service", "scale", "ng=6"]);
    cluster.ok(1, &["service", "scale", "ng=3"]);

    // And back again, with a place of its own among the voters.
    cluster.ok(1, &["node", "promote", "host1"]);
    wait_for_managers(&cluster, 0, &["host1", "host2", "host3"]);
    cluster.kill_daemon(1);
    wait_until("two of three decide without the third", || {
        let scaled = cluster.run(0, &["service", "scale", "-d", "ng=4"]);
        match scaled.code {
            Some(0) => Ok(()),
            _ => Err(format!("{scaled:?}")),
        }
    });
}

#[test]
fn a_manager_that_is_demoted_while_it_is_away_comes_back_as_a_worker() {
    let (cluster, port, before) = cluster();
    cluster.ok(0, &["node", "promote", "host2", "host3"]);
    wait_for_managers(&cluster, 0, &["host1", "host2", "host3"]);
    cluster.kill_daemon(2);
    wait_until("the others have noticed", || {
        let found = managers(&cluster, 0)?;
        if found.len() == 2 {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    });
    cluster.ok(0, &["node", "demote", "host3"]);
    wait_for_managers(&cluster, 0, &["host1", "host2"]);
    let _daemon = cluster.start_daemon(2);
    wait_until("it is a worker that reports", || {
        let info = cluster.run(2, &["info", "--format=json"]);
        let node = cluster.run(0, &["node", "ls", "-f", "name=host3"]);
        match info.stdout.contains("\"worker\"") && node.stdout.contains("Ready") {
            true => Ok(()),
            false => Err(format!("{info:?}, {node:?}")),
        }
    });
    assert_eq!(names(&cluster, port), before, "no task was restarted");
}

#[test]
fn what_would_cost_the_quorum_is_refused() {
    let cluster = Cluster::new(3);
    cluster.init(0);
    cluster.refused(
        0,
        &["node", "demote", "host1"],
        "Error: attempting to demote the last manager of the swarm",
    );
    cluster.join(1, "manager");
    cluster.join(2, "manager");
    cluster.kill_daemon(2);
    let refused = || cluster.run(0, &["node", "demote", "host2"]);
    wait_until("the loss of host3 is noticed", || {
        let refused = refused();
        match refused
            .stderr
            .contains("this would result in a loss of quorum")
        {
            true => Ok(()),
            false => Err(format!("{refused:?}")),
        }
    });
    let listed = cluster.ok(0, &["node", "ls"]).stdout;
    assert!(listed.contains("host2"), "{listed}");
    // The one that is away may go.
    cluster.ok(0, &["node", "update", "--role=worker", "host3"]);
    wait_for_managers(&cluster, 0, &["host1", "host2"]);
}
