//! Updates of services on loopback clusters, under a load that counts every error.

// Helpers of tests are no tests by clippy's rules; a panic here is a failed test all the same.
#![allow(clippy::unwrap_used)]

// Shared with the other loopback tests, which use the rest of it.
#[allow(dead_code)]
#[path = "loopback/cluster.rs"]
mod cluster;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cluster::{Cluster, free_port, wait_until};

/// Requests of each client at least, however little time the work takes.
const REQUESTS: usize = 120;

/// By when they are sent on any machine.
const REQUESTS_SENT: Duration = Duration::from_secs(60);

/// What a load came to.
#[derive(Default)]
struct Load {
    requests: usize,
    errors: Vec<String>,
    time: Duration,
}

/// Sends requests to every node, each on a connection of its own, for as long as `work` takes.
/// A refused or reset connection and an answer without a name are errors.
fn under_load<T>(cluster: &Cluster, port: u16, work: impl FnOnce() -> T) -> (T, Load) {
    let stop = AtomicBool::new(false);
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..cluster.len())
            .map(|node| {
                let stop = &stop;
                scope.spawn(move || {
                    let (mut requests, mut errors) = (0, Vec::new());
                    while !stop.load(Ordering::Relaxed)
                        || (requests < REQUESTS && begin.elapsed() < REQUESTS_SENT)
                    {
                        requests += 1;
                        match cluster.ask(node, port) {
                            Ok(name) if !name.is_empty() => {}
                            Ok(_) => errors.push(format!("node {node}: a short answer")),
                            Err(error) => errors.push(format!("node {node}: {error}")),
                        }
                    }
                    (requests, errors)
                })
            })
            .collect();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        stop.store(true, Ordering::Relaxed);
        let mut load = Load::default();
        for client in clients {
            let (requests, errors) = client.join().unwrap();
            load.requests += requests;
            load.errors.extend(errors);
        }
        load.time = begin.elapsed();
        match result {
            Ok(result) => (result, load),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

#[track_caller]
fn no_error(what: &str, load: &Load) {
    let rate = load.requests as f64 / load.time.as_secs_f64();
    eprintln!("{what}: {} requests, {rate:.0} a second", load.requests);
    assert!(load.requests >= REQUESTS, "{what}: there was no load");
    assert!(load.errors.is_empty(), "{what}: {:?}", load.errors);
}

/// Tasks that are to run, one line each.
fn running(cluster: &Cluster) -> Vec<String> {
    let line = ["service", "ps", "-q", "-f", "desired-state=running", "ng"];
    let output = cluster.ok(0, &line).stdout;
    output.lines().map(str::to_owned).collect()
}

#[test]
fn updates_and_rollbacks_lose_no_connection() {
    let cluster = Cluster::with_workers(2);
    let port = free_port();
    let publish = format!("{port}:80");
    let create = [
        "service",
        "create",
        "--name",
        "ng",
        "--replicas=5",
        "-p",
        &publish,
        "--update-parallelism=2",
        "--update-monitor=1s",
        "--rollback-monitor=1s",
        "whoami",
    ];
    cluster.ok(0, &create);
    for node in 0..3 {
        wait_until("every node answers", || cluster.ask(node, port).map(drop));
    }
    let first = running(&cluster);
    assert_eq!(first.len(), 5);

    let update = ["service", "update", "--env-add=VERSION=2", "ng"];
    let (updated, load) = under_load(&cluster, port, || cluster.ok(0, &update));
    no_error("update", &load);
    assert_eq!(updated.stdout, "ng\n");
    assert!(
        updated
            .stderr
            .contains("overall progress: 5 out of 5 tasks"),
        "{updated:?}"
    );
    assert!(
        updated.stderr.ends_with("verify: Service ng converged\n"),
        "{updated:?}"
    );
    let second = running(&cluster);
    assert_eq!(second.len(), 5);
    assert!(
        second.iter().all(|task| !first.contains(task)),
        "{first:?} {second:?}"
    );
    let pretty = cluster
        .ok(0, &["service", "inspect", "--pretty", "ng"])
        .stdout;
    assert!(pretty.contains("State:             completed"), "{pretty}");

    let start_first = [
        "service",
        "update",
        "--force",
        "--update-order=start-first",
        "ng",
    ];
    let (_, load) = under_load(&cluster, port, || cluster.ok(0, &start_first));
    no_error("start-first update", &load);
    let percents = [
        "service",
        "update",
        "--force",
        "--update-min-healthy-percent=60",
        "--update-max-percent=140",
        "ng",
    ];
    let (_, load) = under_load(&cluster, port, || cluster.ok(0, &percents));
    no_error("update within percentages", &load);
    let (back, load) = under_load(&cluster, port, || {
        cluster.ok(0, &["service", "rollback", "ng"])
    });
    no_error("rollback", &load);
    assert!(
        back.stderr
            .contains("rollback: manually requested rollback"),
        "{back:?}"
    );
}

#[test]
fn a_bad_image_pauses_and_a_rollback_restores() {
    let cluster = Cluster::new(1);
    let port = free_port();
    cluster.init(0);
    let publish = format!("{port}:80");
    let create = [
        "service",
        "create",
        "--name",
        "ng",
        "--replicas=5",
        "-p",
        &publish,
        "--rollback-monitor=1s",
        "whoami",
    ];
    cluster.ok(0, &create);
    let before = running(&cluster);
    let work = || cluster.run(0, &["service", "update", "--image=/nowhere/ghost", "ng"]);
    let (bad, load) = under_load(&cluster, port, work);
    no_error("bad image", &load);
    assert_eq!(bad.code, Some(1), "{bad:?}");
    let expected =
        "Error: service update paused: update paused due to failure or early termination of task ";
    assert!(bad.stderr.contains(expected), "{bad:?}");
    wait_until("what was there still runs", || {
        let now = running(&cluster);
        if now == before {
            Ok(())
        } else {
            Err(format!("{before:?} {now:?}"))
        }
    });
    let again = cluster.run(0, &["service", "update", "ng"]);
    assert_eq!(again.code, Some(1), "it is tried anew: {again:?}");
    assert!(again.stderr.contains(expected), "{again:?}");
    assert_eq!(running(&cluster), before);
    let stale = cluster.fails(
        0,
        1,
        &[
            "service",
            "update",
            "--check-version=1",
            "--image=whoami",
            "ng",
        ],
    );
    assert!(stale.contains("update out of sequence"), "{stale}");
    let mixed = cluster.fails(
        0,
        1,
        &["service", "update", "--rollback", "--image=x", "ng"],
    );
    assert!(
        mixed.contains("may not be combined with --rollback"),
        "{mixed}"
    );
    cluster.ok(0, &["service", "update", "--rollback", "ng"]);
    assert_eq!(
        running(&cluster),
        before,
        "they were of the right version all along"
    );
    let list = cluster.ok(0, &["service", "ls"]).stdout;
    assert!(list.contains("5/5        whoami"), "{list}");
    let none = cluster.fails(0, 1, &["service", "rollback", "ng"]);
    assert!(
        none.contains("service ng does not have a previous spec"),
        "{none}"
    );

    let rolling = [
        "service",
        "update",
        "--update-failure-action=rollback",
        "--image=/nowhere/ghost",
        "ng",
    ];
    let rolled = cluster.run(0, &rolling);
    assert_eq!(rolled.code, Some(1), "{rolled:?}");
    assert!(
        rolled
            .stderr
            .contains("Error: service rolled back: rollback completed"),
        "{rolled:?}"
    );
    assert_eq!(running(&cluster), before);
}
