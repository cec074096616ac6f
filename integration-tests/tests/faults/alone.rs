//! All managers are gone: nodes look after themselves.

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use swarmlet_integration_tests::{measured::at_most, wait_until};

use crate::{
    cluster::{Cluster, LATER},
    containers::{RESTARTED, kill_one},
    probe::{health, load, no_errors, nothing_restarted, watch, within},
};

/// What a load balancer in front goes by.
const HEALTHY: &str = "HTTP/1.0 200 OK";

/// Identifiers of both services' tasks, those of the past included.
fn tasks(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let mut ids = BTreeSet::new();
    for service in ["a", "b"] {
        let tasks = cluster.tasks(&cluster.hosts[0], service)?;
        ids.extend(tasks.into_iter().map(|task| task.id));
    }
    Ok(ids)
}

/// Creates two services whose tasks answer with their service's name.
pub(crate) fn two_services(cluster: &Cluster) {
    for service in ["a", "b"] {
        named_service(cluster, service, &[]);
    }
}

/// What the tasks of one of them answer.
fn names(service: &str) -> BTreeSet<String> {
    (1..=6).map(|slot| format!("{service}-{slot}")).collect()
}

/// Creates a service of six tasks, on port 80 where it is `a` and on 81 where it is `b`, that
/// answer with its name.
pub(crate) fn named_service(cluster: &Cluster, name: &str, options: &[&str]) {
    let port = if name == "a" { "80:80" } else { "81:80" };
    let hostname = "{{.Service.Name}}-{{.Task.Slot}}";
    let words = ["--name", name, "--replicas", "6", "-p", port];
    let words = [&words[..], &["--hostname", hostname], options, &["whoami"]];
    cluster.create(&words.concat()).unwrap();
}

/// Every answer on a port came from its own service.
#[track_caller]
pub(crate) fn all_from(report: &swarmlet_integration_tests::LoadReport, service: &str) {
    let prefix = format!("{service}-");
    let foreign: Vec<_> = report
        .answers
        .keys()
        .filter(|name| !name.starts_with(&prefix))
        .collect();
    eprintln!("answers of {service} from others: {foreign:?}");
    at_most(
        "tasks of another service that answered",
        foreign.len() as u64,
        0,
    );
}

#[test]
fn without_any_manager_containers_come_back_and_a_rebooted_host_serves() {
    let cluster = Cluster::start(1).unwrap();
    two_services(&cluster);
    let known = tasks(&cluster).unwrap();
    let (manager, worker) = (&cluster.hosts[0], &cluster.hosts[1]);
    for host in cluster.hosts.iter() {
        watch(&cluster, host, 12)
            .unwrap()
            .after(Instant::now())
            .unwrap();
    }
    cluster.kill_daemon(manager).unwrap();
    thread::sleep(Duration::from_secs(2));

    for host in cluster.hosts.iter().skip(1) {
        assert_eq!(health(&cluster, host).unwrap(), HEALTHY);
    }
    // A container fails. No manager knows, and none is needed. Its host's own page tells.
    let running = load(&cluster, 80, 2).unwrap();
    let out = watch(&cluster, worker, 11).unwrap();
    let died = kill_one(worker);
    within(
        "out of its own balancer",
        out.after(died).unwrap(),
        Duration::from_millis(100),
    );
    let back = watch(&cluster, worker, 12).unwrap().after(died).unwrap();
    within("started again in place", back, RESTARTED);
    let report = running.stop().unwrap();
    all_from(&report, "a");
    no_errors("a container fails without managers", &report, 2);

    // The whole host goes down and comes back, and still nobody is there to tell it anything.
    let (on_a, on_b) = (
        load(&cluster, 80, 1).unwrap(),
        load(&cluster, 81, 1).unwrap(),
    );
    worker.pull_the_plug().unwrap();
    worker.restart_engine().unwrap();
    let booted = Instant::now();
    cluster.start_daemon(worker).unwrap();
    watch(&cluster, worker, 12).unwrap().after(booted).unwrap();
    // A container that runs may not listen yet, and then is left out for a moment.
    for (port, service) in [(80, "a"), (81, "b")] {
        cluster.answers(worker, port, &names(service)).unwrap();
    }
    within(
        "a rebooted host serves all of its tasks",
        booted.elapsed(),
        Duration::from_secs(15),
    );
    for (report, service) in [(on_a.stop().unwrap(), "a"), (on_b.stop().unwrap(), "b")] {
        all_from(&report, service);
        eprintln!(
            "{service} meanwhile: {} requests, failed {:?}",
            report.answered(),
            report.errors
        );
    }

    // The managers return, and find everything as they left it.
    let before = cluster.started().unwrap();
    assert_eq!(before.len(), 12);
    cluster.start_daemon(manager).unwrap();
    wait_until(LATER, "three ready nodes", || {
        let nodes = cluster.nodes(manager)?;
        Ok(nodes
            .values()
            .all(|node| node["Status"] == "Ready")
            .then_some(()))
    })
    .unwrap();
    thread::sleep(Duration::from_secs(5));
    nothing_restarted(&cluster, &before);
    let now = tasks(&cluster).unwrap();
    at_most(
        "tasks lost, or made twice",
        now.symmetric_difference(&known).count() as u64,
        0,
    );
    for host in cluster.hosts.iter() {
        cluster.answers(host, 80, &names("a")).unwrap();
    }
}
