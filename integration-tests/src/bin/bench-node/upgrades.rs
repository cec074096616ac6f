//! Balancers that follow each other under load.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use swarmlet_integration_tests::{Load, wait_until};

use crate::node::Node;

const PORT: u16 = 80;

/// Endpoints of the service.
const REPLICAS: usize = 2;

/// Requests under way at any time.
const CLIENTS: usize = 8;

/// Requests between two replacements.
const BETWEEN: u64 = 5_000;

/// Longest wait for as many.
const LIMIT: Duration = Duration::from_secs(60);

/// What it came to.
#[derive(Debug)]
pub(crate) struct Replaced {
    pub(crate) upgrades: usize,
    pub(crate) answered: u64,
    pub(crate) per_second: f64,
    /// Failed requests, by kind.
    pub(crate) failed: Vec<(String, u64)>,
    /// Replacements after which both processes told what they have: the one before of its open
    /// connection, its successor of those that it had accepted.
    pub(crate) both_counted: usize,
    /// Connections that were open through a replacement, and were answered after it.
    pub(crate) kept: usize,
}

/// Replaces the balancer so many times while clients connect as fast as they can.
pub(crate) fn measure(node: &Node, upgrades: usize) -> Result<Replaced> {
    let replicas = format!("--replicas={REPLICAS}");
    let publish = format!("--publish={PORT}:80");
    node.run(&[
        "service",
        "create",
        "--name=ng",
        &replicas,
        &publish,
        "whoami",
    ])?;
    node.wait_for_endpoints(PORT, REPLICAS)?;
    let target = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
    let load = Load {
        concurrency: CLIENTS,
        requests: None,
        ..Load::new(target, 0)
    };
    let load = load.start(node.namespace())?;
    let (mut both_counted, mut kept) = (0, 0);
    for _ in 0..upgrades {
        let goal = load.begun() + BETWEEN;
        wait_until(LIMIT, "more requests", || {
            Ok((load.begun() >= goal).then_some(()))
        })?;
        let open = in_namespace(node, move || TcpStream::connect(target))?;
        wait_for_open(node)?;
        node.run(&["lb", "restart"])?;
        // Time for the new one to be busy.
        thread::sleep(Duration::from_millis(100));
        let both = node.balancers()?;
        if let [current, before, ..] = &both[..] {
            let counts = (accepted(current), open_connections(before));
            both_counted += usize::from(counts.0 > 0 && counts.1 > 0);
        }
        kept += usize::from(in_namespace(node, move || answered(open))?);
    }
    let report = load.stop()?;
    Ok(Replaced {
        upgrades,
        answered: report.answered(),
        #[expect(clippy::cast_precision_loss, reason = "a count of requests")]
        per_second: report.answered() as f64 / report.took.as_secs_f64(),
        failed: report.errors.clone().into_iter().collect(),
        both_counted,
        kept,
    })
}

/// More connections than the load has of its own.
fn wait_for_open(node: &Node) -> Result<()> {
    wait_until(LIMIT, "the connection that stays", || {
        let status = node.balancers()?;
        Ok((open_connections(&status[0]) > 0).then_some(()))
    })
}

fn in_namespace<T: Send + 'static>(
    node: &Node,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T> {
    let thread = node.namespace().thread(work)?;
    let joined = thread.join();
    Ok(joined.map_err(|_| anyhow::anyhow!("a client panicked"))???)
}

/// Sends a request over a connection that was opened earlier.
fn answered(mut stream: TcpStream) -> std::io::Result<bool> {
    use std::io::{Read as _, Write as _};
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.contains(" 200 "))
}

fn accepted(status: &Value) -> u64 {
    sum(status, |listener| &listener["accepted"])
}

fn open_connections(status: &Value) -> u64 {
    sum(status, |listener| &listener["traffic"]["active"])
}

fn sum(status: &Value, of: impl Fn(&Value) -> &Value) -> u64 {
    let listeners = status["listeners"].as_array();
    let counts = listeners.into_iter().flatten().map(of);
    counts.filter_map(Value::as_u64).sum()
}

impl Replaced {
    /// Whether nobody lost anything.
    pub(crate) fn is_flawless(&self) -> bool {
        self.failed.is_empty() && self.kept == self.upgrades
    }

    /// Refuses figures of a load that was not there.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(self.answered > 0, "no request was answered");
        let expected = BETWEEN * u64::try_from(self.upgrades).context("so many upgrades")?;
        ensure!(
            self.answered + self.failed.iter().map(|(_, count)| count).sum::<u64>() >= expected,
            "fewer requests than were waited for"
        );
        Ok(())
    }
}
