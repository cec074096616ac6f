//! One host: what a user does on it, and what happens to it.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::{
    Engine, Image, Namespace, Output, Process, cleanup, command, engine, process::processes,
    swarmlet_binary,
};

/// Limit of a command that has none of its own: `service create` may wait for
/// a cluster to converge on a loaded machine.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);

/// Table with the rules that cut the host off from others.
const FAULTS: &str = "swarmlet_faults";

/// A host with a network, an engine, and an environment in which `swarmlet`
/// and `docker` find what belongs to it.
#[derive(Debug)]
pub struct Host {
    namespace: Namespace,
    address: Ipv4Addr,
    engine: Engine,
    spawned: Mutex<Vec<Child>>,
}

impl Host {
    /// Starts the engine in `namespace` and imports `image` into it.
    pub(crate) fn start(
        namespace: Namespace,
        address: Ipv4Addr,
        run: &str,
        image: &ImportedFrom,
    ) -> Result<Self> {
        let engine = Engine::start(&namespace, run)?;
        let host = Self {
            namespace,
            address,
            engine,
            spawned: Mutex::default(),
        };
        fs::create_dir_all(host.data_directory())?;
        host.import_from(image)?;
        Ok(host)
    }

    /// Gives the host's engine one more image.
    ///
    /// # Errors
    ///
    /// When the image cannot be written, or the engine refuses it.
    pub fn import(&self, image: &Image) -> Result<()> {
        let archive = self.namespace.directory().join("import.tar");
        image.write_archive(&archive)?;
        self.import_from(&ImportedFrom {
            image,
            archive: &archive,
        })?;
        fs::remove_file(&archive).with_context(|| format!("cannot remove {}", archive.display()))
    }

    fn import_from(&self, image: &ImportedFrom) -> Result<()> {
        let mut import = self.command("docker");
        import
            .args(image.image.import_arguments()?)
            .stdin(File::open(image.archive)?);
        command::run(import, &self.commands(), COMMAND_LIMIT)?
            .success()
            .map(drop)
    }

    /// The host name: `host1`, `host2` …
    #[must_use]
    pub fn name(&self) -> &str {
        self.namespace.name()
    }

    /// The address at which other hosts and clients reach it.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Its namespaces, for instance to put load on others from here.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its engine.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Where swarmlet keeps its state on this host.
    #[must_use]
    pub fn data_directory(&self) -> PathBuf {
        self.namespace.directory().join("data")
    }

    /// swarmlet's control socket on this host.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.namespace.directory().join("swarmlet.sock")
    }

    /// A command that will run on the host, with its environment.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.namespace.command(program);
        command
            .env("SWARMLET_SOCKET", self.socket())
            .env(
                "DOCKER_CONFIG",
                self.namespace.directory().join("docker-config"),
            )
            .env("SWARMLET_DATA_DIR", self.data_directory())
            .env(
                "DOCKER_HOST",
                format!("unix://{}", self.engine.socket().display()),
            );
        command
    }

    /// Runs a command and waits for its end, 2 minutes at most.
    ///
    /// # Errors
    ///
    /// When it cannot be started or does not end in time. A command that
    /// fails is an [`Output`] with another exit code.
    pub fn run(&self, program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Result<Output> {
        self.run_within(COMMAND_LIMIT, program, args)
    }

    /// As [`run`](Self::run), with a limit.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn run_within(
        &self,
        limit: Duration,
        program: impl AsRef<std::ffi::OsStr>,
        args: &[&str],
    ) -> Result<Output> {
        let mut command = self.command(program);
        command.args(args);
        command::run(command, &self.commands(), limit)
    }

    /// Types `swarmlet ARGS`.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run), and when swarmlet has not been built.
    pub fn swarmlet(&self, args: &[&str]) -> Result<Output> {
        self.run(swarmlet_binary()?, args)
    }

    /// Types `docker ARGS`.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn docker(&self, args: &[&str]) -> Result<Output> {
        self.run("docker", args)
    }

    /// Starts a command that goes on running; its output goes to
    /// `NAME.log` in the host's directory. It ends with the host at the latest.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn spawn(
        &self,
        name: &str,
        program: impl AsRef<std::ffi::OsStr>,
        args: &[&str],
    ) -> Result<Pid> {
        let mut command = self.command(program);
        command.args(args);
        command::log_to(&mut command, &self.log(name))?;
        let child = command.spawn()?;
        let pid = Pid::from_child(&child);
        self.spawned
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(child);
        Ok(pid)
    }

    /// The log of a command that was [spawned](Self::spawn).
    #[must_use]
    pub fn log(&self, name: &str) -> PathBuf {
        self.namespace.directory().join(format!("{name}.log"))
    }

    /// The swarmlet daemon that runs on this host.
    ///
    /// # Errors
    ///
    /// When none does.
    pub fn daemon(&self) -> Result<Pid> {
        self.read_pid_file("daemon.pid")
    }

    /// The process that starts the daemon again when it dies.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn supervisor(&self) -> Result<Pid> {
        self.read_pid_file("supervisor.pid")
    }

    /// The balancer that runs on this host.
    ///
    /// # Errors
    ///
    /// When none does.
    pub fn balancer(&self) -> Result<Pid> {
        self.read_pid_file("lb.pid")
    }

    /// Where the host's balancer finds the first endpoint of its first port, if it has one.
    ///
    /// # Errors
    ///
    /// When `swarmlet lb status` fails, or says something else.
    pub fn endpoint(&self) -> Result<Option<SocketAddr>> {
        let status = self.swarmlet(&["lb", "status", "--format", "json"])?;
        let status: Value = serde_json::from_str(status.success()?.trim())?;
        let address = &status["listeners"][0]["endpoints"][0]["address"];
        let parsed = address.as_str().map(str::parse).transpose();
        parsed.with_context(|| format!("not an address: {address}"))
    }

    /// Sends a signal to a process of this host: KILL, STOP, CONT …
    /// A container's process is docker's to signal, and refused here.
    ///
    /// # Errors
    ///
    /// When there is no such process on this host.
    pub fn signal(&self, pid: Pid, signal: Signal) -> Result<()> {
        cleanup::signal(&self.own(pid)?, signal)
    }

    /// Drops every packet that comes from `sender`, be it for the host or for
    /// a container; packets to it still leave. Cutting twice changes nothing.
    ///
    /// # Errors
    ///
    /// When nft refuses.
    pub fn drop_from(&self, sender: Ipv4Addr) -> Result<()> {
        let chain = chain(sender);
        // Prerouting at priority raw: before the engine's address translation.
        let rules = format!(
            "add table ip {FAULTS}; \
             add chain ip {FAULTS} {chain} {{ type filter hook prerouting priority -300; }}; \
             flush chain ip {FAULTS} {chain}; \
             add rule ip {FAULTS} {chain} ip saddr {sender} counter drop"
        );
        self.nft(&rules)
    }

    /// Ends [`drop_from`](Self::drop_from) for one sender.
    ///
    /// # Errors
    ///
    /// When nft refuses, for instance since nothing was cut.
    pub fn accept_from(&self, sender: Ipv4Addr) -> Result<()> {
        let chain = chain(sender);
        self.nft(&format!(
            "flush chain ip {FAULTS} {chain}; delete chain ip {FAULTS} {chain}"
        ))
    }

    /// Drops so many of 100 packets, chosen at random, that come from `senders`.
    ///
    /// # Errors
    ///
    /// When nft refuses.
    pub fn lose_from(&self, senders: &[Ipv4Addr], of_100: u8) -> Result<()> {
        let senders: Vec<_> = senders.iter().map(Ipv4Addr::to_string).collect();
        let rules = format!(
            "add table ip {FAULTS}; \
             add chain ip {FAULTS} loss {{ type filter hook prerouting priority -300; }}; \
             flush chain ip {FAULTS} loss; \
             add rule ip {FAULTS} loss ip saddr {{ {} }} \
             numgen random mod 100 < {of_100} counter drop",
            senders.join(", ")
        );
        self.nft(&rules)
    }

    /// How many packets the faults of this host have dropped: a test whose fault dropped none
    /// has shown nothing.
    ///
    /// # Errors
    ///
    /// When nft refuses, for instance since there is no fault.
    pub fn dropped(&self) -> Result<u64> {
        let listed = self
            .run("nft", &["list", "table", "ip", FAULTS])?
            .success()?;
        let counts = listed.split("counter packets ").skip(1);
        let counts = counts.map(|rest| {
            let number = rest.split(' ').next().unwrap_or_default();
            number
                .parse::<u64>()
                .with_context(|| format!("no number: {rest}"))
        });
        counts.sum()
    }

    /// Ends every [`drop_from`](Self::drop_from) and [`lose_from`](Self::lose_from).
    ///
    /// # Errors
    ///
    /// When nft refuses.
    pub fn accept_all(&self) -> Result<()> {
        // "add" makes "delete" right whether or not the table is there.
        self.nft(&format!("add table ip {FAULTS}; delete table ip {FAULTS}"))
    }

    /// What runs on the host without being part of its engine or in a container:
    /// the swarmlet daemon, its balancer, tasks that are processes.
    ///
    /// # Errors
    ///
    /// When `/proc` cannot be read.
    pub fn guests(&self) -> Result<Vec<Process>> {
        let own = |process: &Process| {
            process.network == Some(self.namespace.network())
                && process.pid != self.namespace.holder()
                && !process.zombie
                && !process.was_started_with(engine::ROLE.0, engine::ROLE.1)
        };
        Ok(processes()?.into_iter().filter(own).collect())
    }

    /// Starts dockerd and containerd again where a test killed them, wakes
    /// them where it stopped them, and waits until the engine answers.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub fn restart_engine(&self) -> Result<()> {
        self.engine.start_again(&self.namespace)
    }

    /// Pulls the host's plug: daemon, balancer, engine and containers are gone at once, and what
    /// is on the disk stays. [`restart_engine`](Self::restart_engine) boots the engine again.
    ///
    /// # Errors
    ///
    /// When something cannot be killed.
    pub fn pull_the_plug(&self) -> Result<()> {
        self.signal(self.engine.dockerd()?, Signal::KILL)?;
        cleanup::kill_until_gone(&format!("guests of {}", self.name()), || self.guests())?;
        cleanup::kill_until_gone(&format!("containers of {}", self.name()), || {
            cleanup::group_members(self.engine.control_group())
        })
    }

    /// Makes the host as it was: no swarmlet, no container, no volume, no
    /// state, no fault; the engine with its images stays.
    ///
    /// # Errors
    ///
    /// When something cannot be removed.
    pub fn reset(&self) -> Result<()> {
        cleanup::kill_until_gone(&format!("guests of {}", self.name()), || {
            // The children of this process among them are dead only once they were waited for.
            self.spawned
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .retain_mut(|child| matches!(child.try_wait(), Ok(None)));
            self.guests()
        })?;
        // Not left to the engine: one that was killed would ask each container
        // to stop when it starts again, and wait 10 s for those that do not.
        cleanup::kill_until_gone(&format!("containers of {}", self.name()), || {
            cleanup::group_members(self.engine.control_group())
        })?;
        self.accept_all()?;
        self.restart_engine()?;
        self.remove_all(&["ps", "--all", "--quiet"], &["rm", "--force", "--volumes"])?;
        self.remove_all(&["volume", "ls", "--quiet"], &["volume", "rm", "--force"])?;
        remove_if_there(fs::remove_dir_all(self.data_directory()))?;
        remove_if_there(fs::remove_file(self.socket()))?;
        fs::create_dir_all(self.data_directory())?;
        Ok(())
    }

    fn remove_all(&self, list: &[&str], remove: &[&str]) -> Result<()> {
        let listed = self.docker(list)?.success()?;
        let found: Vec<&str> = listed.lines().collect();
        if !found.is_empty() {
            self.docker(&[remove, &found].concat())?.success()?;
        }
        Ok(())
    }

    fn nft(&self, rules: &str) -> Result<()> {
        self.run("nft", &[rules])?.success().map(drop)
    }

    fn read_pid_file(&self, name: &str) -> Result<Pid> {
        let path = self.data_directory().join(name);
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let pid = text.trim().parse().ok().and_then(Pid::from_raw);
        let pid =
            pid.with_context(|| format!("{} has no process id but {text:?}", path.display()))?;
        Ok(self.own(pid)?.pid)
    }

    fn own(&self, pid: Pid) -> Result<Process> {
        let process = Process::read(pid).filter(|process| !process.zombie);
        let process =
            process.with_context(|| format!("process {} has ended", pid.as_raw_nonzero()))?;
        ensure!(
            process.network == Some(self.namespace.network()),
            "{process:?} is not one of {}",
            self.name()
        );
        Ok(process)
    }

    fn commands(&self) -> PathBuf {
        self.namespace.directory().join("commands")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for mut child in self
            .spawned
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain(..)
        {
            // Fails only for a process that has ended already, which is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// An image and the archive that every host imports it from.
pub(crate) struct ImportedFrom<'a> {
    pub(crate) image: &'a Image,
    pub(crate) archive: &'a Path,
}

fn chain(sender: Ipv4Addr) -> String {
    format!("from_{}", sender.to_string().replace('.', "_"))
}

fn remove_if_there(result: std::io::Result<()>) -> std::io::Result<()> {
    result.or_else(|error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            Ok(())
        } else {
            Err(error)
        }
    })
}
