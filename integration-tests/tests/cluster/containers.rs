//! Containers that die, and containers that are not well.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use swarmlet_integration_tests::{Load, Signal, measured::within, wait_until};

use crate::{
    checked::make_checked_image,
    cluster::{Cluster, LATER, SOON, TaskLine, at, check_even},
};

#[test]
fn a_killed_container_costs_no_more_than_what_it_was_doing() {
    const CLIENTS: usize = 6;
    let cluster = Cluster::serving(1, 6).unwrap();
    let names = cluster.all_answer(80).unwrap();
    let load = Load {
        targets: cluster.targets(80),
        concurrency: CLIENTS,
        requests: None,
        pause: Duration::from_millis(2),
        ..Load::new(at(&cluster.hosts[0], 80), 0)
    };
    let running = load.start(cluster.hosts.client()).unwrap();
    wait_until(SOON, "load", || Ok((running.begun() > 100).then_some(()))).unwrap();
    let victim = &cluster.hosts[1];
    let ids = victim
        .docker(&["ps", "--quiet"])
        .unwrap()
        .success()
        .unwrap();
    let killed = ids.lines().next().unwrap().to_owned();
    victim
        .docker(&["kill", &killed])
        .unwrap()
        .success()
        .unwrap();
    let started = Instant::now();
    wait_until(LATER, "another container in its place", || {
        let now = cluster.names()?;
        Ok((now.len() == names.len() && !now.contains(&killed)).then_some(()))
    })
    .unwrap();
    within("replaced", started.elapsed(), Duration::from_secs(10));
    let now = cluster.all_answer(80).unwrap();
    let report = running.stop().unwrap();
    eprintln!(
        "{} requests, failed: {:?}",
        report.answered(),
        report.errors
    );
    // Only connections that the container had already taken; no new one was refused.
    assert!(report.failed() <= CLIENTS as u64, "{}", report.to_json());
    assert!(
        report
            .errors
            .keys()
            .all(|kind| kind == "reset" || kind == "closed without answer"),
        "{}",
        report.to_json()
    );
    assert_eq!(now.intersection(&names).count(), names.len() - 1);
    let tasks = cluster.tasks(&cluster.hosts[0], "ng").unwrap();
    let failed: Vec<_> = tasks.iter().filter(|task| task.is("Failed")).collect();
    assert_eq!(failed.len(), 1, "{tasks:?}");
    assert!(failed[0].error.contains("137"), "{failed:?}");
}

#[test]
fn a_killed_balancer_is_replaced() {
    let cluster = Cluster::serving(1, 6).unwrap();
    let names = cluster.all_answer(80).unwrap();
    let before = cluster.started().unwrap();
    let host = &cluster.hosts[1];
    let balancer = host.balancer().unwrap();
    host.signal(balancer, Signal::KILL).unwrap();
    let killed = Instant::now();
    wait_until(SOON, "an answer", || {
        let answered = cluster.ask(host, 80, 1)?.failed() == 0;
        Ok((answered && host.balancer()? != balancer).then_some(()))
    })
    .unwrap();
    within(
        "answering again after the balancer was killed",
        killed.elapsed(),
        Duration::from_secs(2),
    );
    // By the whole table from the first connection on.
    let report = cluster.ask(host, 80, 600).unwrap();
    check_even(&report, &names, "after the balancer was killed");
    assert_eq!(cluster.started().unwrap(), before);
}

#[test]
fn a_container_that_ends_at_once_is_restarted_with_growing_pauses() {
    let cluster = Cluster::start(1).unwrap();
    cluster
        .swarmlet(&[
            "service", "create", "--detach", "--name", "ng", "-p", "80:80", "whoami", "--port", "x",
        ])
        .unwrap();
    let ended = || -> Result<usize> {
        let tasks = cluster.tasks(&cluster.hosts[0], "ng")?;
        let ended: Vec<_> = tasks.iter().filter(|task| task.is("Failed")).collect();
        for task in &ended {
            ensure!(task.error.contains("task: non-zero exit (2)"), "{task:?}");
        }
        Ok(ended.len())
    };
    let started = Instant::now();
    for (count, pauses_s) in [(1, 0), (2, 0), (3, 1), (4, 3)] {
        wait_until(LATER, &format!("{count} ends"), || {
            Ok((ended()? >= count).then_some(()))
        })
        .unwrap();
        let took = started.elapsed();
        eprintln!("{count} ended after {took:.2?}");
        assert!(took >= Duration::from_secs(pauses_s), "{took:?}");
        // Nobody was ever sent to it.
        assert_eq!(cluster.ask(&cluster.hosts[0], 80, 3).unwrap().answered(), 0);
    }
    wait_until(SOON, "the wait for the next one", || {
        let tasks = cluster.tasks(&cluster.hosts[0], "ng")?;
        ensure!(tasks[0].error.contains("back-off, starts in"), "{tasks:?}");
        Ok(Some(()))
    })
    .unwrap();
}

/// A service of three whose containers are well while their slot has a file.
struct Patients {
    cluster: Cluster,
    directory: PathBuf,
}

impl Patients {
    fn admit() -> Result<Self> {
        let cluster = Cluster::start(1)?;
        for host in cluster.hosts.iter() {
            make_checked_image(host, "checked", None)?;
        }
        // A directory per slot, which all hosts see.
        let directory = cluster.hosts.directory().join("healthy");
        for slot in 1..=3 {
            fs::create_dir_all(directory.join(slot.to_string()))?;
        }
        let source = format!("{}/{{{{.Task.Slot}}}}", directory.display());
        let mount = format!("type=bind,source={source},target=/healthy,readonly");
        let create = "service create --detach --name ng --replicas 3 --publish 80:80 \
            --health-cmd /healthy/yes --health-interval 500ms --health-retries 2 \
            --health-start-period 60s --mount";
        let mut words: Vec<&str> = create.split_whitespace().collect();
        words.extend([mount.as_str(), "checked"]);
        cluster.swarmlet(&words)?;
        Ok(Self { cluster, directory })
    }

    fn make_well(&self, slot: u32) -> Result<()> {
        Ok(fs::write(self.directory.join(format!("{slot}/yes")), "")?)
    }

    fn make_ill(&self, slot: u32) -> Result<()> {
        Ok(fs::remove_file(self.directory.join(format!("{slot}/yes")))?)
    }

    fn tasks(&self) -> Result<Vec<TaskLine>> {
        self.cluster.tasks(&self.cluster.hosts[0], "ng")
    }

    /// Waits until exactly `count` containers answer; their names.
    fn answering(&self, count: usize) -> Result<Vec<String>> {
        wait_until(LATER, &format!("{count} that answer"), || {
            let report = self.cluster.ask(&self.cluster.hosts[0], 80, 12)?;
            ensure!(report.failed() == 0, "{}", report.to_json());
            let names: Vec<_> = report.answers.into_keys().collect();
            Ok((names.len() == count).then_some(names))
        })
    }
}

/// Behaviour checks 18 and 19 of Docker Swarm.
#[test]
fn a_container_gets_clients_only_while_it_is_healthy() {
    let patients = Patients::admit().unwrap();
    let cluster = &patients.cluster;
    wait_until(SOON, "three containers", || {
        Ok((cluster.names()?.len() == 3).then_some(()))
    })
    .unwrap();
    // The containers run and would answer, but are not healthy.
    let starting = patients.tasks().unwrap();
    assert!(
        starting.iter().all(|task| task.is("Starting")),
        "{starting:?}"
    );
    for host in cluster.hosts.iter() {
        assert_eq!(cluster.ask(host, 80, 5).unwrap().answered(), 0);
    }
    patients.make_well(1).unwrap();
    patients.make_well(2).unwrap();
    let first = patients.answering(2).unwrap();
    let tasks = patients.tasks().unwrap();
    assert_eq!(
        tasks.iter().filter(|task| task.is("Running")).count(),
        2,
        "{tasks:?}"
    );

    // One falls ill, and is replaced by one that is not well before the file is back.
    patients.make_ill(1).unwrap();
    let left = patients.answering(1).unwrap();
    assert!(first.contains(&left[0]), "{first:?} {left:?}");
    wait_until(LATER, "a failed task", || {
        let tasks = patients.tasks()?;
        let failed = tasks
            .iter()
            .find(|task| task.is("Failed") && task.name == "ng.1");
        ensure!(
            failed.is_some_and(|task| task.error.contains("unhealthy")),
            "{tasks:?}"
        );
        Ok(Some(()))
    })
    .unwrap();
    patients.make_well(1).unwrap();
    patients.make_well(3).unwrap();
    let all = patients.answering(3).unwrap();
    assert_eq!(
        first.iter().filter(|name| all.contains(name)).count(),
        1,
        "{first:?} {all:?}"
    );
}
