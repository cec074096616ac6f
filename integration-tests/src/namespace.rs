//! A set of kernel namespaces (network, mount, host name) held by a process.
//!
//! There are no names below `/run/netns`: a namespace that only processes hold
//! is gone when they are, however they end, and so are its mounts, links,
//! routes and filter rules.

use std::{
    fs::{self, File},
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Child, Command},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::{
    process::Pid,
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use crate::{Output, cleanup::RUN_VARIABLE, command, process, wait_until};

/// A command that configures the network has no reason to take longer.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// What the holding process does before it falls asleep. The first two directories
/// are where containerd and dockerd write whatever their flags say: hidden
/// behind file systems of the host's own, so that nothing stays behind. The others are the
/// engine's own: in memory, for an engine waits for its disk at each start of a container, and
/// that of a machine that has just built all this may be busy for many seconds.
const HOLD: &str = "for directory in /run/containerd /etc/docker \"$1/docker-root\" \"$1/containerd-root\"; do \
    mkdir -p \"$directory\" && mount -t tmpfs -o mode=711 tmpfs \"$directory\" || exit 1; done \
    && ip link set lo up \
    && echo \"$0\" >/proc/sys/kernel/hostname \
    && exec sleep infinity";

/// Where a host's engine writes, below the host's directory.
pub(crate) const ENGINE: &str = "engine";

/// Namespaces of one host, of the switch between hosts, or of a client.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    run: String,
    directory: PathBuf,
    holder: Child,
    network: u64,
}

impl Namespace {
    /// Makes namespaces with `name` as the host name; logs and other files go
    /// below `directory`.
    pub(crate) fn create(run: &str, name: &str, directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let log = directory.join("namespace.log");
        // Propagation "slave": mounts made outside later are seen inside, none the other way.
        let mut command = Command::new("unshare");
        command
            .args([
                "--net",
                "--uts",
                "--mount",
                "--propagation",
                "slave",
                "--",
                "sh",
                "-c",
                HOLD,
                name,
            ])
            .arg(directory.join(ENGINE))
            .env(RUN_VARIABLE, run);
        command::log_to(&mut command, &log)?;
        let mut holder = command
            .spawn()
            .context("cannot start `unshare` of util-linux")?;
        let pid = Pid::from_child(&holder);
        let ready = wait_until(COMMAND_LIMIT, &format!("namespaces of {name}"), || {
            let failure = fs::read_to_string(&log)?;
            anyhow::ensure!(
                holder.try_wait()?.is_none(),
                "the holding process ended: {failure}"
            );
            Ok((process::Process::read(pid)
                .context("no holding process")?
                .name
                == "sleep")
                .then_some(()))
        });
        if ready.is_err() {
            holder.kill()?;
            holder.wait()?;
        }
        ready?;
        let network = process::network_of(pid)?;
        Ok(Self {
            name: name.to_owned(),
            run: run.to_owned(),
            directory: directory.to_owned(),
            holder,
            network,
        })
    }

    /// The host name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where files of this host are: logs, data directories, sockets.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The process that holds the namespaces, to enter them by hand:
    /// `nsenter -t PID -n -m -u`.
    #[must_use]
    pub fn holder(&self) -> Pid {
        Pid::from_child(&self.holder)
    }

    /// The inode of the network namespace: what its processes are known by.
    #[must_use]
    pub fn network(&self) -> u64 {
        self.network
    }

    /// A command that will run inside.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let namespaces = format!("/proc/{}/ns", self.holder().as_raw_nonzero());
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={namespaces}/net"))
            .arg(format!("--uts={namespaces}/uts"))
            .arg(format!("--mount={namespaces}/mnt"))
            .arg("--")
            .arg(program)
            .env(RUN_VARIABLE, &self.run)
            .stdin(std::process::Stdio::null());
        command
    }

    /// Runs a command inside and waits for its end, 30 s at most.
    ///
    /// # Errors
    ///
    /// When it cannot be started or does not end in time. A command that
    /// fails is an [`Output`] with another exit code.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<Output> {
        let mut command = self.command(program);
        command.args(args);
        command::run(command, &self.directory.join("commands"), COMMAND_LIMIT)
    }

    /// Starts a thread of this process that lives in the network namespace;
    /// so do the threads that it starts.
    ///
    /// # Errors
    ///
    /// When it cannot be started; the thread's own result says whether it could move.
    pub fn thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<io::Result<T>>> {
        let network = File::open(format!("/proc/{}/ns/net", self.holder().as_raw_nonzero()))?;
        thread::Builder::new()
            .name(format!("in {}", self.name))
            .spawn(move || {
                move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok(work())
            })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Fails only for a process that has ended already, which is what is wanted.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
