//! Placement, dry runs and rebalancing on loopback clusters.

// Helpers of tests are no tests by clippy's rules; a panic here is a failed test all the same.
#![allow(clippy::unwrap_used)]

// Shared with the other loopback tests, which use the rest of it.
#[allow(dead_code)]
#[path = "loopback/cluster.rs"]
mod cluster;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use cluster::{Cluster, free_port, wait_until};

/// Running tasks by host.
fn spread(cluster: &Cluster, service: &str) -> BTreeMap<String, usize> {
    let line = [
        "service",
        "ps",
        "--format=json",
        "-f",
        "desired-state=running",
        service,
    ];
    let mut counts = BTreeMap::new();
    for line in cluster.ok(0, &line).stdout.lines() {
        let task: serde_json::Value = serde_json::from_str(line).unwrap();
        let node = task["Node"].as_str().unwrap().to_owned();
        *counts.entry(node).or_insert(0) += 1;
    }
    counts
}

fn counts(expected: &[(&str, usize)]) -> BTreeMap<String, usize> {
    let owned = expected
        .iter()
        .map(|&(host, count)| (host.to_owned(), count));
    owned.collect()
}

/// The steps of a plan without what is left to chance.
fn plan(cluster: &Cluster, code: i32, line: &[&str]) -> Vec<(String, String)> {
    let line = [line, &["--dry-run", "--format=json"]].concat();
    let output = cluster.run(0, &line);
    assert_eq!(output.code, Some(code), "{line:?}: {output:?}");
    read(&output.stdout)
}

fn read(plan: &str) -> Vec<(String, String)> {
    let step = |line: &str| {
        let step: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| step[key].as_str().unwrap_or_default().to_owned();
        (text("Action"), format!("{} {}", text("Kind"), text("Name")))
    };
    plan.lines().map(step).collect()
}

fn steps(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |&(action, object): &(&str, &str)| (action.to_owned(), object.to_owned());
    expected.iter().map(owned).collect()
}

#[test]
fn tasks_go_where_they_are_asked_to() {
    let cluster = Cluster::with_workers(2);
    for (host, zone) in [("host1", "a"), ("host2", "a"), ("host3", "b")] {
        let label = format!("zone={zone}");
        cluster.ok(0, &["node", "update", "--label-add", &label, host]);
    }
    let create = |args: &[&str]| {
        // Several on one node: whoami would want the same port.
        let line = [&["service", "create", "-d"], args, &["/bin/sleep", "600"]].concat();
        cluster.ok(0, &line);
    };
    create(&[
        "--name=zoned",
        "--replicas=4",
        "--placement-pref=spread=node.labels.zone",
    ]);
    create(&["--name=single", "--replicas=4", "--replicas-max-per-node=1"]);
    create(&["--name=gpu", "--generic-resource=gpu=1"]);
    create(&["--name=arm", "--platform=linux/s390x"]);
    let expected = counts(&[("host1", 1), ("host2", 1), ("host3", 2)]);
    wait_until("zones are even", || {
        let found = spread(&cluster, "zoned");
        if found == expected {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    });
    for (service, reason) in [
        (
            "single",
            "no suitable node (max replicas per node limit exceed on 3 nodes)",
        ),
        (
            "gpu",
            "no suitable node (insufficient resources on 3 nodes)",
        ),
        ("arm", "no suitable node (unsupported platform on 3 nodes)"),
    ] {
        wait_until(reason, || {
            let text = cluster
                .ok(0, &["service", "ps", "--no-trunc", service])
                .stdout;
            if text.contains(reason) {
                Ok(())
            } else {
                Err(text)
            }
        });
    }
    let pretty = cluster
        .ok(0, &["service", "inspect", "--pretty", "zoned"])
        .stdout;
    assert!(
        pretty.contains(" Preferences:       spread=node.labels.zone\n"),
        "{pretty}"
    );
    let again = [
        "service",
        "update",
        "-d",
        "--replicas-max-per-node=0",
        "single",
    ];
    cluster.ok(0, &again);
    wait_until("without the limit all run", || {
        let found = spread(&cluster, "single");
        let total: usize = found.values().sum();
        if total == 4 && !found.contains_key("") {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    });
}

#[test]
fn a_dry_run_tells_and_changes_nothing() {
    let cluster = Cluster::with_workers(1);
    let create = [
        "service",
        "create",
        "--name=ng",
        "--replicas=2",
        "/bin/sleep",
        "600",
    ];
    let created = steps(&[
        ("create", "service ng"),
        ("create", "task ng.1"),
        ("create", "task ng.2"),
    ]);
    let dry = [
        "service",
        "create",
        "--dry-run",
        "--format=json",
        "--name=ng",
        "--replicas=2",
        "/bin/sleep",
        "600",
    ];
    let output = cluster.run(0, &dry);
    assert_eq!(output.code, Some(1), "{output:?}");
    assert_eq!(read(&output.stdout), created);
    assert!(
        output
            .stderr
            .ends_with("This is a plan. Nothing was changed.\n"),
        "{output:?}"
    );
    assert_eq!(cluster.ok(0, &["service", "ls", "-q"]).stdout, "");

    cluster.ok(0, &create);
    assert_eq!(plan(&cluster, 0, &["service", "scale", "ng=2"]), []);
    assert_eq!(
        plan(&cluster, 1, &["service", "scale", "ng=1"]),
        steps(&[("update", "service ng"), ("stop", "task ng.2")])
    );
    assert_eq!(
        plan(&cluster, 1, &["service", "update", "--force", "ng"]),
        steps(&[
            ("update", "service ng"),
            ("replace", "task ng.1"),
            ("replace", "task ng.2"),
        ])
    );
    assert_eq!(plan(&cluster, 0, &["service", "rebalance", "ng"]), []);
    let drained = plan(
        &cluster,
        1,
        &["node", "update", "--availability=drain", "host2"],
    );
    assert_eq!(drained[0], ("update".to_owned(), "node host2".to_owned()));
    assert_eq!(drained.len(), 2, "{drained:?}");
    assert_eq!(drained[1].0, "move");
    let table = ["service", "update", "--dry-run", "--reserve-cpu=4000", "ng"];
    let output = cluster.run(0, &table);
    assert_eq!(output.code, Some(1), "{output:?}");
    let reason = "no suitable node (insufficient resources on 2 nodes)";
    assert!(output.stdout.starts_with("ACTION   OBJECT"), "{output:?}");
    // The update stops at the first task that finds no place.
    assert_eq!(output.stdout.matches(reason).count(), 1, "{output:?}");

    let unknown = cluster.run(0, &["service", "scale", "--dry-run", "nobody=1"]);
    assert_eq!(unknown.code, Some(255), "{unknown:?}");
    let twice = cluster.run(
        0,
        &["service", "create", "--dry-run", "--name=ng", "whoami"],
    );
    assert_eq!(twice.code, Some(255), "{twice:?}");
    let format = cluster.run(0, &["service", "scale", "--format=json", "ng=1"]);
    assert_eq!(format.code, Some(2), "{format:?}");
    assert_eq!(
        spread(&cluster, "ng"),
        counts(&[("host1", 1), ("host2", 1)]),
        "all is as before"
    );
}

#[test]
fn a_rebalance_moves_tasks_to_a_new_node_and_loses_no_connection() {
    let cluster = Cluster::new(3);
    let port = free_port();
    cluster.init(0);
    cluster.join(1, "worker");
    let publish = format!("{port}:80");
    let create = [
        "service",
        "create",
        "--name=ng",
        "--replicas=6",
        "-p",
        &publish,
        "whoami",
    ];
    cluster.ok(0, &create);
    cluster.join(2, "worker");
    for node in 0..3 {
        wait_until("every node answers", || cluster.ask(node, port).map(drop));
    }
    assert_eq!(
        spread(&cluster, "ng"),
        counts(&[("host1", 3), ("host2", 3)])
    );
    let planned = plan(&cluster, 1, &["service", "rebalance"]);
    assert_eq!(planned.len(), 2, "{planned:?}");
    assert!(
        planned.iter().all(|(action, _)| action == "move"),
        "{planned:?}"
    );

    let stop = AtomicBool::new(false);
    let (output, requests) = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut answers = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                answers.push(cluster.ask(answers.len() % 3, port));
            }
            answers
        });
        let output = cluster.run(0, &["service", "rebalance"]);
        stop.store(true, Ordering::Relaxed);
        (output, client.join().unwrap())
    });
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(
        output.stdout.starts_with("ng: 2 tasks to move\n"),
        "{output:?}"
    );
    // A task that moves runs until the other one does.
    let mut progress = output.stderr.lines();
    let fewer = progress.find(|l| l.starts_with("overall") && !l.contains("6 out of 6 tasks"));
    assert_eq!(fewer, None, "{output:?}");
    let failed: Vec<_> = requests
        .iter()
        .filter(|r| !r.as_ref().is_ok_and(|name| !name.is_empty()))
        .collect();
    eprintln!("{} requests during the rebalance", requests.len());
    assert!(requests.len() > 100, "there was no load");
    assert!(failed.is_empty(), "{failed:?}");
    let even = counts(&[("host1", 2), ("host2", 2), ("host3", 2)]);
    assert_eq!(spread(&cluster, "ng"), even);
    let again = cluster.ok(0, &["service", "rebalance", "ng"]);
    assert_eq!(again.stdout, "ng is balanced\n");
    assert_eq!(spread(&cluster, "ng"), even);
}
