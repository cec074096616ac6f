//! The node: a cluster of one, in a namespace of its own.

use std::{
    cell::{Cell, RefCell},
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Signal, kill_process, test_kill_process};
use serde_json::Value;
use swarmlet_integration_tests::{
    Namespace, Pid,
    bench::{Route, Testbed},
    swarmlet_binary, wait_until,
};

/// Longest wait for anything that is not measured.
const LIMIT: Duration = Duration::from_secs(60);

/// See the module. Dropping it ends everything that runs on it.
pub(crate) struct Node {
    bed: Testbed,
    directory: PathBuf,
    /// Two files of the program, which take turns.
    programs: [PathBuf; 2],
    /// Upgrades so far.
    upgrades: Cell<usize>,
    /// The daemon, once the first one was upgraded.
    daemon: RefCell<Option<Child>>,
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
        let program = |name: &str| {
            let path = directory.join(name);
            fs::copy(swarmlet_binary()?, &path)
                .with_context(|| format!("cannot copy the program to {}", path.display()))?;
            Ok::<_, anyhow::Error>(path)
        };
        let programs = [program("swarmlet-a")?, program("swarmlet-b")?];
        let node = Self {
            bed,
            directory,
            programs,
            upgrades: Cell::new(0),
            daemon: RefCell::new(None),
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
        let [program, line @ ..] = &self.line(args)[..] else {
            bail!("no command");
        };
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        self.bed.balancer().run(program, &line)?.success()
    }

    fn line(&self, args: &[&str]) -> Vec<String> {
        let variable = |name: &str, file: &str| {
            format!("SWARMLET_{name}={}", self.directory.join(file).display())
        };
        let mut line = vec![
            "env".to_owned(),
            variable("SOCKET", "socket"),
            variable("DATA_DIR", "data"),
            "SWARMLET_RUNTIME=process".to_owned(),
            self.program().display().to_string(),
        ];
        line.extend(args.iter().map(|arg| (*arg).to_owned()));
        line
    }

    /// The file of the program that is installed now.
    fn program(&self) -> &Path {
        &self.programs[self.upgrades.get() % 2]
    }

    /// Installs the other file of the program, as an upgrade of the package does: the daemon ends
    /// and is started anew from it, and replaces the balancer, which is of the file before.
    pub(crate) fn upgrade(&self) -> Result<()> {
        let before = self.balancers()?[0]["pid"].clone();
        self.end_daemon()?;
        self.upgrades.set(self.upgrades.get() + 1);
        let line = self.line(&["daemon"]);
        let log = self.directory.join("daemon.log");
        let log = File::options().append(true).create(true).open(log)?;
        let mut command = self.bed.balancer().command(&line[0]);
        command.args(&line[1..]).stdout(Stdio::null()).stderr(log);
        self.daemon.replace(Some(command.spawn()?));
        wait_until(LIMIT, "the next balancer", || {
            // The daemon does not answer at once.
            let Ok(status) = self.balancers() else {
                return Ok(None);
            };
            Ok((status[0]["pid"] != before).then_some(()))
        })?;
        let pid = self.balancers()?[0]["pid"].clone();
        let runs = fs::read_link(format!("/proc/{pid}/exe"))?;
        ensure!(
            runs == self.program(),
            "the balancer runs {} instead of {}",
            runs.display(),
            self.program().display()
        );
        Ok(())
    }

    /// By SIGTERM; of the first one, which is detached, the parent.
    fn end_daemon(&self) -> Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            kill_process(Pid::from_child(&daemon), Signal::TERM)?;
            let status = daemon.wait()?;
            ensure!(status.success(), "the daemon ended with {status}");
            return Ok(());
        }
        let pid = |name: &str| -> Result<Pid> {
            let text = fs::read_to_string(self.directory.join("data").join(name))?;
            Pid::from_raw(text.trim().parse()?).with_context(|| format!("{name} has no process"))
        };
        let both = [pid("supervisor.pid")?, pid("daemon.pid")?];
        kill_process(both[0], Signal::TERM)?;
        wait_until(LIMIT, "the end of the first daemon", || {
            let gone = both.iter().all(|pid| test_kill_process(*pid).is_err());
            Ok(gone.then_some(()))
        })
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

impl Drop for Node {
    fn drop(&mut self) {
        // What it leaves ends with the namespace.
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
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
