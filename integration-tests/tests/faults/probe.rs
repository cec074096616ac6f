//! Looks at the cluster from the side, often enough to measure milliseconds.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use swarmlet_integration_tests::{Host, Load, LoadReport, RunningLoad, measured::at_most};

pub(crate) use swarmlet_integration_tests::measured::within;

use crate::cluster::{Cluster, at};

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(5);

/// Requests that a load has begun before anything is done to the cluster.
const BEGUN: u64 = 50;

/// Where the node's own pages are.
const PAGES: u16 = 2378;

/// A page of a node, with its head.
fn page(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}

/// The first line of what the host's health page answers to a load balancer in front.
pub(crate) fn health(cluster: &Cluster, host: &Host) -> Result<String> {
    let address = at(host, PAGES);
    let asked = cluster
        .hosts
        .client()
        .thread(move || page(address, "/healthz"))?;
    let Ok(page) = asked.join() else {
        bail!("the thread that asks panicked");
    };
    Ok(page??.lines().next().unwrap_or_default().to_owned())
}

/// How many endpoints a balancer chooses from, as its metrics page says.
fn ready_endpoints(address: SocketAddr) -> Result<u64> {
    let page = page(address, "/metrics")?;
    ensure!(page.contains("swarmlet_lb_up 1"), "the balancer is away");
    let lines = page.lines().filter(|line| {
        line.starts_with("swarmlet_lb_endpoints{") && line.contains("condition=\"ready\"")
    });
    let counts = lines.map(|line| {
        let count = line
            .rsplit(' ')
            .next()
            .and_then(|count| count.parse::<u64>().ok());
        count.with_context(|| format!("no number in {line:?}"))
    });
    counts.sum()
}

/// Watches from now on until the host's balancer has exactly `count` endpoints; gives the moment.
pub(crate) fn watch(cluster: &Cluster, host: &Host, count: u64) -> Result<Watch> {
    let address = at(host, PAGES);
    let (sender, seen) = mpsc::channel();
    cluster.hosts.client().thread(move || {
        let end = Instant::now() + Duration::from_secs(90);
        while Instant::now() < end {
            if ready_endpoints(address).is_ok_and(|now| now == count) {
                // A test that has failed does not listen any more.
                let _ = sender.send(Instant::now());
                return;
            }
            thread::sleep(LOOK);
        }
    })?;
    Ok(Watch {
        seen,
        what: format!("{count} endpoints on {}", host.name()),
    })
}

/// A moment that is waited for.
pub(crate) struct Watch {
    seen: mpsc::Receiver<Instant>,
    what: String,
}

impl Watch {
    /// How long after `start` it came.
    pub(crate) fn after(self, start: Instant) -> Result<Duration> {
        match self.seen.recv() {
            Ok(moment) => Ok(moment.saturating_duration_since(start)),
            Err(_) => bail!("{} did not come", self.what),
        }
    }
}

/// A load on all hosts' port, gentle enough to leave the machine its time.
pub(crate) fn load(cluster: &Cluster, port: u16, clients: usize) -> Result<RunningLoad> {
    load_at(cluster, cluster.targets(port), clients)
}

/// The same on some of the hosts.
pub(crate) fn load_at(
    cluster: &Cluster,
    targets: Vec<SocketAddr>,
    clients: usize,
) -> Result<RunningLoad> {
    let load = Load {
        concurrency: clients,
        requests: None,
        pause: Duration::from_millis(5),
        ..Load::new(targets[0], 0)
    };
    let load = Load { targets, ..load };
    let running = load.start(cluster.hosts.client())?;
    let end = Instant::now() + Duration::from_secs(20);
    while running.begun() < BEGUN {
        ensure!(Instant::now() < end, "the load does not begin");
        thread::sleep(LOOK);
    }
    Ok(running)
}

/// No request failed but those that were under way where something died.
#[track_caller]
pub(crate) fn no_errors(what: &str, report: &LoadReport, in_flight: u64) {
    eprintln!(
        "{what}: {} requests, failed: {:?}",
        report.answered(),
        report.errors
    );
    assert!(
        report.answered() >= BEGUN / 2,
        "{what}: {}",
        report.to_json()
    );
    if report.failed() > in_flight {
        eprintln!("{what}: {}", report.to_json());
    }
    at_most(
        &format!("{what}: requests that failed"),
        report.failed(),
        in_flight,
    );
}

/// The containers are those of before, and none of them was started since.
#[track_caller]
pub(crate) fn nothing_restarted(cluster: &Cluster, before: &BTreeMap<String, String>) {
    let now = cluster.started().unwrap();
    let gone = before.iter().filter(|(id, at)| now.get(*id) != Some(*at));
    let new = now.keys().filter(|id| !before.contains_key(*id));
    let changed: Vec<&String> = gone.map(|(id, _)| id).chain(new).collect();
    eprintln!("containers that are not as before: {changed:?}");
    at_most("containers restarted or replaced", changed.len() as u64, 0);
}
