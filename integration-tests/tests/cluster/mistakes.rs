//! What goes wrong is said in one line, with the value and what to do.

use std::{
    thread,
    time::{Duration, Instant},
};

use swarmlet_integration_tests::wait_until;

use crate::cluster::{Cluster, LATER, SOON, check_refused};

#[test]
fn mistakes_are_told_in_one_line() {
    let cluster = Cluster::start(1).unwrap();
    let id = cluster
        .create(&["--name", "ng", "-p", "80:80", "whoami"])
        .unwrap();
    let taken = format!("port '80' is already in use by service 'ng' ({id})");
    for (words, code, expected) in [
        (&["service", "rm", "nope"][..], 1, "no such service: nope"),
        (&["service", "scale", "nope=3"], 1, "no such service: nope"),
        (&["service", "ps", "nope"], 1, "no such service: nope"),
        (&["service", "inspect", "nope"], 1, "no such service: nope"),
        (&["node", "rm", "nope"], 1, "no such node: nope"),
        (
            &["service", "create", "--name", "ng", "whoami"],
            1,
            "name conflicts with an existing object: service ng already exists",
        ),
        (
            &[
                "service", "create", "--name", "other", "-p", "80:80", "whoami",
            ],
            1,
            &taken,
        ),
        (
            &["service", "create", "--name", "a b", "whoami"],
            1,
            "invalid",
        ),
        (
            &["service", "create", "--env-file", "/nowhere", "whoami"],
            1,
            "/nowhere",
        ),
        (
            &["service", "create", "-p", "80:x", "whoami"],
            2,
            "invalid containerPort: x",
        ),
        (
            &["service", "create", "-p", "70000:80", "whoami"],
            2,
            "invalid hostPort: 70000",
        ),
        (
            &["service", "create", "--limit-memory", "much", "whoami"],
            2,
            "much",
        ),
        (&["service", "scale", "ng"], 2, "SERVICE=REPLICAS"),
        (&["service", "scale", "ng=-1"], 2, "-1"),
        (&["service", "create"], 2, "IMAGE"),
        (&["service", "frobnicate"], 2, "frobnicate"),
        (
            &["node", "rm", "host2"],
            1,
            "is not down and can't be removed",
        ),
        (&["node", "rm", "host1"], 1, "must be demoted"),
    ] {
        check_refused(&cluster.hosts[0].swarmlet(words).unwrap(), code, expected);
    }
    // None of it has changed anything.
    let listed = cluster.swarmlet(&["service", "ls", "-q"]).unwrap();
    assert_eq!(listed.lines().count(), 1, "{listed}");
    assert_eq!(cluster.nodes(&cluster.hosts[0]).unwrap().len(), 3);
}

#[test]
fn without_a_daemon_or_a_swarm_it_says_so() {
    let cluster = Cluster::without_swarm().unwrap();
    let host = &cluster.hosts[0];
    let socket = format!(
        "unix://{}. Is the daemon running? (see `swarmlet doctor`)",
        host.socket().display()
    );
    let no_daemon = format!("Error: Cannot connect to the swarmlet daemon at {socket}");
    for words in [&["service", "ls"][..], &["node", "ls"], &["leave"]] {
        check_refused(&host.swarmlet(words).unwrap(), 1, &no_daemon);
    }
    cluster.start_daemon(host).unwrap();
    wait_until(SOON, "the daemon", || {
        let info = host.swarmlet(&["info", "--format", "json"])?.success()?;
        Ok(info.contains("\"inactive\"").then_some(()))
    })
    .unwrap();
    let no_swarm = "Error: This node is not a swarm manager. Use \"swarmlet init\" or \"swarmlet \
        join\" to connect this node to swarm and try again.";
    for words in [&["service", "ls"][..], &["node", "ls"]] {
        check_refused(&host.swarmlet(words).unwrap(), 1, no_swarm);
    }
    let second = host.swarmlet(&["daemon"]).unwrap();
    check_last(&second.stderr, "Error: ");
    assert_eq!(second.code, Some(1), "{second:?}");
    check_refused(
        &host.swarmlet(&["leave"]).unwrap(),
        1,
        "This node is not part of a swarm",
    );
}

/// The last line of a log is the error.
fn check_last(log: &str, expected: &str) {
    let last = log.lines().last().unwrap_or_default();
    assert!(last.starts_with(expected), "{log}");
}

#[test]
fn an_image_that_does_not_exist_is_rejected_and_tried_again_later() {
    let cluster = Cluster::start(1).unwrap();
    let words = [
        "service",
        "create",
        "--detach",
        "--name",
        "bad",
        "no-such-image:1",
    ];
    cluster.swarmlet(&words).unwrap();
    let rejected = || -> anyhow::Result<usize> {
        let tasks = cluster.tasks(&cluster.hosts[0], "bad")?;
        let rejected: Vec<_> = tasks.iter().filter(|task| task.is("Rejected")).collect();
        for task in &rejected {
            anyhow::ensure!(
                task.error.contains("No such image: no-such-image:1"),
                "{task:?}"
            );
        }
        Ok(rejected.len())
    };
    wait_until(LATER, "a rejected task", || {
        Ok((rejected()? > 0).then_some(()))
    })
    .unwrap();
    let first = Instant::now();
    let listed = cluster.swarmlet(&["service", "ls"]).unwrap();
    assert!(listed.contains("0/1"), "{listed}");
    // The one that waits for its turn says so, above the one that was rejected.
    wait_until(SOON, "a task that waits", || {
        let tasks = cluster.tasks(&cluster.hosts[0], "bad")?;
        let waits = tasks
            .first()
            .is_some_and(|task| task.error.contains("back-off, starts in"));
        anyhow::ensure!(waits && tasks.len() == 2, "{tasks:?}");
        Ok(Some(()))
    })
    .unwrap();
    eprintln!("{}", cluster.swarmlet(&["service", "ps", "bad"]).unwrap());
    // At most one attempt in ten seconds, and another one does come.
    wait_until(LATER, "another attempt", || {
        Ok((rejected()? > 1).then_some(()))
    })
    .unwrap();
    let apart = first.elapsed();
    eprintln!("second attempt rejected after {apart:.2?}");
    assert!(apart > Duration::from_secs(9), "{apart:?}");

    // Once the image is there, it runs.
    let host = |number: usize| &cluster.hosts[number];
    thread::scope(|scope| {
        for number in 0..3 {
            scope.spawn(move || {
                let words = ["tag", "whoami:latest", "no-such-image:1"];
                host(number).docker(&words).unwrap().success().unwrap();
            });
        }
    });
    let runs = wait_until(LATER, "a running task", || {
        let tasks = cluster.tasks(&cluster.hosts[0], "bad")?;
        Ok(tasks.iter().any(|task| task.is("Running")).then_some(()))
    });
    for host in cluster.hosts.iter() {
        host.docker(&["rmi", "--no-prune", "--force", "no-such-image:1"])
            .unwrap();
    }
    runs.unwrap();
}

#[test]
fn a_task_without_a_place_says_why_and_waits() {
    let cluster = Cluster::start(1).unwrap();
    let words = [
        "service",
        "create",
        "--detach",
        "--name",
        "picky",
        "--constraint",
        "node.labels.disk==ssd",
        "whoami",
    ];
    cluster.swarmlet(&words).unwrap();
    wait_until(SOON, "the reason", || {
        let tasks = cluster.tasks(&cluster.hosts[0], "picky")?;
        let reason = "no suitable node (scheduling constraints not satisfied on 3 nodes)";
        Ok(tasks
            .iter()
            .any(|task| task.is("Pending") && task.error == reason)
            .then_some(()))
    })
    .unwrap();
    cluster
        .swarmlet(&["node", "update", "--label-add", "disk=ssd", "host2"])
        .unwrap();
    wait_until(SOON, "the task on host2", || {
        let tasks = cluster.tasks(&cluster.hosts[0], "picky")?;
        Ok(tasks
            .iter()
            .any(|task| task.is("Running") && task.node == "host2")
            .then_some(()))
    })
    .unwrap();
}
