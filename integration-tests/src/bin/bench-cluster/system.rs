//! The two systems, which know the same verbs.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use swarmlet_integration_tests::{Host, Hosts, Output, Signal, swarmlet_binary, wait_until};

/// The service that everything is measured with.
pub(crate) const SERVICE: &str = "bench";

/// Longest wait for anything that is measured.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// A command that waits for a leader is given up after this time and typed again.
const PATIENCE: Duration = Duration::from_secs(20);

/// Who keeps the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum System {
    Swarmlet,
    Swarm,
}

impl System {
    pub(crate) const ALL: [Self; 2] = [Self::Swarmlet, Self::Swarm];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Swarmlet => "swarmlet",
            Self::Swarm => "Docker Swarm",
        }
    }

    /// Types a command of the system.
    pub(crate) fn run(self, host: &Host, args: &[&str]) -> Result<Output> {
        match self {
            Self::Swarmlet => host.run_within(PATIENCE, swarmlet_binary()?, args),
            Self::Swarm => host.run_within(PATIENCE, "docker", args),
        }
    }

    /// Three managers.
    pub(crate) fn begin(self, hosts: &Hosts) -> Result<()> {
        let prefix: &[&str] = match self {
            Self::Swarmlet => &[],
            Self::Swarm => &["swarm"],
        };
        let first = &hosts[0];
        let type_it = |host: &Host, words: &[&str]| {
            let words = [prefix, words].concat();
            self.run(host, &words)?.success()
        };
        let address = first.address().to_string();
        type_it(first, &["init", "--advertise-addr", &address])?;
        let token = type_it(first, &["join-token", "--quiet", "manager"])?;
        let manager = format!("{address}:2377");
        for host in hosts.iter().skip(1) {
            type_it(host, &["join", "--token", token.trim(), &manager])?;
        }
        wait_until(LIMIT, "three ready nodes", || {
            Ok((self.ready(first)? == hosts.iter().count()).then_some(()))
        })
    }

    /// Adds the service with one replica, and does not wait.
    pub(crate) fn create(self, host: &Host) -> Result<()> {
        // The image is on every host and in no registry.
        let words = [
            "service",
            "create",
            "--detach",
            "--no-resolve-image",
            "--name",
            SERVICE,
            "whoami",
        ];
        self.run(host, &words)?.success().map(drop)
    }

    /// Changes the number of replicas, and does not wait.
    pub(crate) fn scale(self, host: &Host, replicas: usize) -> Result<Output> {
        let wish = format!("{SERVICE}={replicas}");
        self.run(host, &["service", "scale", "--detach", &wish])
    }

    /// Changes the number of replicas and waits as a user does who did not say otherwise.
    pub(crate) fn scale_attached(self, host: &Host, replicas: usize) -> Result<()> {
        let wish = format!("{SERVICE}={replicas}");
        self.run(host, &["service", "scale", &wish])?
            .success()
            .map(drop)
    }

    /// Nodes that are ready.
    pub(crate) fn ready(self, host: &Host) -> Result<usize> {
        let nodes = self.nodes(host)?;
        Ok(nodes
            .iter()
            .filter(|node| node["Status"] == "Ready")
            .count())
    }

    /// The host that leads.
    pub(crate) fn leader(self, hosts: &Hosts) -> Result<&Host> {
        let nodes = self.nodes(&hosts[0])?;
        let leader = nodes.iter().find(|node| node["ManagerStatus"] == "Leader");
        let leader = leader.with_context(|| format!("no leader in {nodes:?}"))?;
        hosts
            .iter()
            .find(|host| leader["Hostname"] == host.name())
            .context("the leader is none of the hosts")
    }

    /// Kills the manager of a host for good: the daemon with its supervisor, or the engine that
    /// it is a part of.
    pub(crate) fn kill_manager(self, host: &Host) -> Result<()> {
        match self {
            Self::Swarmlet => {
                host.signal(host.supervisor()?, Signal::KILL)?;
                host.signal(host.daemon()?, Signal::KILL)
            }
            Self::Swarm => host.signal(host.engine().dockerd()?, Signal::KILL),
        }
    }

    /// Ends the cluster on all hosts.
    pub(crate) fn leave(self, hosts: &Hosts) -> Result<()> {
        if self == Self::Swarmlet {
            // A reset of the hosts ends everything that is not the engine's.
            return Ok(());
        }
        for host in hosts {
            hosts.connect(host)?;
            host.restart_engine()?;
            let left = host.docker(&["swarm", "leave", "--force"])?;
            let gone = left.stderr.contains("not part of a swarm");
            ensure!(left.code == Some(0) || gone, "{left:?}");
        }
        Ok(())
    }

    fn nodes(self, host: &Host) -> Result<Vec<Value>> {
        let format = match self {
            Self::Swarmlet => "json",
            Self::Swarm => "{{json .}}",
        };
        let listed = self.run(host, &["node", "ls", "--format", format])?;
        let text = listed.success()?;
        let node = |line| serde_json::from_str(line).with_context(|| format!("not JSON: {line}"));
        text.lines().map(node).collect()
    }
}

/// Containers that run on these hosts, as their engines say.
pub(crate) fn running<'a>(hosts: impl IntoIterator<Item = &'a Host>) -> Result<usize> {
    hosts.into_iter().map(running_on).sum()
}

/// Asks the engine itself: a process of `docker ps` for each look would be a load of its own.
fn running_on(host: &Host) -> Result<usize> {
    let mut stream = UnixStream::connect(host.engine().socket())?;
    stream.set_read_timeout(Some(LIMIT))?;
    // Without a filter it lists those that run. An answer to HTTP/1.0 is not in chunks.
    stream.write_all(b"GET /containers/json HTTP/1.0\r\nHost: engine\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer
        .split_once("\r\n\r\n")
        .context("the engine's answer has no end of its head")?;
    let list: Vec<Value> = serde_json::from_str(body)
        .with_context(|| format!("{}'s engine answered {answer:?}", host.name()))?;
    Ok(list.len())
}
