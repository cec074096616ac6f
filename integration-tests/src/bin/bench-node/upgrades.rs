//! Balancers that follow each other under load.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use anyhow::Result;
use serde_json::Value;
use swarmlet_integration_tests::{Load, wait_until};

use crate::node::Node;

const PORT: u16 = 80;

/// Endpoints of the service.
const REPLICAS: usize = 2;

/// New connections a second under which balancers are to follow each other.
pub(crate) const RATE_BOUND: f64 = 5_000.0;

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
        node.upgrade()?;
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
    /// What is wrong with it; nothing if nobody lost anything under the load that it takes.
    pub(crate) fn flaws(&self) -> Vec<String> {
        let mut flaws = Vec::new();
        for (kind, count) in &self.failed {
            flaws.push(format!("{count} requests failed: {kind}"));
        }
        let mut all = |what: &str, found: usize| {
            if found < self.upgrades {
                flaws.push(format!("{what} in {found} of {} upgrades", self.upgrades));
            }
        };
        all("the connection that was held was answered", self.kept);
        all("both processes told their counts", self.both_counted);
        let least = BETWEEN * self.upgrades as u64;
        if self.answered < least {
            flaws.push(format!("{} requests instead of {least}", self.answered));
        }
        // A build without optimisation forwards less than half as much.
        if self.per_second < RATE_BOUND && !cfg!(debug_assertions) {
            flaws.push(format!(
                "{:.0} new connections a second instead of {RATE_BOUND}",
                self.per_second
            ));
        }
        flaws
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_was_lost_is_a_flaw() {
        let good = || Replaced {
            upgrades: 2,
            answered: 10_000,
            per_second: 5_000.0,
            failed: Vec::new(),
            both_counted: 2,
            kept: 2,
        };
        assert_eq!(good().flaws(), [] as [String; 0]);
        let check = |change: fn(&mut Replaced), expected: &str| {
            let mut replaced = good();
            change(&mut replaced);
            assert_eq!(replaced.flaws(), [expected]);
        };
        check(
            |replaced| replaced.failed = vec![("reset".into(), 1)],
            "1 requests failed: reset",
        );
        check(
            |replaced| replaced.kept = 1,
            "the connection that was held was answered in 1 of 2 upgrades",
        );
        check(
            |replaced| replaced.both_counted = 0,
            "both processes told their counts in 0 of 2 upgrades",
        );
        check(
            |replaced| replaced.answered = 9_999,
            "9999 requests instead of 10000",
        );
        if !cfg!(debug_assertions) {
            check(
                |replaced| replaced.per_second = 4_999.0,
                "4999 new connections a second instead of 5000",
            );
        }
    }
}
