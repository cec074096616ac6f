//! A swarm on the shared hosts: made as a user makes it, and asked as a user
//! and a client ask.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use swarmlet_integration_tests::{
    Host, Hosts, Image, Load, LoadReport, Output, Pid, SharedHosts, Signal, swarmlet_binary,
    wait_until,
};

/// Longest wait for something that takes a second or two on an idle machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Longest wait for something that has a pause of seconds in it, such as a
/// node that is given up or a restart with back-off.
pub(crate) const LATER: Duration = Duration::from_secs(60);

/// The log of a daemon that a test started by itself.
const DAEMON_LOG: &str = "daemon";

/// Lines of each log that a failed test prints.
const KEPT_LINES: usize = 30;

/// The hosts that the tests of a binary share, three mostly, of which none, some or all are nodes
/// of a swarm.
pub(crate) struct Cluster {
    pub(crate) hosts: SharedHosts,
}

/// One line of `service ps --format json`.
#[derive(Clone, Debug)]
pub(crate) struct TaskLine {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) node: String,
    /// `Running 5 seconds ago`.
    pub(crate) current: String,
    pub(crate) error: String,
}

impl TaskLine {
    pub(crate) fn is(&self, state: &str) -> bool {
        self.current.split(' ').next() == Some(state)
    }
}

impl Cluster {
    /// Three hosts without a swarm.
    pub(crate) fn without_swarm() -> Result<Self> {
        Self::of(3)
    }

    /// So many hosts without a swarm; all tests of a binary ask for as many.
    pub(crate) fn of(hosts: u8) -> Result<Self> {
        let hosts = Hosts::shared(hosts, &Image::whoami()?)?;
        for host in hosts.iter() {
            // Another test's, with nothing that would help to understand this one.
            if host.log(DAEMON_LOG).exists() {
                fs::remove_file(host.log(DAEMON_LOG))?;
            }
        }
        Ok(Self { hosts })
    }

    /// A swarm of three nodes, the first `managers` of them managers.
    pub(crate) fn start(managers: usize) -> Result<Self> {
        let cluster = Self::without_swarm()?;
        cluster.make_swarm(managers)?;
        Ok(cluster)
    }

    /// Makes the hosts a swarm, with the first `managers` of them as managers.
    pub(crate) fn make_swarm(&self, managers: usize) -> Result<()> {
        let first = &self.hosts[0];
        let started = Instant::now();
        let address = first.address().to_string();
        first
            .swarmlet(&["init", "--advertise-addr", &address])?
            .success()?;
        for (number, host) in self.hosts.iter().enumerate().skip(1) {
            let role = if number < managers {
                "manager"
            } else {
                "worker"
            };
            self.join(host, role)?;
        }
        let count = self.hosts.iter().count();
        wait_until(SOON, &format!("{count} ready nodes"), || {
            let nodes = self.nodes(first)?;
            let ready = nodes.values().filter(|node| node["Status"] == "Ready");
            Ok((ready.count() == count).then_some(()))
        })?;
        let took = started.elapsed().as_secs_f64();
        eprintln!("swarm of {count}: {took:.2} s");
        Ok(())
    }

    /// As [`Self::start`], with a service `ng` on port 80 that has converged.
    pub(crate) fn serving(managers: usize, replicas: u32) -> Result<Self> {
        let cluster = Self::start(managers)?;
        cluster.serve(replicas)?;
        Ok(cluster)
    }

    /// Creates a service `ng` on port 80 and waits until it has converged.
    pub(crate) fn serve(&self, replicas: u32) -> Result<()> {
        let replicas = replicas.to_string();
        let service = ["--name", "ng", "--replicas", &replicas];
        self.create(&[&service[..], &["-p", "80:80", "whoami"]].concat())?;
        Ok(())
    }

    /// The token that the first host prints for a role.
    pub(crate) fn token(&self, role: &str) -> Result<String> {
        let token = self.hosts[0].swarmlet(&["join-token", "--quiet", role])?;
        Ok(token.success()?.trim().to_owned())
    }

    /// Joins a host to the swarm of the first one.
    pub(crate) fn join(&self, host: &Host, role: &str) -> Result<()> {
        let manager = format!("{}:2377", self.hosts[0].address());
        let token = self.token(role)?;
        let joined = host.swarmlet(&["join", "--token", &token, &manager])?;
        ensure!(joined.success()?.contains(role), "joined as something else");
        Ok(())
    }

    /// Types a command on the first host that is to succeed; what it printed.
    pub(crate) fn swarmlet(&self, args: &[&str]) -> Result<String> {
        self.hosts[0].swarmlet(args)?.success()
    }

    /// Waits until a change that is asked for through a host is accepted.
    pub(crate) fn wait_for_write(&self, host: &Host, label: &str) -> Result<()> {
        let words = ["node", "update", "--label-add", label, host.name()];
        let what = format!("a write through {}", host.name());
        wait_until(LATER, &what, || host.swarmlet(&words)?.success().map(Some))?;
        Ok(())
    }

    /// Creates a service and waits until it has converged.
    pub(crate) fn create(&self, args: &[&str]) -> Result<String> {
        let words = [&["service", "create"], args].concat();
        Ok(self.swarmlet(&words)?.trim().to_owned())
    }

    /// `node ls`, by host name.
    pub(crate) fn nodes(&self, asked: &Host) -> Result<BTreeMap<String, Value>> {
        let nodes = json_lines(&read(asked, &["node", "ls", "--format", "json"])?)?;
        Ok(nodes
            .into_iter()
            .map(|node| (text(&node, "Hostname"), node))
            .collect())
    }

    /// `service ps`, tasks of the past included.
    pub(crate) fn tasks(&self, asked: &Host, service: &str) -> Result<Vec<TaskLine>> {
        let words = ["service", "ps", "--no-trunc", "--format", "json", service];
        let tasks = json_lines(&read(asked, &words)?)?;
        Ok(tasks
            .iter()
            .map(|task| TaskLine {
                id: text(task, "ID"),
                name: text(task, "Name"),
                node: text(task, "Node"),
                current: text(task, "CurrentState"),
                error: text(task, "Error"),
            })
            .collect())
    }

    /// Host names (short container ids) of the running containers, by host.
    pub(crate) fn containers(&self) -> Result<BTreeMap<String, BTreeSet<String>>> {
        self.hosts
            .iter()
            .map(|host| {
                let ids = host.docker(&["ps", "--quiet"])?.success()?;
                let ids = ids.lines().map(str::to_owned).collect();
                Ok((host.name().to_owned(), ids))
            })
            .collect()
    }

    /// Host names of the running containers of all hosts.
    pub(crate) fn names(&self) -> Result<BTreeSet<String>> {
        Ok(self.containers()?.into_values().flatten().collect())
    }

    /// When each container was started, as its engine says.
    pub(crate) fn started(&self) -> Result<BTreeMap<String, String>> {
        let mut started = BTreeMap::new();
        for host in self.hosts.iter() {
            let ids = host.docker(&["ps", "--quiet"])?.success()?;
            let ids: Vec<&str> = ids.lines().collect();
            if ids.is_empty() {
                continue;
            }
            let format = ["inspect", "--format", "{{.Id}} {{.State.StartedAt}}"];
            let lines = host.docker(&[&format[..], &ids].concat())?.success()?;
            let pairs = lines.lines().filter_map(|line| line.split_once(' '));
            started.extend(pairs.map(|(id, at)| (id.to_owned(), at.to_owned())));
        }
        Ok(started)
    }

    /// The published port of each host.
    pub(crate) fn targets(&self, port: u16) -> Vec<SocketAddr> {
        self.hosts.iter().map(|host| at(host, port)).collect()
    }

    /// Sends requests from the client to one host's published port.
    pub(crate) fn ask(&self, host: &Host, port: u16, requests: u64) -> Result<LoadReport> {
        Load::new(at(host, port), requests).run(self.hosts.client())
    }

    /// Waits until `host` answers for exactly these containers, in turn.
    pub(crate) fn answers(&self, host: &Host, port: u16, names: &BTreeSet<String>) -> Result<()> {
        let what = format!("{} containers behind {}:{port}", names.len(), host.name());
        wait_until(SOON, &what, || {
            let report = self.ask(host, port, 2 * names.len() as u64)?;
            ensure!(
                report.answers.keys().collect::<Vec<_>>() == names.iter().collect::<Vec<_>>()
                    && report.failed() == 0,
                "{}",
                report.to_json()
            );
            Ok(Some(()))
        })
    }

    /// Waits until every host answers for exactly the running containers.
    pub(crate) fn all_answer(&self, port: u16) -> Result<BTreeSet<String>> {
        let names = self.names()?;
        for host in self.hosts.iter() {
            self.answers(host, port, &names)?;
        }
        Ok(names)
    }

    /// The host whose manager leads, as `asked` says.
    pub(crate) fn leader(&self, asked: &Host) -> Result<usize> {
        let nodes = self.nodes(asked)?;
        let leader = nodes
            .iter()
            .find(|(_, node)| node["ManagerStatus"] == "Leader")
            .with_context(|| format!("no leader in {nodes:?}"))?;
        self.hosts
            .iter()
            .position(|host| host.name() == leader.0)
            .context("the leader is none of the hosts")
    }

    /// Kills the daemon of a host with signal 9, for good: what would start it
    /// again is killed before.
    pub(crate) fn kill_daemon(&self, host: &Host) -> Result<()> {
        if let Ok(supervisor) = host.supervisor() {
            host.signal(supervisor, Signal::KILL)?;
        }
        let daemon = host.daemon()?;
        host.signal(daemon, Signal::KILL)?;
        wait_until(SOON, "end of the daemon", || {
            Ok(host.daemon().is_err().then_some(()))
        })
    }

    /// Starts the daemon of a host again, as a service manager does.
    pub(crate) fn start_daemon(&self, host: &Host) -> Result<Pid> {
        host.spawn(DAEMON_LOG, swarmlet_binary()?, &["daemon"])
    }
}

impl Drop for Cluster {
    /// What a failed test leaves to read, since the hosts are reset before the next one.
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        for host in self.hosts.iter() {
            let data = host.data_directory();
            // A daemon that the test started again has a log of its own.
            for log in [
                data.join("daemon.log"),
                host.log(DAEMON_LOG),
                data.join("lb.log"),
            ] {
                let text = fs::read_to_string(&log).unwrap_or_else(|error| error.to_string());
                let lines: Vec<_> = text.lines().collect();
                let kept = &lines[lines.len().saturating_sub(KEPT_LINES)..];
                eprintln!("--- {}:\n{}", log.display(), kept.join("\n"));
            }
        }
    }
}

/// A port of a host, as clients name it.
pub(crate) fn at(host: &Host, port: u16) -> SocketAddr {
    (host.address(), port).into()
}

/// A line of text in an object.
pub(crate) fn text(object: &Value, key: &str) -> String {
    object[key].as_str().unwrap_or_default().to_owned()
}

/// Reads what `--format json` prints: an object to a line.
pub(crate) fn json_lines(text: &str) -> Result<Vec<Value>> {
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).with_context(|| format!("not JSON: {line}")))
        .collect()
}

/// Every container answered, as often as any other, give or take one.
pub(crate) fn check_even(report: &LoadReport, names: &BTreeSet<String>, what: &str) {
    let answered: BTreeSet<_> = report.answers.keys().cloned().collect();
    assert_eq!(report.failed(), 0, "{what}: {}", report.to_json());
    assert_eq!(&answered, names, "{what}: {}", report.to_json());
    assert!(report.spread() <= 1, "{what}: {}", report.to_json());
    eprintln!(
        "{what}: {} requests, {} containers, {:?} each, p99 {:.1} ms",
        report.answered(),
        names.len(),
        report
            .answers
            .values()
            .min()
            .zip(report.answers.values().max()),
        report.latency(0.99).unwrap_or_default().as_secs_f64() * 1e3,
    );
}

/// What a command that reads prints, as of now: what a manager without a leader knew last is an
/// error.
pub(crate) fn read(asked: &Host, words: &[&str]) -> Result<String> {
    let output = asked.swarmlet(words)?;
    ensure!(
        !output.stderr.contains("may be stale"),
        "not read as of now: {output:?}"
    );
    output.success()
}

/// A command was refused: its code, nothing but one line on stderr, and what that says.
#[track_caller]
pub(crate) fn check_refused(output: &Output, code: i32, expected: &str) {
    let lines: Vec<_> = output.stderr.lines().collect();
    assert_eq!(output.code, Some(code), "{output:?}");
    assert_eq!(lines.len(), 1, "not one line: {output:?}");
    let prefix = if code == 2 { "error: " } else { "Error: " };
    assert!(lines[0].starts_with(prefix), "{output:?}");
    assert!(
        lines[0].contains(expected),
        "expected {expected:?} in {output:?}"
    );
    eprintln!("{} -> {code}: {}", output.command, lines[0]);
}
