//! What a task runs: containers, their resources, health check and restart policy.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::check::{Check, UnhealthyAction};
use super::image::ImageReference;
use super::log::LogDriver;
use super::node::Platform;
use super::placement::Placement;
use super::time::nanoseconds;

/// The template that a service's tasks are made of.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct TaskSpec {
    /// The containers of one task; validated to exactly one for now.
    pub containers: Vec<ContainerSpec>,
    /// What the task may use, and what is set aside for it.
    pub resources: ResourceRequirements,
    /// When and how often it is started again.
    pub restart: RestartPolicy,
    /// Which nodes it may run on.
    pub placement: Placement,
    /// A counter: another number makes new tasks of what is otherwise the same.
    pub force_update: u64,
    /// Where what it writes is kept; the engine's own choice where `None`.
    pub log_driver: Option<LogDriver>,
}

impl TaskSpec {
    /// The container, or `None` for a specification that was never validated.
    #[must_use]
    pub fn container(&self) -> Option<&ContainerSpec> {
        self.containers.first()
    }

    /// The same with what another one says of getting its images: the registry credentials, and
    /// what the images are made for. Neither changes the bytes that a reference names.
    #[must_use]
    pub(crate) fn with_sources_of(&self, other: &Self) -> Cow<'_, Self> {
        let same = |(one, other): (&ContainerSpec, &ContainerSpec)| {
            one.registry_auth == other.registry_auth && one.platforms == other.platforms
        };
        if self.containers.iter().zip(&other.containers).all(same) {
            return Cow::Borrowed(self);
        }
        let mut spec = self.clone();
        for (container, other) in spec.containers.iter_mut().zip(&other.containers) {
            container.registry_auth.clone_from(&other.registry_auth);
            container.platforms.clone_from(&other.platforms);
        }
        Cow::Owned(spec)
    }

    /// Takes the registry credentials of a later specification, where it has some: earlier ones may
    /// have ended.
    pub(crate) fn renew_credentials(&mut self, later: &Self) {
        for (container, later) in self.containers.iter_mut().zip(&later.containers) {
            if later.registry_auth.is_some() && container.shares_registry(later) {
                container.registry_auth.clone_from(&later.registry_auth);
            }
        }
    }
}

/// One container of a task.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerSpec {
    /// Image reference (`docker` runtime) or path of an executable (`process` runtime).
    pub image: String,
    /// Replaces the image's entrypoint where it is not empty.
    #[serde(rename = "Command")]
    pub entrypoint: Vec<String>,
    /// Replaces the image's arguments where it is not empty.
    pub args: Vec<String>,
    /// `NAME=value` pairs.
    pub env: Vec<String>,
    /// Labels of the container (not of the service).
    pub labels: BTreeMap<String, String>,
    /// Host name inside; the engine's choice where `None`.
    pub hostname: Option<String>,
    /// User and group to run as, in the engine's form (`user[:group]`).
    pub user: Option<String>,
    /// Working directory.
    #[serde(rename = "Dir")]
    pub workdir: Option<String>,
    /// Files and volumes.
    pub mounts: Vec<Mount>,
    /// Signal that asks the container to finish; the image's own where `None`.
    pub stop_signal: Option<String>,
    /// How long it may take to finish before it is killed.
    #[serde(serialize_with = "nanoseconds")]
    pub stop_grace_period: Duration,
    /// Replaces the image's health check.
    #[serde(rename = "Healthcheck")]
    pub health: Option<HealthCheck>,
    /// The check that the node's agent runs from outside, besides `health`.
    pub check: Option<Check>,
    /// What happens when `health` or `check` fail of a container that ran.
    pub unhealthy_action: UnhealthyAction,
    /// What the image is made for, as its registry said; a node must have one of them. Empty
    /// where the registry was not asked, or did not know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<Platform>,
    /// Credentials for the registry of `image`, for every pull on every node.
    #[serde(skip)]
    pub registry_auth: Option<RegistryAuth>,
}

impl ContainerSpec {
    /// Grace period of a container whose specification names none: Docker's 10 s.
    pub const DEFAULT_STOP_GRACE_PERIOD: Duration = Duration::from_secs(10);

    /// Whether the credentials of one are meant for the other, too: both images are of the same
    /// registry, whichever way they are written, or of none.
    #[must_use]
    pub fn shares_registry(&self, other: &Self) -> bool {
        let registry = |image: &str| {
            let reference = image.parse::<ImageReference>().ok()?;
            Some(reference.registry().to_owned())
        };
        registry(&self.image) == registry(&other.image)
    }
}

/// Credentials for a registry, in the form of Docker's `X-Registry-Auth` header (base64 of a
/// JSON object). They are never printed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RegistryAuth(pub String);

impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RegistryAuth(…)")
    }
}

/// A file system that is mounted into a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Mount {
    /// What is mounted.
    #[serde(rename = "Type")]
    pub kind: MountKind,
    /// Host path (bind) or volume name (empty: an anonymous volume); unused for tmpfs.
    pub source: String,
    /// Absolute path inside the container.
    pub target: String,
    /// Whether the container may not write to it.
    pub read_only: bool,
}

/// Kind of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// A path of the host; it must exist.
    Bind,
    /// A volume of the engine.
    Volume,
    /// A file system in memory.
    Tmpfs,
}

/// How the health of a container is found out, by the engine running a command in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct HealthCheck {
    /// What is run.
    pub test: HealthTest,
    /// Time between two runs; the engine's default where `None`, as below.
    pub interval: Option<Duration>,
    /// How long one run may take.
    pub timeout: Option<Duration>,
    /// Failures do not count this long after the start.
    pub start_period: Option<Duration>,
    /// Time between two runs in that time; engines before 25 take `interval` there as well.
    pub start_interval: Option<Duration>,
    /// Failures in a row that make it unhealthy.
    pub retries: Option<u32>,
}

/// What a health check runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub enum HealthTest {
    /// The image's own command, with other timing.
    Inherit,
    /// A command for the container's shell.
    Shell(String),
    /// No check, not even the image's.
    Disabled,
}

/// Limits and reservations of a task.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ResourceRequirements {
    /// The most it may use; zero is no limit.
    pub limits: Resources,
    /// What a node must have free to run it.
    pub reservations: Resources,
}

/// An amount of what a node has to give.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Resources {
    /// CPU in billionths of a core.
    #[serde(rename = "NanoCPUs")]
    pub nano_cpus: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Processes and threads; it is only ever limited, never reserved.
    #[serde(skip_serializing_if = "is_zero")]
    pub pids: u64,
    /// What the nodes declare themselves, such as `gpu`, by kind; it is only ever reserved.
    #[serde(
        rename = "GenericResources",
        skip_serializing_if = "BTreeMap::is_empty",
        serialize_with = "discrete"
    )]
    pub generic: BTreeMap<String, u64>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// As Docker's API has them: `[{"DiscreteResourceSpec":{"Kind":"gpu","Value":2}}]`.
fn discrete<S: Serializer>(
    generic: &BTreeMap<String, u64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Amount<'a> {
        kind: &'a str,
        value: u64,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Discrete<'a> {
        discrete_resource_spec: Amount<'a>,
    }
    serializer.collect_seq(generic.iter().map(|(kind, &value)| Discrete {
        discrete_resource_spec: Amount { kind, value },
    }))
}

/// When a task that ended is replaced by another in its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RestartPolicy {
    /// After which ends.
    pub condition: RestartCondition,
    /// The least time between the end of a task and the start of its successor. The
    /// exponential back-off for tasks that keep failing comes on top.
    #[serde(serialize_with = "nanoseconds")]
    pub delay: Duration,
    /// How often a slot is restarted within `window`; zero is without limit.
    pub max_attempts: u32,
    /// The time in which attempts count; zero is for ever.
    #[serde(serialize_with = "nanoseconds")]
    pub window: Duration,
}

impl Default for RestartPolicy {
    /// Any end, without limit, at once. Docker waits 5 s even after the first failure; here
    /// the back-off that grows with each failure makes that wait needless.
    fn default() -> Self {
        Self {
            condition: RestartCondition::Any,
            delay: Duration::ZERO,
            max_attempts: 0,
            window: Duration::ZERO,
        }
    }
}

/// Which ends of a task call for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartCondition {
    /// Every end.
    #[default]
    Any,
    /// An end with a failure.
    OnFailure,
    /// None.
    None,
}
