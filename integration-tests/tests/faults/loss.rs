//! Packets are lost between hosts: what is asked for takes effect once, or not at all.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::Value;
use swarmlet_integration_tests::{
    Host,
    measured::{at_most, noted},
    wait_until,
};

use crate::{
    cluster::{Cluster, LATER},
    history::{replica, replicas_agree},
    networks::{heal, recovered, start},
    probe::load,
};

/// By which the services of this test are told, since their names cannot be there twice.
const LABEL: &str = "write";

/// What became of the commands.
#[derive(Default)]
struct Sent {
    /// Services that were asked for: the label's value, and whether that was acknowledged.
    created: BTreeMap<String, bool>,
    /// Forced updates of one service, acknowledged and unknown.
    forced: (u64, u64),
}

impl Sent {
    /// Asks for one more service, without a name of its own, and for one more forced update.
    fn go_on(&mut self, number: usize, hosts: [&Host; 2]) -> Result<()> {
        let value = format!("w{number}");
        let label = format!("{LABEL}={value}");
        let words = ["service", "create", "--detach", "--label", &label];
        let words = [&words[..], &["--replicas", "0", "whoami"]].concat();
        let created = hosts[0].swarmlet(&words)?.code == Some(0);
        self.created.insert(value, created);
        let words = ["service", "update", "--detach", "--force", "counted"];
        match hosts[1].swarmlet(&words)?.code {
            Some(0) => self.forced.0 += 1,
            _ => self.forced.1 += 1,
        }
        Ok(())
    }

    fn acknowledged(&self) -> usize {
        self.created.values().filter(|known| **known).count()
    }

    /// What was acknowledged is there once, what is unknown at most once.
    fn check(&self, cluster: &Cluster) {
        let found = labelled(cluster).unwrap();
        let count = |value: &String| found.get(value).copied().unwrap_or_default();
        let (mut twice, mut lost) = (0, 0);
        for (value, acknowledged) in &self.created {
            twice += count(value).saturating_sub(1);
            lost += u64::from(*acknowledged && count(value) == 0);
        }
        assert!(found.keys().all(|value| self.created.contains_key(value)));
        at_most("services that are there twice", twice, 0);
        at_most("acknowledged services that are lost", lost, 0);
        let (acknowledged, unknown) = self.forced;
        let counted = forced(cluster).unwrap();
        noted(
            "forced updates acknowledged, unknown, and in effect",
            &format!("{acknowledged}, {unknown}, {counted}"),
        );
        assert!(
            (acknowledged..=acknowledged + unknown).contains(&counted),
            "{counted} updates took effect of {acknowledged} to {}",
            acknowledged + unknown
        );
    }
}

/// How many services there are with each value of the label.
fn labelled(cluster: &Cluster) -> Result<BTreeMap<String, u64>> {
    let filter = format!("label={LABEL}");
    let listed = cluster.swarmlet(&["service", "ls", "--quiet", "--filter", &filter])?;
    let ids: Vec<&str> = listed.lines().collect();
    let mut found = BTreeMap::new();
    if ids.is_empty() {
        return Ok(found);
    }
    for service in inspect(cluster, &ids)? {
        let value = service["Spec"]["Labels"][LABEL].as_str();
        let value = value.with_context(|| format!("no label: {service}"))?;
        *found.entry(value.to_owned()).or_default() += 1;
    }
    Ok(found)
}

/// How many forced updates have taken effect.
fn forced(cluster: &Cluster) -> Result<u64> {
    let service = inspect(cluster, &["counted"])?.remove(0);
    let counter = service["Spec"]["TaskTemplate"]["ForceUpdate"].as_u64();
    counter.with_context(|| format!("no counter: {service}"))
}

fn inspect(cluster: &Cluster, services: &[&str]) -> Result<Vec<Value>> {
    let words = [&["service", "inspect"], services].concat();
    Ok(serde_json::from_str(&cluster.swarmlet(&words)?)?)
}

#[test]
fn with_30_percent_of_packets_lost_nothing_takes_effect_twice() {
    let cluster = start();
    let counted = ["--detach", "--name", "counted", "--replicas", "0", "whoami"];
    cluster.create(&counted).unwrap();
    let before = forced(&cluster).unwrap();
    assert_eq!(before, 0);
    let term = replicas_agree(&cluster).unwrap();
    let running = load(&cluster, 80, 2).unwrap();
    let addresses: Vec<_> = cluster.hosts.iter().map(Host::address).collect();
    for host in cluster.hosts.iter() {
        host.lose_from(&addresses, 30).unwrap();
    }
    let mut sent = Sent::default();
    let moment = Instant::now();
    let mut number = 0;
    while moment.elapsed() < Duration::from_secs(30) {
        number += 1;
        let hosts = [number, number + 2].map(|number| &cluster.hosts[number % 3]);
        sent.go_on(number, hosts).unwrap();
        // Up and down, by commands of which some do not get through.
        let count = format!("ng={}", 6 + number % 4);
        let words = ["service", "scale", "--detach", &count];
        cluster.hosts[(number + 1) % 3].swarmlet(&words).unwrap();
    }
    let worst = cluster.hosts.iter().filter_map(|host| replica(host).ok());
    let worst = worst.map(|replica| replica.term).max().unwrap_or(term);
    noted("growth of the term meanwhile", &(worst - term).to_string());
    let acknowledged = sent.acknowledged();
    let unknown = sent.created.len() - acknowledged;
    noted(
        "services acknowledged, and unknown",
        &format!("{acknowledged}, {unknown}"),
    );
    let report = running.stop().unwrap();
    let slowest = report.latency(0.99).unwrap_or_default();
    noted(
        "requests of clients answered, failed, and their p99",
        &format!("{}, {:?}, {slowest:.3?}", report.answered(), report.errors),
    );
    assert!(report.answered() > 0, "{}", report.to_json());
    let dropped = heal(&cluster).unwrap();
    assert!(dropped > 100, "only {dropped} packets were lost");
    assert!(acknowledged > 0, "nothing got through");
    let healed = Instant::now();
    wait_until(LATER, "a write", || {
        cluster.swarmlet(&["service", "scale", "ng=7"]).map(Some)
    })
    .unwrap();
    recovered(&cluster, healed, 7);
    sent.check(&cluster);
    replicas_agree(&cluster).unwrap();
    cluster.all_answer(80).unwrap();
}
