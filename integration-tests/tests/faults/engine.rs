//! The engine is killed or hangs: its tasks are unknown, and not lost.

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use swarmlet_integration_tests::{Signal, wait_until};

use crate::{
    alone::{all_from, two_services},
    cluster::{Cluster, LATER, SOON},
    probe::{load, nothing_restarted, watch, within},
};

/// How long nothing may be rescheduled because of an engine that is away.
const PATIENCE: Duration = Duration::from_secs(30);

/// Tasks of both services with their nodes, those of the past included.
fn placed(cluster: &Cluster) -> Result<BTreeSet<(String, String)>> {
    let mut placed = BTreeSet::new();
    for service in ["a", "b"] {
        let tasks = cluster.tasks(&cluster.hosts[0], service)?;
        placed.extend(tasks.into_iter().map(|task| (task.id, task.node)));
    }
    Ok(placed)
}

fn engine_is(cluster: &Cluster, host: &str, silent: bool) -> Result<Option<()>> {
    let nodes = cluster.nodes(&cluster.hosts[0])?;
    let version = &nodes[host]["EngineVersion"];
    ensure!((version == "unknown") == silent, "{version}");
    Ok(Some(()))
}

#[test]
fn an_engine_that_hangs_or_is_killed_costs_no_task_elsewhere() {
    let cluster = Cluster::start(1).unwrap();
    two_services(&cluster);
    for host in cluster.hosts.iter() {
        watch(&cluster, host, 12)
            .unwrap()
            .after(Instant::now())
            .unwrap();
    }
    let before = placed(&cluster).unwrap();
    let started = cluster.started().unwrap();
    let host = &cluster.hosts[1];

    // It hangs: containers go on, and so does everybody else.
    let (on_a, on_b) = (
        load(&cluster, 80, 1).unwrap(),
        load(&cluster, 81, 1).unwrap(),
    );
    let dockerd = host.engine().dockerd().unwrap();
    host.signal(dockerd, Signal::STOP).unwrap();
    let moment = Instant::now();
    wait_until(LATER, "an unknown runtime", || {
        engine_is(&cluster, host.name(), true)
    })
    .unwrap();
    within(
        "a hanging engine is shown",
        moment.elapsed(),
        Duration::from_secs(10),
    );
    let inspected = cluster
        .swarmlet(&["node", "inspect", "--pretty", host.name()])
        .unwrap();
    assert!(
        inspected.contains("unknown (the engine does not answer)"),
        "{inspected}"
    );
    thread::sleep(PATIENCE.saturating_sub(moment.elapsed()));
    assert_eq!(placed(&cluster).unwrap(), before, "tasks were rescheduled");
    host.signal(dockerd, Signal::CONT).unwrap();
    let moment = Instant::now();
    wait_until(SOON, "a runtime that answers", || {
        engine_is(&cluster, host.name(), false)
    })
    .unwrap();
    within(
        "known again after a hang",
        moment.elapsed(),
        Duration::from_secs(5),
    );
    for (report, service) in [(on_a.stop().unwrap(), "a"), (on_b.stop().unwrap(), "b")] {
        all_from(&report, service);
        assert_eq!(report.failed(), 0, "{}", report.to_json());
    }
    nothing_restarted(&cluster, &started);

    // It is killed, and when it comes back it ends the containers that it finds.
    let (on_a, on_b) = (
        load(&cluster, 80, 1).unwrap(),
        load(&cluster, 81, 1).unwrap(),
    );
    host.signal(dockerd, Signal::KILL).unwrap();
    let moment = Instant::now();
    wait_until(LATER, "an unknown runtime", || {
        engine_is(&cluster, host.name(), true)
    })
    .unwrap();
    within(
        "a dead engine is shown",
        moment.elapsed(),
        Duration::from_secs(10),
    );
    thread::sleep(PATIENCE.saturating_sub(moment.elapsed()));
    assert_eq!(placed(&cluster).unwrap(), before, "tasks were rescheduled");
    host.restart_engine().unwrap();
    let moment = Instant::now();
    wait_until(SOON, "a runtime that answers, and all tasks", || {
        engine_is(&cluster, host.name(), false)?;
        let running: usize = cluster.containers()?.values().map(BTreeSet::len).sum();
        ensure!(running == 12, "{running} containers");
        Ok(Some(()))
    })
    .unwrap();
    within(
        "reconciled after the engine's return",
        moment.elapsed(),
        Duration::from_secs(5),
    );
    for host in cluster.hosts.iter() {
        watch(&cluster, host, 12).unwrap().after(moment).unwrap();
    }
    for (report, service) in [(on_a.stop().unwrap(), "a"), (on_b.stop().unwrap(), "b")] {
        all_from(&report, service);
        eprintln!(
            "{service}: {} requests, failed {:?}",
            report.answered(),
            report.errors
        );
    }
}
