//! More that explains itself within 5 s: both directions of the task ports at once, a worker that
//! does not get to its manager, and all that a host is asked before it joins.

use std::time::{Duration, Instant};

use swarmlet_integration_tests::{Host, Output, Signal, swarmlet_binary};

use crate::{
    closed_port::{SmallDisk, close, explained},
    cluster::Cluster,
    probe::{load, no_errors, nothing_restarted, within},
};

/// The range of ports for tasks.
const TASKS: &str = "20000-29999";

#[test]
fn task_ports_closed_in_both_directions_at_once_are_named_in_both() {
    let cluster = Cluster::serving(1, 6).unwrap();
    cluster.all_answer(80).unwrap();
    let (one, other) = (&cluster.hosts[1], &cluster.hosts[2]);
    let way = |from: &Host, to: &Host| {
        [
            format!(
                "{} ({}) cannot connect to {} ({}) on TCP {TASKS}",
                from.name(),
                from.address(),
                to.name(),
                to.address()
            ),
            format!(
                "open TCP {TASKS} from {} to {}",
                from.address(),
                to.address()
            ),
        ]
    };
    let words = [way(one, other), way(other, one)].concat();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let running = load(&cluster, 80, 3).unwrap();
    explained(
        &cluster,
        "task ports closed both ways",
        other,
        &words,
        || close(one, other, TASKS).and_then(|()| close(other, one, TASKS)),
        || one.accept_all().and_then(|()| other.accept_all()),
    );
    let report = running.stop().unwrap();
    no_errors("while both directions were closed", &report, 0);
}

#[test]
fn a_worker_whose_way_to_the_manager_is_closed_says_so_everywhere() {
    let cluster = Cluster::serving(1, 6).unwrap();
    cluster.all_answer(80).unwrap();
    let before = cluster.started().unwrap();
    let (manager, worker) = (&cluster.hosts[0], &cluster.hosts[1]);
    let words = [
        format!(
            "host2 ({}) cannot connect to host1 ({}) on TCP 2377",
            worker.address(),
            manager.address()
        ),
        format!(
            "open TCP 2377 from {} to {}",
            worker.address(),
            manager.address()
        ),
    ];
    let running = load(&cluster, 80, 2).unwrap();
    explained(
        &cluster,
        "2377 closed from a worker to its manager",
        worker,
        &[&words[0], &words[1]],
        || close(manager, worker, "2377"),
        || manager.accept_all(),
    );
    let report = running.stop().unwrap();
    no_errors("2377 closed from a worker", &report, 0);
    nothing_restarted(&cluster, &before);
}

/// What doctor says of a host that has not joined.
fn doctor(host: &Host) -> Output {
    let asked = Instant::now();
    let report = host.swarmlet(&["doctor", "--runtime", "docker"]).unwrap();
    within(
        "doctor before a join answers",
        asked.elapsed(),
        Duration::from_secs(5),
    );
    eprintln!("{}", report.stdout);
    report
}

/// A line of the report about a subject, with its level.
#[track_caller]
fn says(report: &Output, level: &str, subject: &str, found: &str) {
    let about = |line: &&str| line.starts_with(level) && line.contains(subject);
    let line = report.stdout.lines().find(about);
    assert!(
        line.is_some_and(|line| line.contains(found)),
        "no {level} about {subject} with {found:?}: {report:?}"
    );
}

#[test]
fn doctor_names_a_full_disk_a_silent_engine_and_few_descriptors_before_a_join() {
    let cluster = Cluster::without_swarm().unwrap();
    let host = &cluster.hosts[1];
    let well = doctor(host);
    assert_eq!(well.code, Some(0), "{well:?}");

    let disk = SmallDisk::mount(host).unwrap();
    let ballast = host.data_directory().join("ballast");
    let ballast = ballast.display().to_string();
    let filled = host.run("fallocate", &["-l", "370M", &ballast]);
    filled.unwrap().success().unwrap();
    let full = doctor(host);
    assert_eq!(full.code, Some(1), "{full:?}");
    says(&full, "problem", "state disk", "MiB free");
    drop(disk);

    let dockerd = host.engine().dockerd().unwrap();
    host.signal(dockerd, Signal::STOP).unwrap();
    let hangs = doctor(host);
    host.signal(dockerd, Signal::CONT).unwrap();
    assert_eq!(hangs.code, Some(1), "{hangs:?}");
    says(&hangs, "problem", "engine", "does not answer");

    let binary = swarmlet_binary().unwrap().display().to_string();
    let words = ["--nofile=512:512", &binary, "doctor", "--runtime", "docker"];
    let few = host.run("prlimit", &words).unwrap();
    says(&few, "warning", "descriptor limit", "512");
}
