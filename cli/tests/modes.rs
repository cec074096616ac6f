//! Global services and jobs on loopback clusters, as a user meets them.

// Helpers of tests are no tests by clippy's rules; a panic here is a failed test all the same.
#![allow(clippy::unwrap_used)]

// Shared with the other loopback tests, which use the rest of it.
#[allow(dead_code)]
#[path = "loopback/cluster.rs"]
mod cluster;

use cluster::{Cluster, free_port, wait_until};

/// Waits until `service ls` shows a service so.
#[track_caller]
fn listed(cluster: &Cluster, name: &str, parts: &[&str]) {
    wait_until(&format!("{name}: {parts:?}"), || {
        let list = cluster.ok(0, &["service", "ls"]).stdout;
        let line = list.lines().find(|line| line.contains(name));
        let line = line.ok_or_else(|| format!("no {name} in {list}"))?;
        if parts.iter().all(|part| line.contains(part)) {
            Ok(())
        } else {
            Err(line.to_owned())
        }
    });
}

/// What `service ps` shows, one text for each task.
fn tasks(cluster: &Cluster, name: &str) -> Vec<String> {
    let output = cluster.ok(0, &["service", "ps", "--no-trunc", name]).stdout;
    output.lines().skip(1).map(str::to_owned).collect()
}

#[test]
fn a_global_service_follows_the_nodes() {
    let cluster = Cluster::new(3);
    let port = free_port();
    cluster.init(0);
    cluster.join(1, "worker");
    let publish = format!("{port}:80");
    let created = cluster.ok(
        0,
        &[
            "service", "create", "--name", "all", "--mode", "global", "-p", &publish, "whoami",
        ],
    );
    assert!(
        created
            .stderr
            .contains("overall progress: 2 out of 2 tasks"),
        "{created:?}"
    );
    listed(&cluster, "all", &["global   ", "2/2"]);
    cluster.join(2, "worker");
    listed(&cluster, "all", &["3/3"]);
    wait_until("the node that joined answers", || {
        cluster.ask(2, port).map(drop)
    });
    let nodes = cluster.ok(0, &["node", "ls", "-q"]).stdout;
    let names: Vec<String> = nodes.lines().map(|id| format!(" all.{id} ")).collect();
    let shown = tasks(&cluster, "all");
    assert_eq!(shown.len(), 3, "{shown:?}");
    for name in &names {
        let found = shown.iter().any(|line| line.contains(name.as_str()));
        assert!(found, "{name} in {shown:?}");
    }

    let refusal = "scale can only be used with replicated or replicated-job mode";
    let scaled = cluster.fails(0, 1, &["service", "scale", "all=2"]);
    assert!(scaled.ends_with(&format!("all: {refusal}")), "{scaled}");
    cluster.refused(
        0,
        &["service", "update", "--replicas=2", "all"],
        "Error: replicas can only be used with replicated or replicated-job mode",
    );

    let availability = |to: &str| {
        let set = ["node", "update", "--availability", to, "host3"];
        cluster.ok(0, &set);
    };
    availability("drain");
    listed(&cluster, "all", &["2/2"]);
    availability("active");
    listed(&cluster, "all", &["3/3"]);
    // An update passes by the node that is paused, and comes to it later.
    availability("pause");
    let updated = cluster.ok(
        0,
        &[
            "service",
            "update",
            "--env-add=A=1",
            "--update-monitor=0s",
            "all",
        ],
    );
    assert!(
        updated.stderr.ends_with("verify: Service all converged\n"),
        "{updated:?}"
    );
    availability("active");
    wait_until("the node catches up", || {
        let ended = tasks(&cluster, "all");
        let old = ended.iter().filter(|line| line.contains("Shutdown"));
        match old.count() {
            3 => Ok(()),
            _ => Err(format!("{ended:?}")),
        }
    });

    cluster.ok(0, &["node", "update", "--label-add=zone=a", "host2"]);
    let narrow = [
        "service",
        "update",
        "--constraint-add=node.labels.zone==a",
        "all",
    ];
    cluster.ok(0, &narrow);
    listed(&cluster, "all", &["1/1"]);
    cluster.ok(0, &["node", "update", "--label-add=zone=a", "host1"]);
    listed(&cluster, "all", &["2/2"]);
    cluster.ok(0, &["node", "update", "--label-rm=zone", "host2"]);
    listed(&cluster, "all", &["1/1"]);
}

#[test]
fn jobs_run_to_completion() {
    let cluster = Cluster::new(1);
    cluster.init(0);
    let created = cluster.ok(
        0,
        &[
            "service",
            "create",
            "--name",
            "job",
            "--mode",
            "replicated-job",
            "--replicas=4",
            "--max-concurrent=2",
            "/bin/sh",
            "-c",
            "sleep 0.3",
        ],
    );
    assert!(
        created
            .stderr
            .ends_with("job progress: 4 out of 4 complete\njob complete\n"),
        "{created:?}"
    );
    listed(&cluster, "job", &["replicated job   0/2 (4/4 completed)"]);
    let first = tasks(&cluster, "job");
    assert_eq!(first.len(), 4, "{first:?}");
    assert!(
        first.iter().all(|line| line.contains("Complete ")),
        "{first:?}"
    );

    cluster.ok(0, &["service", "update", "--force", "job"]);
    listed(&cluster, "job", &["(4/4 completed)"]);
    let second = tasks(&cluster, "job");
    assert_eq!(
        second.len(),
        8,
        "a second run, and what is left of the first: {second:?}"
    );
    cluster.ok(0, &["service", "scale", "job=5"]);
    listed(&cluster, "job", &["(5/5 completed)"]);
    let none = cluster.fails(0, 1, &["service", "rollback", "job"]);
    assert!(
        none.contains("service job does not have a previous spec"),
        "{none}"
    );
    cluster.ok(
        0,
        &[
            "service",
            "create",
            "--mode=global-job",
            "--name=once",
            "/bin/true",
        ],
    );
    listed(&cluster, "once", &["global job", "0/0 (1/1 completed)"]);
}

#[test]
fn a_job_that_cannot_complete_says_so() {
    let cluster = Cluster::new(1);
    cluster.init(0);
    let create = [
        "service",
        "create",
        "--mode=replicated-job",
        "--name=bad",
        "--restart-condition=none",
        "/bin/false",
    ];
    let failed = cluster.run(0, &create);
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(
        failed
            .stderr
            .contains("Error: job bad failed: 1 of 1 tasks were given up: "),
        "{failed:?}"
    );
    // Three attempts after the first one, and no more.
    let create = [
        "service",
        "create",
        "--mode=replicated-job",
        "--name=thrice",
        "--restart-max-attempts=3",
        "/bin/false",
    ];
    let failed = cluster.run(0, &create);
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert_eq!(tasks(&cluster, "thrice").len(), 4);
    for (flags, expected) in [
        (
            "--restart-condition=any",
            "Error: restart condition any is not supported for jobs: a task that has completed \
             is not started again; use on-failure or none",
        ),
        (
            "--update-parallelism=2",
            "Error: update and rollback configuration is not supported for jobs",
        ),
    ] {
        let create = ["service", "create", "--mode=global-job", flags, "/bin/true"];
        cluster.refused(0, &create, expected);
    }
}
