//! Every option of `service create` arrives at the container, as its engine tells.

use std::fs;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use swarmlet_integration_tests::wait_until;

use crate::cluster::{Cluster, SOON, text};

/// What the engine of the second host says of its only container.
fn inspected(cluster: &Cluster) -> Result<Value> {
    let host = &cluster.hosts[1];
    let id = host.docker(&["ps", "--all", "--quiet"])?.success()?;
    let text = host.docker(&["inspect", id.trim()])?.success()?;
    let mut all: Vec<Value> = serde_json::from_str(&text)?;
    all.pop().context("no container")
}

/// A flag to a line, its value behind a blank; `BOUND` is a directory.
const FLAGS: &str = "\
    --name all
    --env BOTH=flag
    --env SLOT={{.Service.Name}}-{{.Task.Slot}}
    --env-file BOUND/variables
    --mount type=bind,source=BOUND,target=/bound,readonly
    --mount type=volume,source=data-{{.Task.Slot}},target=/data
    --mount type=tmpfs,target=/scratch
    --limit-memory 256m
    --limit-cpu 0.5
    --reserve-memory 64m
    --hostname {{.Service.Name}}-{{.Task.Slot}}-{{.Node.Hostname}}
    --user 0:0
    --workdir /data
    --entrypoint /swarmlet whoami
    --label kind=service
    --container-label kind=container
    --constraint node.hostname==host2
    --stop-signal SIGINT
    --stop-grace-period 7s
    --publish published=8088,target=8080,mode=host";

/// Creates the service `all` with every option; its id and what the engine says.
fn create(cluster: &Cluster, bound: &str) -> Result<(String, Value)> {
    fs::create_dir_all(bound)?;
    fs::write(
        format!("{bound}/variables"),
        "# some\nFROM_FILE=1\nBOTH=file\n",
    )?;
    let flags = FLAGS.replace("BOUND", bound);
    let mut words: Vec<&str> = flags
        .lines()
        .filter_map(|line| line.trim().split_once(' '))
        .flat_map(|(flag, value)| [flag, value])
        .collect();
    words.extend(["whoami", "--port", "8080"]);
    let id = cluster.create(&words)?;
    Ok((id, inspected(cluster)?))
}

/// Where each mount is, of which kind, what it shows, and whether it can be written to.
fn mounts(container: &Value) -> Vec<(String, String, String, bool)> {
    let mounts = container["Mounts"].as_array();
    mounts
        .into_iter()
        .flatten()
        .map(|mount| {
            let named = match text(mount, "Name") {
                name if name.is_empty() => text(mount, "Source"),
                name => name,
            };
            let (target, kind) = (text(mount, "Destination"), text(mount, "Type"));
            (target, kind, named, mount["RW"] == true)
        })
        .collect()
}

#[test]
fn every_option_arrives_at_the_container() {
    let cluster = Cluster::start(1).unwrap();
    let bound = cluster
        .hosts
        .directory()
        .join("bound")
        .display()
        .to_string();
    let (id, container) = create(&cluster, &bound).unwrap();
    let task = cluster.tasks(&cluster.hosts[0], "all").unwrap().remove(0);
    assert_eq!(task.node, "host2");
    for (path, expected) in [
        ("/Config/Hostname", json!("all-1-host2")),
        ("/Config/User", json!("0:0")),
        ("/Config/WorkingDir", json!("/data")),
        ("/Config/Entrypoint", json!(["/swarmlet", "whoami"])),
        ("/Config/Cmd", json!(["--port", "8080"])),
        ("/Config/StopSignal", json!("SIGINT")),
        ("/Config/StopTimeout", json!(7)),
        ("/Config/Labels/kind", json!("container")),
        ("/Config/Labels/swarmlet.service.id", json!(id)),
        ("/Config/Labels/swarmlet.service.name", json!("all")),
        ("/Config/Labels/swarmlet.task.id", json!(task.id)),
        ("/HostConfig/Memory", json!(256 << 20)),
        ("/HostConfig/MemoryReservation", json!(64 << 20)),
        ("/HostConfig/NanoCpus", json!(500_000_000)),
        ("/HostConfig/RestartPolicy/Name", json!("no")),
        (
            "/HostConfig/PortBindings/8080~1tcp/0/HostPort",
            json!("8088"),
        ),
        ("/Name", json!(format!("/all.1.{}", task.id))),
    ] {
        assert_eq!(
            container.pointer(path),
            Some(&expected),
            "{path}: {container}"
        );
    }
    let env: Vec<&str> = container["Config"]["Env"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for variable in ["BOTH=flag", "FROM_FILE=1", "SLOT=all-1"] {
        assert!(env.contains(&variable), "{env:?}");
    }
    assert!(!env.contains(&"BOTH=file"), "{env:?}");
    let mounts = mounts(&container);
    for (target, kind, source, writable) in [
        ("/bound", "bind", bound.as_str(), false),
        ("/data", "volume", "data-1", true),
        ("/scratch", "tmpfs", "", true),
    ] {
        let expected = (target.into(), kind.into(), source.into(), writable);
        assert!(
            mounts.contains(&expected),
            "{expected:?} is not in {mounts:?}"
        );
    }
    let service = cluster.swarmlet(&["service", "inspect", "all"]).unwrap();
    assert!(service.contains("\"kind\": \"service\""), "{service}");
    let shown = cluster.swarmlet(&["service", "ps", "all"]).unwrap();
    assert!(shown.contains("*:8088->8080/tcp"), "{shown}");

    // A port in mode host is that host's, and nobody else's.
    let report = cluster.ask(&cluster.hosts[1], 8088, 3).unwrap();
    assert_eq!(
        report.answers.into_keys().collect::<Vec<_>>(),
        ["all-1-host2"]
    );
    let report = cluster.ask(&cluster.hosts[0], 8088, 3).unwrap();
    assert_eq!(report.errors.get("connect refused"), Some(&3));
    cluster.swarmlet(&["service", "rm", "all"]).unwrap();
    wait_until(SOON, "end of the container", || {
        Ok(cluster.names()?.is_empty().then_some(()))
    })
    .unwrap();
}

#[test]
fn a_bind_mount_without_its_source_is_rejected() {
    let cluster = Cluster::start(1).unwrap();
    let words = [
        "service",
        "create",
        "--detach",
        "--name",
        "bad",
        "--mount",
        "type=bind,source=/no/such/directory,target=/x",
        "whoami",
    ];
    cluster.swarmlet(&words).unwrap();
    wait_until(SOON, "a rejected task", || {
        let tasks = cluster.tasks(&cluster.hosts[0], "bad")?;
        let told = |error: &str| error.contains("/no/such/directory");
        Ok(tasks
            .iter()
            .any(|task| task.is("Rejected") && told(&task.error))
            .then_some(()))
    })
    .unwrap();
}

#[test]
fn reservations_are_kept_and_what_does_not_fit_waits() {
    let cluster = Cluster::start(1).unwrap();
    // More than half of any host's memory: one to a host, and the fourth waits.
    let memory = fs::read_to_string("/proc/meminfo").unwrap();
    let kibibytes: u64 = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap();
    let reserve = format!("{}k", kibibytes * 6 / 10);
    let words = [
        "service",
        "create",
        "--detach",
        "--name",
        "large",
        "--replicas",
        "4",
        "--reserve-memory",
        &reserve,
        "whoami",
    ];
    cluster.swarmlet(&words).unwrap();
    wait_until(SOON, "three that run and one that waits", || {
        let tasks = cluster.tasks(&cluster.hosts[0], "large")?;
        let reason = "no suitable node (insufficient resources on 3 nodes)";
        let waits = tasks
            .iter()
            .filter(|task| task.is("Pending") && task.error == reason);
        let runs = tasks.iter().filter(|task| task.is("Running"));
        Ok((waits.count() == 1 && runs.count() == 3).then_some(()))
    })
    .unwrap();
    cluster.swarmlet(&["service", "scale", "large=3"]).unwrap();
}
