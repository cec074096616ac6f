//! Checks that nodes run of their own tasks, on loopback clusters.

// Helpers of tests are no tests by clippy's rules; a panic here is a failed test all the same.
#![allow(clippy::unwrap_used)]

// Shared with the other loopback tests, which use the rest of it.
#[allow(dead_code)]
#[path = "loopback/cluster.rs"]
mod cluster;

use std::collections::BTreeSet;

use cluster::{Cluster, free_port, wait_until};

/// Two nodes with two tasks that are asked for their health.
fn served(action: &str) -> (Cluster, u16) {
    let cluster = Cluster::with_workers(1);
    let port = free_port();
    let publish = format!("{port}:80");
    let created = cluster.ok(
        0,
        &[
            "service",
            "create",
            "--name=ng",
            "--replicas=2",
            "-p",
            &publish,
            "--check-http=/health",
            "--check-interval=200ms",
            "--check-timeout=200ms",
            "--check-rise=1",
            "--check-fall=2",
            &format!("--unhealthy-action={action}"),
            "whoami",
        ],
    );
    assert!(created.stderr.contains("converged"), "{}", created.stderr);
    (cluster, port)
}

/// Who answers on a node, in a few requests.
fn answering(cluster: &Cluster, node: usize, port: u16) -> BTreeSet<String> {
    (0..6)
        .map(|_| cluster.ask(node, port).unwrap_or_else(|error| error))
        .collect()
}

fn wait_for_answers(cluster: &Cluster, port: u16, count: usize) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    wait_until(&format!("{count} tasks answer on every node"), || {
        names = answering(cluster, 0, port);
        let other = answering(cluster, 1, port);
        match names.len() == count && other == names {
            true => Ok(()),
            false => Err(format!("{names:?}, {other:?}")),
        }
    });
    names
}

#[test]
fn an_ejected_task_comes_back_without_a_restart() {
    let (cluster, port) = served("eject");
    let both = wait_for_answers(&cluster, port, 2);
    cluster.get(0, port, "/health?set=503&ms=3000");
    let rest = wait_for_answers(&cluster, port, 1);
    assert!(rest.is_subset(&both));
    wait_until("service ps says why", || {
        let ps = cluster.ok(0, &["service", "ps", "--no-trunc", "ng"]).stdout;
        let told = "unhealthy container: check http /health: status 503";
        match ps.contains(told) && !ps.contains("Failed") {
            true => Ok(()),
            false => Err(ps),
        }
    });
    assert_eq!(
        wait_for_answers(&cluster, port, 2),
        both,
        "nothing was restarted"
    );
}

#[test]
fn a_task_that_accepts_and_never_answers_is_replaced() {
    let (cluster, port) = served("restart");
    let both = wait_for_answers(&cluster, port, 2);
    cluster.get(0, port, "/health?set=0");
    wait_until("another task has taken its place", || {
        let now = answering(&cluster, 0, port);
        match now.len() == 2 && now != both {
            true => Ok(()),
            false => Err(format!("{now:?}")),
        }
    });
    let ps = cluster.ok(0, &["service", "ps", "--no-trunc", "ng"]).stdout;
    let told = "unhealthy container: check http /health: no answer within 200ms";
    assert!(ps.contains(told), "{ps}");
}

#[test]
fn an_update_to_what_is_never_healthy_fails_and_loses_nothing() {
    let (cluster, port) = served("restart");
    let both = wait_for_answers(&cluster, port, 2);
    let updated = cluster.run(
        0,
        &[
            "service",
            "update",
            "--check-http=/status?code=500",
            "--check-start-period=0s",
            "ng",
        ],
    );
    assert_ne!(updated.code, Some(0), "{updated:?}");
    assert!(updated.stderr.contains("update paused"), "{updated:?}");
    let rest = answering(&cluster, 0, port);
    assert!(
        rest.len() == 1 && rest.is_subset(&both),
        "{rest:?}, {both:?}"
    );

    // What has time to become healthy says why it is not.
    let slow = "service create --detach --name=slow -p 80 --check-http=/status?code=501 whoami";
    cluster.ok(0, &slow.split(' ').collect::<Vec<_>>());
    wait_until("service ps says why it is starting", || {
        let ps = cluster
            .ok(0, &["service", "ps", "--no-trunc", "slow"])
            .stdout;
        let told = "\"not healthy yet: check http /status?code=501: status 501\"";
        match ps.contains(told) && ps.contains("Starting") {
            true => Ok(()),
            false => Err(ps),
        }
    });
}
