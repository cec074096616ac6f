//! The files of a task's folder: what agent and shim tell each other.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use swarmlet_core::model::{PortMode, Protocol, TaskId, TaskPort};

use super::super::{ContainerState, Scope};
use super::records::Limits;
use crate::store::replace;

/// A task's folder.
pub(super) struct TaskDir(PathBuf);

impl TaskDir {
    pub(super) fn of(scope: &Scope, task: &TaskId) -> Self {
        Self(scope.dir.join(task.as_str()))
    }

    pub(super) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn spec(&self) -> PathBuf {
        self.0.join("spec.json")
    }

    pub(super) fn started(&self) -> PathBuf {
        self.0.join("started.json")
    }

    pub(super) fn exit(&self) -> PathBuf {
        self.0.join("exit.json")
    }

    /// Takes the lock, or `None` where another shim has it. It is held until the file is
    /// dropped, and the kernel lets go of it whatever way the process ends.
    pub(super) fn lock(&self) -> io::Result<Option<fs::File>> {
        let file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.0.join("lock"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a shim lives here. It asks for a shared lock, so that two askers do not take
    /// each other for a shim.
    pub(super) fn is_locked(&self) -> io::Result<bool> {
        let file = match fs::File::open(self.0.join("lock")) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}

/// What the shim is to start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Spec {
    pub(super) program: PathBuf,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) workdir: Option<PathBuf>,
    pub(super) user: Option<(u32, u32)>,
    pub(super) stop_signal: Option<String>,
    pub(super) log: Limits,
    pub(super) ports: Vec<Port>,
    /// The control groups that limit it; absent in files of versions that did not know them.
    #[serde(default)]
    pub(super) groups: Vec<PathBuf>,
}

/// A task port on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Port {
    target: u16,
    host: u16,
    udp: bool,
    host_mode: bool,
}

impl From<&TaskPort> for Port {
    fn from(port: &TaskPort) -> Self {
        Self {
            target: port.target,
            host: port.host,
            udp: port.protocol == Protocol::Udp,
            host_mode: port.mode == PortMode::Host,
        }
    }
}

impl From<&Port> for TaskPort {
    fn from(port: &Port) -> Self {
        Self {
            target: port.target,
            host: port.host,
            protocol: if port.udp {
                Protocol::Udp
            } else {
                Protocol::Tcp
            },
            mode: if port.host_mode {
                PortMode::Host
            } else {
                PortMode::Ingress
            },
        }
    }
}

/// That the command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Started {
    pub(super) pid: u32,
    /// In clock ticks since boot, which no two processes of the same id share.
    pub(super) start_time: u64,
    /// The shim's own process id; its lock says whether it still is the shim.
    pub(super) shim: u32,
}

/// How the command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ended {
    /// Exit code, or 128 and the signal's number.
    pub(super) code: i32,
    pub(super) reason: Option<String>,
    /// Why it was never started.
    pub(super) refusal: Option<String>,
}

impl From<Ended> for ContainerState {
    fn from(ended: Ended) -> Self {
        Self::Exited {
            code: ended.code,
            reason: ended.reason.or(ended.refusal),
        }
    }
}

/// Writes a file, durably and whole.
pub(super) fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    replace(path, &serde_json::to_vec(value)?)
}

/// Reads a file, `None` where there is none.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
