//! The balancers that are compared, and how each is started.

use std::{
    env,
    io::Read as _,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use swarmlet_integration_tests::{Namespace, Pid, bench, processes, swarmlet_binary, wait_until};

use crate::{cell::Workload, configuration, measure::Setup};

/// Programs of other packages; `integration-tests/install-bench-prerequisites` installs them.
const PROGRAMS: [&str; 6] = ["haproxy", "nginx", "nft", "taskset", "ip", "nsenter"];

/// One takes part in each measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Contender {
    Swarmlet,
    /// The same program a second time: what differs between the two is chance.
    SwarmletAgain,
    HaProxy,
    /// HAProxy with large buffers instead of splicing: which of the two is better depends on
    /// what counts. For bulk only.
    HaProxyBuffers,
    Nginx,
    /// The kernel's address translation.
    Nft,
    /// The client speaks to the server itself.
    Direct,
}

impl Contender {
    pub(crate) const ALL: [Self; 7] = [
        Self::Swarmlet,
        Self::HaProxy,
        Self::HaProxyBuffers,
        Self::Nginx,
        Self::SwarmletAgain,
        Self::Nft,
        Self::Direct,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Swarmlet => "swarmlet",
            Self::SwarmletAgain => "swarmlet (again)",
            Self::HaProxy => "HAProxy",
            Self::HaProxyBuffers => "HAProxy (buffers)",
            Self::Nginx => "nginx",
            Self::Nft => "nft DNAT",
            Self::Direct => "direct",
        }
    }

    /// All who take part in a workload, in an order that moves on with the round: nobody always
    /// follows the same one.
    pub(crate) fn in_turn(workload: Workload, round: u32) -> impl Iterator<Item = Self> {
        let first = round as usize % Self::ALL.len();
        (0..Self::ALL.len())
            .map(move |index| Self::ALL[(first + index) % Self::ALL.len()])
            .filter(move |one| *one != Self::HaProxyBuffers || workload.has_bulk())
    }

    /// Whether it is a process, with time and memory of its own.
    pub(crate) fn is_process(self) -> bool {
        !matches!(self, Self::Nft | Self::Direct)
    }
}

/// A balancer at work. Dropping it ends it.
pub(crate) struct Running<'a> {
    contender: Contender,
    namespace: &'a Namespace,
    child: Option<Child>,
    pids: Vec<Pid>,
}

impl<'a> Running<'a> {
    /// Starts it and waits until it forwards.
    pub(crate) fn start(setup: &Setup<'a>, contender: Contender) -> Result<Self> {
        let namespace = setup.testbed.balancer();
        let mut running = Self {
            contender,
            namespace,
            child: None,
            pids: Vec::new(),
        };
        let file = |name: &str, text: &str| {
            let path = setup.testbed.directory().join(name);
            std::fs::write(&path, text)?;
            Ok::<_, anyhow::Error>(path.display().to_string())
        };
        let words: Vec<String> = match contender {
            Contender::Swarmlet | Contender::SwarmletAgain => {
                let config = file("lb.toml", &configuration::swarmlet(setup))?;
                let binary = swarmlet_binary()?.display().to_string();
                vec![binary, "lb".into(), "--config".into(), config]
            }
            Contender::HaProxy | Contender::HaProxyBuffers => {
                let text = configuration::haproxy(setup, contender);
                let config = file("haproxy.cfg", &text)?;
                vec!["haproxy".into(), "-db".into(), "-f".into(), config]
            }
            Contender::Nginx => {
                let config = file("nginx.conf", &configuration::nginx(setup))?;
                vec!["nginx".into(), "-c".into(), config]
            }
            Contender::Nft => {
                let rules = file("dnat.nft", &configuration::nft(setup))?;
                namespace.run("nft", &["-f", &rules])?.success()?;
                return Ok(running);
            }
            Contender::Direct => return Ok(running),
        };
        let mut command = pinned(namespace, setup.cell.layout.balancer());
        command
            .args(&words)
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        running.child = Some(command.spawn().context("cannot start it")?);
        running.wait(setup)?;
        Ok(running)
    }

    /// Its processes.
    pub(crate) fn pids(&self) -> &[Pid] {
        &self.pids
    }

    /// Time that it has had of processors.
    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        self.pids.iter().map(|pid| bench::cpu_time(*pid)).sum()
    }

    /// Memory that it has.
    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        self.pids
            .iter()
            .map(|pid| bench::resident_bytes(*pid))
            .sum()
    }

    fn wait(&mut self, setup: &Setup<'_>) -> Result<()> {
        let child = self.child.as_mut().context("not a process")?;
        for port in [setup.small_port(), setup.bulk_port()] {
            let address = (setup.balancer, port);
            wait_until(Duration::from_secs(5), "an open port", || {
                if child.try_wait()?.is_some() {
                    return Ok(Some(()));
                }
                let connect = move || std::net::TcpStream::connect(address).map(drop);
                let connected = self.namespace.thread(connect)?.join();
                connected.map_err(|_| anyhow::anyhow!("a thread panicked"))???;
                Ok(Some(()))
            })?;
        }
        if let Some(status) = child.try_wait()? {
            let mut reason = String::new();
            if let Some(stderr) = &mut child.stderr {
                stderr.read_to_string(&mut reason)?;
            }
            anyhow::bail!("it ended with {status}: {reason}");
        }
        let pid = Pid::from_child(child);
        self.pids = vec![pid];
        if self.contender == Contender::Nginx {
            // Its port is open before those are there that forward.
            let workers = wait_until(Duration::from_secs(5), "nginx's workers", || {
                let workers = children(pid)?;
                Ok((workers.len() == setup.cell.layout.threads()).then_some(workers))
            })?;
            self.pids.extend(workers);
        }
        Ok(())
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if self.contender == Contender::Nft {
            // The namespace ends with the run; a rule that stays shows as a failed measurement.
            let _ = self.namespace.run("nft", &["delete table ip bench"]);
        }
        // Looked up anew: one that failed to start may have children that are not known yet,
        // and nginx's outlive it.
        let master = self.child.as_ref().map(Pid::from_child);
        let workers = master.and_then(|master| children(master).ok());
        for pid in workers.unwrap_or_default() {
            // Fails only for a process that has ended already, which is what is wanted.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The processes that a process has started.
fn children(parent: Pid) -> Result<Vec<Pid>> {
    let parent = parent.as_raw_nonzero().get();
    let all = processes()?.into_iter();
    Ok(all
        .filter(|process| process.parent == parent)
        .map(|process| process.pid)
        .collect())
}

/// A command in a namespace that runs on that processor only.
pub(crate) fn pinned(namespace: &Namespace, processor: Option<usize>) -> Command {
    match processor {
        Some(processor) => {
            let mut command = namespace.command("taskset");
            command.args(["--cpu-list", &processor.to_string()]);
            command
        }
        // nsenter ends its own options with "--".
        None => namespace.command("env"),
    }
}

/// Says what is missing before anything is measured.
pub(crate) fn check_programs() -> Result<()> {
    let path = env::var_os("PATH").unwrap_or_default();
    let there = |program: &&str| env::split_paths(&path).any(|at| at.join(program).is_file());
    let missing: Vec<&str> = PROGRAMS.into_iter().filter(|name| !there(name)).collect();
    ensure!(
        missing.is_empty(),
        "not in PATH: {}; run integration-tests/install-bench-prerequisites",
        missing.join(", ")
    );
    ensure!(
        std::thread::available_parallelism()?.get() >= 2,
        "the layouts X and F need two processors"
    );
    Ok(())
}
