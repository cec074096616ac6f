//! Writes with their outcomes, and the managers' copies of the state.
//!
//! A write that failed or timed out is unknown: it may be there, and is never taken for absent.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use swarmlet_integration_tests::{Host, Output, measured::at_most, wait_until};

use crate::cluster::{Cluster, LATER, json_lines, read, text};

/// What became of the writes.
#[derive(Debug)]
pub(crate) struct History {
    prefix: &'static str,
    acknowledged: Mutex<BTreeSet<String>>,
    unknown: Mutex<BTreeSet<String>>,
    next: AtomicU64,
}

impl History {
    /// Writes whose names begin with `prefix`.
    pub(crate) fn new(prefix: &'static str) -> Self {
        Self {
            prefix,
            acknowledged: Mutex::default(),
            unknown: Mutex::default(),
            next: AtomicU64::new(0),
        }
    }

    /// Writes through a host's manager: makes a service without tasks, with a name that no
    /// other write has.
    pub(crate) fn write(&self, host: &Host) -> Result<Output> {
        let name = format!(
            "{}{}",
            self.prefix,
            self.next.fetch_add(1, Ordering::Relaxed)
        );
        let words = ["service", "create", "--detach", "--name", &name];
        let output = host.swarmlet(&[&words[..], &["--replicas", "0", "whoami"]].concat())?;
        let outcome = match output.code {
            Some(0) => &self.acknowledged,
            _ => &self.unknown,
        };
        let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
        outcome.insert(name);
        Ok(output)
    }

    /// Writes until one is acknowledged; how long that took from `start` on.
    pub(crate) fn back(&self, host: &Host, start: Instant) -> Result<Duration> {
        wait_until(LATER, "an acknowledged write", || {
            self.write(host)?.success().map(Some)
        })?;
        Ok(start.elapsed())
    }

    /// Writes through each of the hosts in turn until it is told to stop.
    pub(crate) fn go_on(&self, hosts: &[&Host], stop: &AtomicBool) {
        for host in hosts.iter().cycle() {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            if let Err(error) = self.write(host) {
                eprintln!("a write on {} did not end: {error:#}", host.name());
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// What was acknowledged so far.
    pub(crate) fn acknowledged(&self) -> BTreeSet<String> {
        let acknowledged = self.acknowledged.lock();
        acknowledged.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many were acknowledged, and how many are unknown.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let count = |set: &Mutex<BTreeSet<String>>| {
            set.lock().unwrap_or_else(PoisonError::into_inner).len()
        };
        (count(&self.acknowledged), count(&self.unknown))
    }

    /// Reads what is there, once the host's manager has a leader, and fails where something
    /// acknowledged is not.
    pub(crate) fn check(&self, host: &Host) -> Result<()> {
        let words = ["service", "ls", "--format", "json"];
        let listed = wait_until(LATER, "a read as of now", || read(host, &words).map(Some))?;
        let there: Vec<_> = json_lines(&listed)?
            .iter()
            .map(|service| text(service, "Name"))
            .collect();
        let names: BTreeSet<_> = there.iter().cloned().collect();
        ensure!(
            names.len() == there.len(),
            "a write is there twice: {there:?}"
        );
        let (acknowledged, unknown) = (
            self.acknowledged
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
            self.unknown.lock().unwrap_or_else(PoisonError::into_inner),
        );
        let lost: Vec<_> = acknowledged.difference(&names).collect();
        eprintln!(
            "{} writes acknowledged; of {} unknown ones {} are there",
            acknowledged.len(),
            unknown.len(),
            unknown.intersection(&names).count(),
        );
        at_most("acknowledged writes that are lost", lost.len() as u64, 0);
        Ok(())
    }
}

/// A manager's copy of the state, as `swarmlet info` says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Replica {
    pub(crate) term: u64,
    applied: u64,
    hash: String,
}

pub(crate) fn replica(host: &Host) -> Result<Replica> {
    let info = host.swarmlet(&["info", "--format", "json"])?.success()?;
    let info: Value = serde_json::from_str(&info)?;
    let number = |key: &str| {
        info["Raft"][key]
            .as_u64()
            .with_context(|| format!("no {key}"))
    };
    let hash = text(&info["Raft"], "StateSHA256");
    ensure!(hash.len() == 64, "{info}");
    Ok(Replica {
        term: number("Term")?,
        applied: number("AppliedIndex")?,
        hash,
    })
}

/// Waits until the copies of all three hosts have come equally far, and fails where they differ
/// then; the highest term.
pub(crate) fn replicas_agree(cluster: &Cluster) -> Result<u64> {
    let replicas = wait_until(
        LATER,
        "copies of the state that have come equally far",
        || {
            let all: Vec<_> = cluster.hosts.iter().map(replica).collect::<Result<_>>()?;
            ensure!(
                all.iter().all(|one| one.applied == all[0].applied),
                "{all:?}"
            );
            Ok(Some(all))
        },
    )?;
    let hashes: BTreeSet<_> = replicas.iter().map(|replica| &replica.hash).collect();
    at_most(
        "different copies of the state beside the first",
        hashes.len() as u64 - 1,
        0,
    );
    let terms = replicas.iter().map(|replica| replica.term);
    terms.max().context("no replica")
}

/// Waits until every node is ready, and, of a cluster of managers, each can be reached.
pub(crate) fn all_ready(cluster: &Cluster) -> Result<()> {
    wait_until(LATER, "nodes that are ready", || {
        let nodes = cluster.nodes(&cluster.hosts[0])?;
        let ready = nodes
            .values()
            .all(|node| node["Status"] == "Ready" && node["ManagerStatus"] != "Unreachable");
        ensure!(ready, "{nodes:?}");
        Ok(Some(()))
    })
}
