//! A clock that is wrong, and clocks that jump.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use swarmlet_integration_tests::{
    Host,
    measured::{at_most, within},
    swarmlet_binary, wait_until,
};

use crate::{
    closed_port::explained,
    cluster::{Cluster, SOON},
    history::{all_ready, replicas_agree},
    probe::{load, no_errors, nothing_restarted},
};

/// By how much a clock is wrong: about an hour, as where a time zone was set as the time.
const HOUR_MS: &str = "3630000";

/// Tasks that clients ask meanwhile.
const SERVING: u32 = 6;

/// How long a write may take, and what follows from it.
const WRITTEN: Duration = Duration::from_secs(2);
const CARRIED_OUT: Duration = Duration::from_secs(10);

/// The clock of a host of its own: all share a kernel and its clock, but a debug build reads by
/// how many milliseconds its own is ahead.
fn clock_of(cluster: &Cluster, host: &Host) -> PathBuf {
    let name = format!("clock-of-{}", host.name());
    cluster.hosts.directory().join(name)
}

/// Types a command that starts a daemon with a clock of its own.
fn swarmlet(cluster: &Cluster, host: &Host, words: &[&str]) -> Result<String> {
    let clock = clock_of(cluster, host);
    let variable = format!("SWARMLET_DEBUG_CLOCK_FILE={}", clock.display());
    let binary = swarmlet_binary()?.display().to_string();
    let line = [&[&variable[..], &binary], words].concat();
    host.run("env", &line)?.success()
}

/// Three nodes that each have a clock of their own.
fn with_clocks(role: &str) -> Result<Cluster> {
    let cluster = Cluster::without_swarm()?;
    for host in cluster.hosts.iter() {
        let clock = clock_of(&cluster, host);
        // Another test's.
        if clock.exists() {
            fs::remove_file(clock)?;
        }
    }
    let address = cluster.hosts[0].address().to_string();
    let init = ["init", "--advertise-addr", &address];
    swarmlet(&cluster, &cluster.hosts[0], &init)?;
    let token = cluster.token(role)?;
    for host in cluster.hosts.iter().skip(1) {
        swarmlet(&cluster, host, &["join", "--token", &token, &address])?;
    }
    wait_until(SOON, "three ready nodes", || {
        let nodes = cluster.nodes(&cluster.hosts[0])?;
        let ready = nodes.values().filter(|node| node["Status"] == "Ready");
        Ok((ready.count() == 3).then_some(()))
    })?;
    Ok(cluster)
}

#[test]
fn a_clock_that_is_wrong_on_one_host_is_named_with_how_much() {
    let cluster = with_clocks("worker").unwrap();
    let host = &cluster.hosts[1];
    let clock = clock_of(&cluster, host);
    for (side, sign) in [("ahead of", ""), ("behind", "-")] {
        // A busy machine's heartbeats take their time, which nobody can tell from a wrong clock.
        let said = format!("the clock of host2 ({}) is about 36", host.address());
        let side_of = format!(" s {side} the other nodes'");
        explained(
            &cluster,
            &format!("a clock an hour {side} the others"),
            host,
            &[&said, &side_of, "let a time service keep it"],
            || Ok(fs::write(&clock, format!("{sign}{HOUR_MS}"))?),
            || Ok(fs::remove_file(&clock)?),
        );
    }
}

/// A write is taken and carried out as soon as with clocks that are right.
fn scale(cluster: &Cluster, replicas: u32) {
    let begun = Instant::now();
    let wish = format!("other={replicas}");
    let written = cluster.swarmlet(&["service", "scale", "--detach", &wish]);
    written.unwrap();
    within("a write", begun.elapsed(), WRITTEN);
    let all = (SERVING + replicas) as usize;
    wait_until(SOON, &format!("{all} containers"), || {
        let names = cluster.names()?;
        ensure!(names.len() == all, "{} run", names.len());
        Ok(Some(()))
    })
    .unwrap();
    within("it is carried out", begun.elapsed(), CARRIED_OUT);
}

#[test]
fn clocks_that_jump_by_an_hour_elect_nobody_and_restart_nothing() {
    let cluster = with_clocks("manager").unwrap();
    cluster.serve(SERVING).unwrap();
    let other = ["--name", "other", "--replicas", "0", "whoami"];
    cluster.create(&other).unwrap();
    cluster.all_answer(80).unwrap();
    let before = cluster.started().unwrap();
    let term = replicas_agree(&cluster).unwrap();
    let running = load(&cluster, 80, 2).unwrap();
    let leader = cluster.leader(&cluster.hosts[0]).unwrap();
    // The leader's first, which decides by it; then the others', which only report.
    for step in 0..3 {
        let host = &cluster.hosts[(leader + step) % 3];
        let clock = clock_of(&cluster, host);
        for jump in [HOUR_MS.to_owned(), format!("-{HOUR_MS}")] {
            fs::write(&clock, jump).unwrap();
            scale(&cluster, 2);
            // Back to the right time, with what was dated by the wrong one still there.
            fs::remove_file(&clock).unwrap();
            scale(&cluster, 0);
        }
    }
    all_ready(&cluster).unwrap();
    let report = running.stop().unwrap();
    no_errors("clocks that jump", &report, 0);
    let now = replicas_agree(&cluster).unwrap();
    at_most("elections", now - term, 0);
    nothing_restarted(&cluster, &before);
}
