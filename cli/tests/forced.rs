//! `init --force-new-cluster`, and nodes that their swarm has gone on without, on a loopback
//! cluster.

// Helpers of tests are no tests by clippy's rules; a panic here is a failed test all the same.
#![allow(clippy::unwrap_used)]

// Shared with the other loopback tests, which use the rest of it.
#[allow(dead_code)]
#[path = "loopback/cluster.rs"]
mod cluster;

use std::collections::BTreeMap;

use cluster::{Cluster, free_port, wait_until};

type Rows = Vec<serde_json::Value>;

fn rows(cluster: &Cluster, args: &[&str]) -> Result<Rows, String> {
    let listed = cluster.run(0, args);
    if listed.code != Some(0) {
        return Err(format!("{listed:?}"));
    }
    let lines = listed.stdout.lines();
    Ok(lines.map(|l| serde_json::from_str(l).unwrap()).collect())
}

/// Status and manager status of each host, by what the first one says.
fn nodes(cluster: &Cluster) -> Result<BTreeMap<String, String>, String> {
    let rows = rows(cluster, &["node", "ls", "--format=json"])?;
    let text = |row: &serde_json::Value, key: &str| row[key].as_str().unwrap().to_owned();
    Ok(rows
        .iter()
        .map(|row| {
            let status = format!("{} {}", text(row, "Status"), text(row, "ManagerStatus"));
            (text(row, "Hostname"), status.trim().to_owned())
        })
        .collect())
}

#[track_caller]
fn wait_for_nodes(cluster: &Cluster, expected: &[(&str, &str)]) {
    wait_until("the nodes are as expected", || {
        let found = nodes(cluster)?;
        let as_expected = expected
            .iter()
            .all(|(host, status)| found.get(*host).map(String::as_str) == Some(*status));
        as_expected
            .then_some(())
            .ok_or_else(|| format!("{found:?}"))
    });
}

/// The tasks of `ng` that run on a host, by what the first one says.
fn running(cluster: &Cluster, host: &str) -> Vec<String> {
    let rows = rows(cluster, &["service", "ps", "ng", "--format=json"]).unwrap();
    let runs = |row: &&serde_json::Value| {
        row["Node"] == host && row["CurrentState"].as_str().unwrap().starts_with("Running")
    };
    let ids = rows.iter().filter(runs);
    let mut ids: Vec<String> = ids
        .map(|row| row["ID"].as_str().unwrap().to_owned())
        .collect();
    ids.sort();
    ids
}

/// Waits until the node itself says on its page, to commands and to `doctor` that it is none of
/// the swarm's any more, and what to do.
#[track_caller]
fn says_that_it_is_out(cluster: &Cluster, node: usize, why: &str) {
    wait_until("the daemon answers", || {
        let info = cluster.run(node, &["info"]);
        (info.code == Some(0))
            .then_some(())
            .ok_or_else(|| format!("{info:?}"))
    });
    wait_until("the health page says so", || {
        let page = cluster.page(node, "/healthz");
        let told = page.starts_with("HTTP/1.0 503")
            && page.contains(why)
            && page.contains("`swarmlet leave --force`");
        told.then_some(()).ok_or(page)
    });
    let refused = cluster.fails(node, 1, &["node", "ls"]);
    assert!(refused.contains(why), "{refused}");
    let doctor = cluster.run(node, &["doctor"]);
    assert_eq!(doctor.code, Some(1), "{doctor:?}");
    assert!(doctor.stdout.contains(why), "{doctor:?}");
    assert!(
        doctor.stdout.contains("-> run `swarmlet leave --force`"),
        "{doctor:?}"
    );
    assert!(!doctor.stdout.contains("TCP 2377 is open"), "{doctor:?}");
}

/// Behaviour check 10 of Docker Swarm: services are kept, and there is one manager.
#[test]
fn a_manager_goes_on_without_the_others_which_are_refused_until_they_join_again() {
    let cluster = Cluster::new(4);
    cluster.init(0);
    for (node, role) in [(1, "manager"), (2, "manager"), (3, "worker")] {
        cluster.join(node, role);
    }
    let publish = format!("{}:80", free_port());
    let line = ["service", "create", "--name=ng", "--replicas=4"];
    cluster.ok(0, &[&line[..], &["-p", &publish, "whoami"]].concat());
    let kept = ["host1", "host4"].map(|host| running(&cluster, host));
    assert_eq!(kept.clone().map(|ids| ids.len()), [1, 1]);

    let force = ["init", "--force-new-cluster"];
    let refused = cluster.fails(0, 1, &force);
    assert!(refused.contains("the swarm has a leader"), "{refused}");
    let refused = cluster.fails(3, 1, &force);
    assert!(refused.contains("This node is a worker"), "{refused}");

    cluster.kill_daemon(1);
    cluster.kill_daemon(2);
    let forced = cluster.ok(0, &force);
    assert!(
        forced.stdout.contains("is now its only manager"),
        "{forced:?}"
    );
    assert!(
        forced.stdout.contains("Left behind: host2, host3."),
        "{forced:?}"
    );
    let alone = [
        ("host1", "Ready Leader"),
        ("host2", "Down"),
        ("host3", "Down"),
        ("host4", "Ready"),
    ];
    wait_for_nodes(&cluster, &alone);
    cluster.ok(0, &["service", "scale", "ng=5"]);
    for (host, before) in ["host1", "host4"].iter().zip(&kept) {
        let after = running(&cluster, host);
        assert!(
            before.iter().all(|id| after.contains(id)),
            "{host}: {after:?}"
        );
    }
    let refused = cluster.fails(0, 1, &force);
    assert!(refused.contains("only manager of its swarm"), "{refused}");

    // A majority of the old managers comes back.
    let _back = [1, 2].map(|node| cluster.start_daemon(node));
    for node in [1, 2] {
        says_that_it_is_out(&cluster, node, "went on without");
    }
    wait_for_nodes(&cluster, &alone);
    cluster.ok(0, &["service", "scale", "ng=4"]);
    let refused = cluster.fails(1, 1, &force);
    assert!(
        refused.contains("went on without this manager"),
        "{refused}"
    );

    cluster.ok(1, &["leave", "--force"]);
    cluster.ok(0, &["node", "rm", "host2"]);
    cluster.join(1, "manager");
    wait_for_nodes(
        &cluster,
        &[("host1", "Ready Leader"), ("host2", "Ready Reachable")],
    );

    // A node that was removed, and has not noticed.
    cluster.ok(0, &["node", "rm", "--force", "host4"]);
    wait_until("the worker says that it was removed", || {
        let page = cluster.page(3, "/healthz");
        let told = page.starts_with("HTTP/1.0 503") && page.contains("it was removed");
        told.then_some(()).ok_or(page)
    });
    says_that_it_is_out(&cluster, 3, "it was removed");
    cluster.ok(3, &["leave", "--force"]);
    cluster.join(3, "worker");
    wait_for_nodes(&cluster, &[("host4", "Ready")]);
}
