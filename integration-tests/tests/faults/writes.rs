//! Managers die while they write.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use swarmlet_integration_tests::{
    Signal,
    measured::{at_most, noted, within},
    wait_until,
};

use crate::{
    cluster::{Cluster, LATER},
    history::{History, all_ready, replicas_agree},
    probe::{load, no_errors, nothing_restarted},
};

/// Writes that are under way at once.
const WRITES: usize = 200;

/// Writes that a killed follower misses at most.
const MISSED: usize = 60;

/// How long it is away: its node's tasks are not given up meanwhile.
const AWAY: Duration = Duration::from_secs(2);

/// All managers die once so many have been acknowledged.
const UNTIL: usize = 60;

#[test]
fn all_managers_killed_during_200_writes_lose_no_acknowledged_one() {
    let cluster = Cluster::start(3).unwrap();
    let supervisors: Vec<_> = cluster
        .hosts
        .iter()
        .map(|host| (host, host.supervisor().unwrap(), host.daemon().unwrap()))
        .collect();
    let history = History::new("w");
    let (done, killed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let hosts: Vec<_> = cluster.hosts.iter().collect();
    thread::scope(|scope| {
        for number in 0..WRITES {
            let (history, done, killed) = (&history, &done, &killed);
            let host = hosts[number % 3];
            // One after the other, so that as many are under way whenever the managers die.
            scope.spawn(move || {
                while !killed.load(Ordering::Relaxed)
                    && history.write(host).unwrap().code == Some(0)
                {
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let enough = wait_until(LATER, "enough acknowledged writes", || {
            Ok((done.load(Ordering::Relaxed) >= UNTIL).then_some(()))
        });
        for (host, supervisor, _) in &supervisors {
            host.signal(*supervisor, Signal::KILL).unwrap();
        }
        for (host, _, daemon) in &supervisors {
            host.signal(*daemon, Signal::KILL).unwrap();
        }
        killed.store(true, Ordering::Relaxed);
        enough.unwrap();
    });
    let (acknowledged, unknown) = history.counts();
    noted(
        "writes acknowledged, and cut off by the kill",
        &format!("{acknowledged}, {unknown}"),
    );
    // Otherwise they died before or after the writes, and not during them.
    assert!(
        acknowledged >= UNTIL && unknown >= 20,
        "{acknowledged}, {unknown}"
    );

    let started = Instant::now();
    for host in &hosts {
        cluster.start_daemon(host).unwrap();
    }
    let back = history.back(hosts[0], started).unwrap();
    within(
        "writes again after all three were started",
        back,
        Duration::from_secs(30),
    );
    history.check(hosts[1]).unwrap();
    replicas_agree(&cluster).unwrap();
}

#[test]
fn a_follower_that_was_killed_is_not_missed_and_catches_up() {
    let cluster = Cluster::serving(3, 6).unwrap();
    cluster.all_answer(80).unwrap();
    let before = cluster.started().unwrap();
    let term = replicas_agree(&cluster).unwrap();
    let running = load(&cluster, 80, 2).unwrap();
    let leader = cluster.leader(&cluster.hosts[0]).unwrap();
    let [leads, killed, other] = [0, 1, 2].map(|step| &cluster.hosts[(leader + step) % 3]);
    cluster.kill_daemon(killed).unwrap();
    let gone = Instant::now();
    let history = History::new("w");
    for number in 0..MISSED {
        let host = [leads, other][number % 2];
        history.write(host).unwrap().success().unwrap();
        if gone.elapsed() > AWAY {
            break;
        }
    }
    let (missed, _) = history.counts();
    noted("writes that the follower missed", &missed.to_string());
    cluster.start_daemon(killed).unwrap();
    let started = Instant::now();
    wait_until(LATER, "a copy of the state that answers", || {
        killed.swarmlet(&["info"])?.success().map(Some)
    })
    .unwrap();
    let now = replicas_agree(&cluster).unwrap();
    within(
        "a killed follower has everything that was written without it",
        started.elapsed(),
        Duration::from_secs(10),
    );
    at_most("growth of the term", now - term, 2);
    history.check(killed).unwrap();
    all_ready(&cluster).unwrap();
    no_errors("a follower killed", &running.stop().unwrap(), 0);
    nothing_restarted(&cluster, &before);
}
