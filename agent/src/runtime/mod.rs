//! What runs containers: the trait, and how a node finds out which one it has.
//!
//! A runtime keeps no state of its own about tasks. It is asked for one step at a time, each
//! of which may be asked for again after a crash at any moment, and it tells when to look:
//! an event says that something changed, never what, so that a lost or doubled event costs a
//! look and nothing else.

pub mod docker;
mod exits;
mod generic;
pub mod log;
mod placeholder;
pub mod process;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use swarmlet_core::model::{
    ClusterId, NodeId, Platform, RegistryAuth, Resources, RuntimeKind, Task, TaskId, TaskPort,
};

use self::docker::DockerRuntime;
use self::log::{LogLine, LogQuery};
use self::process::ProcessRuntime;

/// Runs containers, one for each task.
///
/// Every step is idempotent and has a deadline of its own, so that an engine that hangs makes
/// a step fail and not the agent wait.
pub trait Runtime: Send + Sync {
    /// Which it is.
    fn kind(&self) -> RuntimeKind;

    /// What the engine says of itself and its machine.
    fn describe(&self) -> BoxFuture<'_, Result<Engine, RuntimeError>>;

    /// Whether the engine is there; cheap enough to be asked every second. Without an engine
    /// there is nothing that could be missing.
    fn alive(&self) -> BoxFuture<'_, Result<(), RuntimeError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// What an image's registry says of it. `None` where no registry is to be asked: images are
    /// paths, or this one's name is no reference.
    fn resolve<'a>(
        &'a self,
        _image: &'a str,
        _auth: Option<&'a RegistryAuth>,
    ) -> BoxFuture<'a, Result<Option<Resolved>, RuntimeError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Gets everything that a start needs, above all the image.
    fn prepare<'a>(
        &'a self,
        scope: &'a Scope,
        task: &'a Task,
    ) -> BoxFuture<'a, Result<(), RuntimeError>>;

    /// Makes the task's container and starts it. Where it has been started before, by this
    /// process or an earlier one, it is returned as it is, with the ports it got then.
    fn start<'a>(
        &'a self,
        scope: &'a Scope,
        task: &'a Task,
        ports: &'a [TaskPort],
    ) -> BoxFuture<'a, Result<Container, RuntimeError>>;

    /// The task's container, or `None` where there is none.
    fn inspect<'a>(
        &'a self,
        scope: &'a Scope,
        task: &'a TaskId,
    ) -> BoxFuture<'a, Result<Option<Container>, RuntimeError>>;

    /// All containers of the scope's node and cluster, those that ended included.
    fn list<'a>(&'a self, scope: &'a Scope) -> BoxFuture<'a, Result<Vec<Container>, RuntimeError>>;

    /// Tells when to look. The first event is a [`RuntimeEvent::Relist`], once the runtime
    /// answers; the stream goes on for ever.
    fn events(&self, scope: &Scope) -> BoxStream<'static, RuntimeEvent>;

    /// Sends the container's stop signal, waits for `grace`, and kills it. A container that
    /// does not run, or does not exist, is a success.
    fn stop<'a>(
        &'a self,
        scope: &'a Scope,
        task: &'a TaskId,
        grace: Duration,
    ) -> BoxFuture<'a, Result<(), RuntimeError>>;

    /// Removes the container and what belongs to it alone, running or not. A container that
    /// does not exist is a success.
    fn remove<'a>(
        &'a self,
        scope: &'a Scope,
        task: &'a TaskId,
    ) -> BoxFuture<'a, Result<(), RuntimeError>>;

    /// What the task's container has written, in order. Nothing is read ahead of whoever takes
    /// the lines. One that is followed ends with its container, any other with its last line.
    fn logs(
        &self,
        scope: &Scope,
        task: &TaskId,
        query: LogQuery,
    ) -> BoxStream<'static, Result<LogLine, RuntimeError>>;
}

/// An image as its registry knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Its reference, pinned to a digest.
    pub image: String,
    /// What it is made for; empty where the registry does not say.
    pub platforms: Vec<Platform>,
}

/// Whose containers: several agents may share one engine.
#[derive(Debug, Clone)]
pub struct Scope {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// The node's host name, for placeholders.
    pub hostname: String,
    /// The address on which task ports are bound.
    pub advertise: IpAddr,
    /// Where a runtime may keep files, a folder for each task.
    pub dir: PathBuf,
}

/// What an engine says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    /// Its version.
    pub version: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The machine's CPU and memory.
    pub resources: Resources,
    /// Architecture in Go's words.
    pub arch: String,
    /// The folder with its images and containers, where it has one.
    pub storage: Option<PathBuf>,
}

/// A task's container as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// The task that it runs.
    pub task: TaskId,
    /// The runtime's name for it.
    pub id: String,
    /// Process id of what runs in it, zero where nothing does.
    pub pid: u32,
    /// An address of its own on this node, where it has one.
    pub address: Option<IpAddr>,
    /// The ports that it was started with.
    pub ports: Vec<TaskPort>,
    /// How it does.
    pub state: ContainerState,
    /// What the runtime's own health check came to last, where it does not pass.
    pub failing: Option<String>,
}

/// How a container does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerState {
    /// Made and never started.
    Created,
    /// Running.
    Running(Health),
    /// Ended.
    Exited {
        /// With this exit code; 128 and the signal's number where a signal ended it.
        code: i32,
        /// What the runtime adds, such as that memory ran out.
        reason: Option<String>,
    },
}

impl Container {
    /// Whether something runs in it.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.state, ContainerState::Running(_))
    }
}

/// What the health check of a running container says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// There is no check.
    Unchecked,
    /// It has not passed yet.
    Starting,
    /// It passes.
    Healthy,
    /// It failed as often in a row as it may.
    Unhealthy,
}

/// A reason to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuntimeEvent {
    /// Something happened to a task's container.
    Changed(TaskId),
    /// A task's container ended a moment ago. It may be an old one's end that is told again:
    /// what follows is that nothing is sent to it until it was looked at.
    Ended(TaskId),
    /// Events may have been missed: all containers have to be looked at.
    Relist,
}

/// Why a step failed, sorted by what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuntimeError {
    /// It will fail again: the image is missing or denied, a mount has no source.
    #[error("{0}")]
    Rejected(String),
    /// A host port is in use: another one may do.
    #[error("{0}")]
    PortTaken(String),
    /// The engine refused for a reason that may or may not pass.
    #[error("{0}")]
    Refused(String),
    /// The engine does not answer: nothing is known, and nothing follows from it.
    #[error("{0}")]
    Unavailable(String),
}

/// Which runtime a node is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Docker where an engine answers, processes otherwise.
    Auto,
    /// Docker, answering or not.
    Docker,
    /// Processes.
    Process,
}

/// A text that names no runtime.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown runtime {0:?}: expected auto, docker or process")]
pub struct UnknownRuntime(pub String);

impl FromStr for Choice {
    type Err = UnknownRuntime;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "docker" => Ok(Self::Docker),
            "process" => Ok(Self::Process),
            _ => Err(UnknownRuntime(text.to_owned())),
        }
    }
}

impl From<RuntimeKind> for Choice {
    fn from(kind: RuntimeKind) -> Self {
        match kind {
            RuntimeKind::Docker => Self::Docker,
            RuntimeKind::Process => Self::Process,
        }
    }
}

/// A choice that this machine cannot have.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    /// The engine's address cannot be used at all.
    #[error(
        "invalid engine address {0:?}: expected unix://PATH or tcp://HOST:PORT (set DOCKER_HOST)"
    )]
    InvalidHost(String),
    /// The program's own path, which the process runtime starts shims from, is unknown.
    #[error("the path of this program is unknown")]
    OwnPath(#[from] std::io::Error),
}

/// How long an engine may take to answer before `auto` means processes.
const DETECT_DEADLINE: Duration = Duration::from_secs(5);

/// Finds a node's runtime.
///
/// What `auto` comes to is to be kept by the caller and named on every later start: an engine
/// that is slow at boot must never turn containers into processes.
///
/// # Errors
/// [`DetectError`] where the engine's address is malformed.
pub async fn detect(
    choice: Choice,
    docker_host: Option<&str>,
) -> Result<Arc<dyn Runtime>, DetectError> {
    if choice == Choice::Process {
        return Ok(Arc::new(ProcessRuntime::new(std::env::current_exe()?)));
    }
    let docker = DockerRuntime::new(docker_host)?;
    if choice == Choice::Docker {
        return Ok(Arc::new(docker));
    }
    match tokio::time::timeout(DETECT_DEADLINE, docker.describe()).await {
        Ok(Ok(engine)) => {
            tracing::info!(version = %engine.version, "using the Docker engine");
            Ok(Arc::new(docker))
        }
        Ok(Err(error)) => {
            tracing::info!(%error, "no Docker engine answers: tasks run as plain processes");
            Ok(Arc::new(ProcessRuntime::new(std::env::current_exe()?)))
        }
        Err(_) => {
            tracing::info!("the Docker engine does not answer: tasks run as plain processes");
            Ok(Arc::new(ProcessRuntime::new(std::env::current_exe()?)))
        }
    }
}

/// The machine's CPU and memory as the kernel tells them, and its architecture.
pub(crate) fn machine() -> (Resources, String) {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let info = rustix::system::sysinfo();
    let resources = Resources {
        nano_cpus: cores as u64 * 1_000_000_000,
        memory_bytes: u64::from(info.mem_unit).saturating_mul(info.totalram as u64),
        ..Resources::default()
    };
    (resources, go_arch(std::env::consts::ARCH).to_owned())
}

/// An architecture in Go's words, as constraints name it.
pub(crate) fn go_arch(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" | "i686" | "i386" => "386",
        "armv7l" | "armv6l" => "arm",
        other => other,
    }
}
