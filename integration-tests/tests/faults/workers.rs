//! Workers are cut off, from each other and from their manager, one way and both.

use std::{
    thread,
    time::{Duration, Instant},
};

use swarmlet_integration_tests::{
    measured::{at_most, within},
    wait_until,
};

use crate::{
    cluster::{Cluster, LATER, at},
    history::all_ready,
    networks::{Way, check_tasks, cut, heal},
    probe::{load, load_at, no_errors, nothing_restarted},
};

/// Clients that ask all hosts in turn.
const CLIENTS: usize = 2;

/// Longer than the time after which a silent node is given up.
const LONG: Duration = Duration::from_secs(9);

/// Shorter than that, as a pause that restarts nothing.
const SHORT: Duration = Duration::from_secs(5);

/// Behaviour: who is cut off from another worker, or for a moment from the manager, in one
/// direction or both, keeps its containers, and clients of every host are served.
#[test]
fn workers_that_do_not_reach_each_other_or_the_manager_for_a_moment_keep_everything() {
    let cluster = Cluster::serving(1, 6).unwrap();
    cluster.all_answer(80).unwrap();
    let before = cluster.started().unwrap();
    let cuts = [
        ("a worker from a worker, both ways", (1, 2), Way::Both, LONG),
        ("a worker from a worker, one way", (1, 2), Way::There, LONG),
        ("the manager from a worker", (0, 1), Way::There, SHORT),
        ("a worker from the manager", (0, 1), Way::Back, SHORT),
    ];
    for (what, pair, way, lasting) in cuts {
        let running = load(&cluster, 80, CLIENTS).unwrap();
        cut(&cluster, pair, way).unwrap();
        thread::sleep(lasting);
        assert!(heal(&cluster).unwrap() > 0, "nothing was cut: {what}");
        let healed = Instant::now();
        all_ready(&cluster).unwrap();
        within(
            &format!("{what}: all are ready again"),
            healed.elapsed(),
            Duration::from_secs(30),
        );
        let report = running.stop().unwrap();
        // Of each client one request may be on its way over the cut.
        no_errors(what, &report, CLIENTS as u64);
        cluster.all_answer(80).unwrap();
        nothing_restarted(&cluster, &before);
    }
}

#[test]
fn a_worker_cut_off_from_its_manager_keeps_serving() {
    let cluster = Cluster::serving(1, 6).unwrap();
    cluster.all_answer(80).unwrap();
    let (manager, worker) = (&cluster.hosts[0], &cluster.hosts[1]);
    let own = cluster.containers().unwrap()[worker.name()].clone();
    assert!(!own.is_empty());
    let running = load_at(&cluster, vec![at(worker, 80)], CLIENTS).unwrap();
    cluster.hosts.cut(manager, worker).unwrap();
    // Its tasks are replaced elsewhere meanwhile, and run on all the same.
    thread::sleep(Duration::from_secs(12));
    let report = running.stop().unwrap();
    // Of each client one request may be on its way to the manager's host.
    no_errors(
        "the worker that was cut off, from before the cut on",
        &report,
        CLIENTS as u64,
    );
    let report = cluster.ask(worker, 80, 200).unwrap();
    no_errors("the worker that is cut off", &report, 0);
    let still = cluster.containers().unwrap()[worker.name()].clone();
    assert!(still.is_superset(&own), "{own:?} {still:?}");
    let all = cluster.names().unwrap().len() as u64;
    let twice = all.saturating_sub(6);
    at_most(
        "slots that run twice while it is cut off",
        twice,
        own.len() as u64,
    );
    assert!(heal(&cluster).unwrap() > 0, "nothing was cut");
    let healed = Instant::now();
    all_ready(&cluster).unwrap();
    wait_until(LATER, "one task to a slot", || {
        check_tasks(&cluster, 6).map(Some)
    })
    .unwrap();
    within(
        "no slot runs twice any more after the cut",
        healed.elapsed(),
        Duration::from_secs(15),
    );
    cluster.all_answer(80).unwrap();
}
