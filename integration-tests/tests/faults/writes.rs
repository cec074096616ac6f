//! Managers die while they write.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use swarmlet_integration_tests::{
    Signal,
    measured::{noted, within},
    wait_until,
};

use crate::{
    cluster::{Cluster, LATER},
    history::{History, replicas_agree},
};

/// Writes that are begun at once.
const WRITES: usize = 200;

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
    let done = AtomicUsize::new(0);
    let hosts: Vec<_> = cluster.hosts.iter().collect();
    thread::scope(|scope| {
        for number in 0..WRITES {
            let (history, done, host) = (&history, &done, hosts[number % 3]);
            scope.spawn(move || {
                let written = history.write(host).unwrap();
                if written.code == Some(0) {
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        wait_until(LATER, "enough acknowledged writes", || {
            Ok((done.load(Ordering::Relaxed) >= UNTIL).then_some(()))
        })
        .unwrap();
        for (host, supervisor, _) in &supervisors {
            host.signal(*supervisor, Signal::KILL).unwrap();
        }
        for (host, _, daemon) in &supervisors {
            host.signal(*daemon, Signal::KILL).unwrap();
        }
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
