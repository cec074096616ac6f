//! The node: a cluster of one, in a namespace of its own.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use serde_json::Value;
use swarmlet_integration_tests::{
    Namespace,
    bench::{Route, Testbed},
    swarmlet_binary, wait_until,
};

/// Longest wait for anything that is not measured.
const LIMIT: Duration = Duration::from_secs(60);

/// See the module. Dropping it ends everything that runs on it.
pub(crate) struct Node {
    bed: Testbed,
    directory: PathBuf,
    binary: PathBuf,
}

/// A line of the balancer's log: a table has come into force.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InForce {
    /// Published ports.
    pub(crate) ports: u64,
    /// When, in microseconds since the Unix epoch.
    pub(crate) at_us: u64,
    /// Time since the balancer had received it.
    pub(crate) took_us: u64,
}

impl Node {
    pub(crate) fn start() -> Result<Self> {
        let bed = Testbed::start()?;
        let directory = bed.balancer().directory().join("node");
        fs::create_dir_all(&directory)?;
        let node = Self {
            bed,
            directory,
            binary: swarmlet_binary()?,
        };
        node.run(&["init", "--advertise-addr", "127.0.0.1"])?;
        Ok(node)
    }

    /// Where its clients are.
    pub(crate) fn namespace(&self) -> &Namespace {
        self.bed.client(Route::Loopback)
    }

    /// Types a command on the node; it must succeed.
    pub(crate) fn run(&self, args: &[&str]) -> Result<String> {
        let variable = |name: &str, file: &str| {
            format!("SWARMLET_{name}={}", self.directory.join(file).display())
        };
        let environment = [
            variable("SOCKET", "socket"),
            variable("DATA_DIR", "data"),
            "SWARMLET_RUNTIME=process".to_owned(),
        ];
        let binary = self.binary.to_string_lossy();
        let mut line: Vec<&str> = environment.iter().map(String::as_str).collect();
        line.push(&binary);
        line.extend(args);
        self.bed.balancer().run("env", &line)?.success()
    }

    /// What the balancers that run say of themselves, the one that listens first.
    pub(crate) fn balancers(&self) -> Result<Vec<Value>> {
        let text = self.run(&["lb", "status", "--format", "json"])?;
        let one = |line| serde_json::from_str(line).with_context(|| format!("not JSON: {line}"));
        text.lines().map(one).collect()
    }

    /// Waits until a port has so many endpoints that take connections.
    pub(crate) fn wait_for_endpoints(&self, port: u16, count: usize) -> Result<()> {
        wait_until(LIMIT, &format!("{count} endpoints of port {port}"), || {
            let status = self.balancers()?;
            let listeners = status[0]["listeners"].as_array();
            let listener = listeners
                .into_iter()
                .flatten()
                .find(|listener| listener["port"] == port);
            let endpoints = listener.and_then(|listener| listener["endpoints"].as_array());
            let ready = |endpoint: &&Value| endpoint["condition"] == "ready";
            let ready = endpoints.map_or(0, |all| all.iter().filter(ready).count());
            Ok((ready == count).then_some(()))
        })
    }

    /// The tables that the balancer has said to be in force, oldest first.
    pub(crate) fn tables(&self) -> Result<Vec<InForce>> {
        let log = self.directory.join("data/lb.log");
        let text =
            fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
        let lines = text.lines().filter(|line| line.contains("table in force"));
        lines
            .map(|line| in_force(line).with_context(|| format!("not a line of the log: {line}")))
            .collect()
    }
}

/// `2026-11-23T07:00:00.123456Z  INFO … table in force version=7 ports=3 unbound=0 took_us=41`
fn in_force(line: &str) -> Option<InForce> {
    let field = |name: &str| -> Option<u64> {
        let rest = line.split_once(&format!(" {name}="))?.1;
        rest.split(' ').next()?.parse().ok()
    };
    let (date, time) = line.split(' ').next()?.strip_suffix('Z')?.split_once('T')?;
    let numbers = |text: &str, between: char| -> Option<Vec<u64>> {
        text.split(between).map(|part| part.parse().ok()).collect()
    };
    let (clock, micros) = time.split_once('.')?;
    let (&[year, month, day], &[hour, minute, second]) =
        (&numbers(date, '-')?[..], &numbers(clock, ':')?[..])
    else {
        return None;
    };
    let seconds = ((days_since_epoch(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    Some(InForce {
        ports: field("ports")?,
        at_us: seconds * 1_000_000 + micros.parse::<u64>().ok()?,
        took_us: field("took_us")?,
    })
}

/// Of the Gregorian calendar, after 1970. A year begins in March here, so that its odd day is
/// its last.
fn days_since_epoch(year: u64, month: u64, day: u64) -> u64 {
    const TO_1970: u64 = 719_468;
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let leap_days = year / 4 - year / 100 + year / 400;
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - TO_1970
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_log_is_a_moment() {
        let line = "2026-11-23T07:00:00.123456Z  INFO swarmlet_lb::balancer: table in force \
                    version=7 ports=3 unbound=0 took_us=41";
        let found = in_force(line).unwrap();
        assert_eq!((found.ports, found.took_us), (3, 41));
        assert_eq!(found.at_us, 1_795_417_200_123_456);
        assert_eq!(days_since_epoch(1970, 1, 1), 0);
        assert_eq!(
            days_since_epoch(2024, 3, 1) - days_since_epoch(2024, 2, 28),
            2
        );
        assert!(in_force("table in force").is_none());
    }
}
