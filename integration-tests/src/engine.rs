//! A Docker engine of a host's own: one containerd, one dockerd.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Child,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal};

use crate::{
    Namespace, Process,
    cleanup::{control_group, signal},
    command,
    namespace::ENGINE,
    wait_until,
};

/// Variable and value that tell a host's engine, with all that it starts,
/// from what a test runs on the host.
pub(crate) const ROLE: (&str, &str) = ("SWARMLET_TEST_ROLE", "engine");

/// An engine answers within a second on an idle machine with two cores.
const START_LIMIT: Duration = Duration::from_secs(60);

/// The network of hosts and client.
const SWITCHED: &str = "10.99.0.0/24";

/// Longest wait for one answer of the engine's socket.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// The engine of one host, with everything it writes below the host's directory.
#[derive(Debug)]
pub struct Engine {
    directory: PathBuf,
    control_group: String,
    containerd: Mutex<Option<Child>>,
    dockerd: Mutex<Option<Child>>,
}

impl Engine {
    /// Starts containerd and dockerd in a host's namespaces and returns once
    /// the engine answers.
    pub(crate) fn start(namespace: &Namespace, run: &str) -> Result<Self> {
        let directory = namespace.directory().join(ENGINE);
        fs::create_dir_all(&directory)?;
        let engine = Self {
            directory,
            control_group: format!("{}/{}", control_group(run), namespace.name()),
            containerd: Mutex::default(),
            dockerd: Mutex::default(),
        };
        engine.start_again(namespace)?;
        Ok(engine)
    }

    /// Starts what does not run of the two processes and wakes what is stopped.
    pub(crate) fn start_again(&self, namespace: &Namespace) -> Result<()> {
        if !awake(&mut lock(&self.containerd))? {
            self.start_containerd(namespace)?;
        }
        if !awake(&mut lock(&self.dockerd))? {
            self.start_dockerd(namespace)?;
        }
        wait_until(
            START_LIMIT,
            &format!("answer of {}'s engine", namespace.name()),
            || {
                ensure!(
                    awake(&mut lock(&self.dockerd))?,
                    "dockerd ended: {}",
                    last_lines(&self.directory.join("dockerd.log"))
                );
                self.ping().map(Some)
            },
        )
    }

    /// The engine's API socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.join("docker.sock")
    }

    /// The control group, below each hierarchy's root, of all its containers.
    pub(crate) fn control_group(&self) -> &str {
        &self.control_group
    }

    /// The process id of dockerd, to kill or to stop it.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn dockerd(&self) -> Result<Pid> {
        let dockerd = lock(&self.dockerd);
        Ok(Pid::from_child(
            dockerd.as_ref().context("dockerd was never started")?,
        ))
    }

    /// Asks the engine for a sign of life.
    ///
    /// # Errors
    ///
    /// When it does not answer within 5 s, or not with success.
    pub fn ping(&self) -> Result<()> {
        let mut stream = UnixStream::connect(self.socket())?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(
            answer.starts_with("HTTP/1.1 200 "),
            "the engine answered {answer:?}"
        );
        Ok(())
    }

    fn start_containerd(&self, namespace: &Namespace) -> Result<()> {
        let at = |name: &str| self.directory.join(name).display().to_string();
        // The Kubernetes plugin would only cost time and ports.
        let configuration = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {:?}\n",
            at("containerd-root"),
            at("containerd-state"),
            at("containerd.sock"),
        );
        fs::write(self.directory.join("containerd.toml"), configuration)?;
        let mut containerd = namespace.command("containerd");
        containerd
            .args(["--config", &at("containerd.toml")])
            .env(ROLE.0, ROLE.1);
        command::log_to(&mut containerd, &self.directory.join("containerd.log"))?;
        *lock(&self.containerd) = Some(containerd.spawn()?);
        // dockerd that finds no containerd tries again after a second only.
        wait_until(
            START_LIMIT,
            &format!("socket of {}'s containerd", namespace.name()),
            || {
                let log = self.directory.join("containerd.log");
                ensure!(
                    awake(&mut lock(&self.containerd))?,
                    "containerd ended: {}",
                    last_lines(&log)
                );
                Ok(Some(UnixStream::connect(
                    self.directory.join("containerd.sock"),
                )?))
            },
        )?;
        Ok(())
    }

    fn start_dockerd(&self, namespace: &Namespace) -> Result<()> {
        let at = |name: &str| self.directory.join(name).display().to_string();
        // An own configuration: the machine's would be read otherwise. Registries of tests speak
        // plain HTTP.
        let configuration = format!("{{\"insecure-registries\": [\"{SWITCHED}\"]}}\n");
        fs::write(self.directory.join("daemon.json"), configuration)?;
        let mut dockerd = namespace.command("dockerd");
        dockerd
            .args(["--config-file", &at("daemon.json")])
            .args(["--containerd", &at("containerd.sock")])
            .args(["--data-root", &at("docker-root")])
            .args(["--exec-root", &at("docker-exec")])
            .args(["--pidfile", &at("dockerd.pid")])
            .args(["--host", &format!("unix://{}", at("docker.sock"))])
            .args(["--cgroup-parent", &format!("/{}", self.control_group)])
            .args(["--exec-opt", "native.cgroupdriver=cgroupfs"])
            .env(ROLE.0, ROLE.1);
        command::log_to(&mut dockerd, &self.directory.join("dockerd.log"))?;
        *lock(&self.dockerd) = Some(dockerd.spawn()?);
        Ok(())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        for child in [&self.dockerd, &self.containerd]
            .into_iter()
            .filter_map(|child| lock(child).take())
        {
            let mut child = child;
            // Fails only for a process that has ended already, which is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Whether the process runs; wakes it in case a test stopped it.
fn awake(child: &mut Option<Child>) -> Result<bool> {
    let Some(child) = child else { return Ok(false) };
    if child.try_wait()?.is_some() {
        return Ok(false);
    }
    if let Some(process) = Process::read(Pid::from_child(child)) {
        signal(&process, Signal::CONT)?;
    }
    Ok(true)
}

/// A test that panics with the lock held leaves the process handle as good as it was.
fn lock(child: &Mutex<Option<Child>>) -> MutexGuard<'_, Option<Child>> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The end of a log, for a message.
fn last_lines(log: &Path) -> String {
    let text =
        fs::read_to_string(log).unwrap_or_else(|error| format!("{}: {error}", log.display()));
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}
