//! What a run of tests leaves on the machine: nothing, however it ends. Needs root.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::process::kill_process;
use swarmlet_integration_tests::{Hosts, Image, Process, Signal, cleanup, processes, wait_until};

const SOON: Duration = Duration::from_secs(10);

/// What the machine has of a run: processes, and whatever it can be entered by.
fn traces(run: &str, networks: &[u64]) -> Result<Vec<Process>> {
    let mut found = cleanup::remaining(run)?;
    found.extend(
        processes()?
            .into_iter()
            .filter(|process| process.network.is_some_and(|own| networks.contains(&own))),
    );
    Ok(found)
}

#[test]
fn nothing_stays_behind() {
    let server = Path::new(env!("CARGO_BIN_EXE_hostname-server"));
    let image = Image::new("hostname-server", server, &[]);
    let hosts = Hosts::start(2, &image).unwrap();
    let run = hosts.run_name().to_owned();
    let directory = hosts.directory().to_owned();
    let networks: Vec<u64> = hosts
        .iter()
        .map(|host| host.namespace().network())
        .collect();
    for host in &hosts {
        host.docker(&["run", "--detach", "hostname-server"])
            .unwrap()
            .success()
            .unwrap();
        assert_eq!(
            host.run("hostname", &[]).unwrap().success().unwrap().trim(),
            host.name()
        );
        // A daemon that has left its parent and its session.
        host.run("sh", &["-c", "setsid sleep infinity >/dev/null 2>&1 &"])
            .unwrap()
            .success()
            .unwrap();
    }
    // With engine and shim gone, a container is nobody's descendant.
    for name in ["dockerd", "containerd", "containerd-shim"] {
        let all = cleanup::remaining(&run).unwrap();
        let found: Vec<_> = all.iter().filter(|process| process.name == name).collect();
        assert_eq!(found.len(), 2, "{name}: {all:?}");
        for process in found {
            kill_process(process.pid, Signal::KILL).unwrap();
        }
    }
    let containers = wait_until(SOON, "containers alone", || {
        let all = cleanup::remaining(&run)?;
        let alone = !all
            .iter()
            .any(|process| process.name.starts_with("containerd"));
        Ok(alone.then(|| {
            all.into_iter()
                .filter(|process| process.name == "hostname-server")
                .count()
        }))
    });
    assert_eq!(containers.unwrap(), 2);
    let groups = || {
        let found = Command::new("find")
            .args(["/sys/fs/cgroup", "-name", &cleanup::control_group(&run)])
            .output();
        String::from_utf8(found.unwrap().stdout).unwrap()
    };
    assert!(traces(&run, &networks).unwrap().len() > 10);
    assert_ne!(groups(), "");

    drop(hosts);

    assert!(
        traces(&run, &networks).unwrap().is_empty(),
        "{:?}",
        traces(&run, &networks)
    );
    assert_eq!(groups(), "");
    assert!(!directory.exists());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&run), "{mounts}");
}

/// A process with hosts of its own, once they are up, and its run's directory.
fn other_run() -> Result<(Child, PathBuf)> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_hosts"))
        .arg("1")
        .env("SWARMLET_BIN", env!("CARGO_BIN_EXE_hostname-server"))
        .stdin(Stdio::piped())
        .spawn()?;
    let directory = cleanup::runs_directory();
    let prefix = format!("{}-", child.id());
    let found = wait_until(Duration::from_secs(60), "hosts of another process", || {
        anyhow::ensure!(child.try_wait()?.is_none(), "it ended");
        let names = fs::read_dir(&directory)?
            .map(|entry| Ok(entry?.file_name().into_string().unwrap_or_default()));
        let names: Vec<String> = names.collect::<Result<_>>()?;
        let run = names
            .into_iter()
            .find(|name| name.starts_with(&prefix))
            .context("no directory yet")?;
        let up = cleanup::remaining(&run)?
            .iter()
            .any(|process| process.name == "dockerd");
        Ok(up.then(|| directory.join(run)))
    })?;
    Ok((child, found))
}

fn run_of(directory: &Path) -> &str {
    directory
        .file_name()
        .and_then(|name| name.to_str())
        .expect("the directory was found by its name")
}

#[test]
fn a_test_that_is_killed_leaves_nothing() {
    let (mut child, directory) = other_run().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until(SOON, "clean-up by the reaper", || {
        Ok((!directory.exists()).then_some(()))
    })
    .unwrap();
    assert!(cleanup::remaining(run_of(&directory)).unwrap().is_empty());
}

#[test]
fn what_a_killed_reaper_left_is_removed_by_the_next_run() {
    let (mut child, directory) = other_run().unwrap();
    let parent = i32::try_from(child.id()).unwrap();
    let all = processes().unwrap();
    let reaper = all
        .iter()
        .find(|process| process.parent == parent && process.name == "test-reaper")
        .unwrap();
    kill_process(reaper.pid, Signal::KILL).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    // Another test of this file may start a run at this moment and clean up
    // first: what counts is that it is gone in the end, and the living are not.
    let (mut living, kept) = other_run().unwrap();
    cleanup::remove_dead_runs().unwrap();
    assert!(!directory.exists());
    assert!(cleanup::remaining(run_of(&directory)).unwrap().is_empty());
    assert!(kept.exists());
    assert!(
        cleanup::remaining(run_of(&kept))
            .unwrap()
            .iter()
            .any(|process| process.name == "dockerd")
    );
    drop(living.stdin.take());
    assert!(living.wait().unwrap().success());
    assert!(!kept.exists());
}
