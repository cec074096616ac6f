//! A service: what the user wants to run, how often, and behind which ports.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::container::TaskSpec;
use super::id::ServiceId;
use super::mode::ServiceMode;
use super::ports::PortSpec;
use super::task::{Task, TaskState};
use super::time::{Timestamp, Version, nanoseconds};
use super::update::{UpdateConfig, UpdateState, UpdateStatus};

/// A service as the cluster keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Service {
    /// Its identifier.
    #[serde(rename = "ID")]
    pub id: ServiceId,
    /// Index of the last change.
    pub version: Version,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// What the user asked for.
    pub spec: ServiceSpec,
    /// Index of the last change of what tasks are made of, or of the last time that a paused
    /// update was told to go on; tasks carry it, so that a change of the replica count replaces
    /// none.
    pub spec_version: Version,
    /// The last specification before the present one whose deployment completed; what a
    /// rollback goes back to. Shown where there is one, as Docker does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_spec: Option<Box<ServiceSpec>>,
    /// How far the latest update has come; `None` where there was none.
    pub update_status: Option<UpdateStatus>,
    /// How much is left to do of a rebalance; `None` where none is under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rebalance: Option<Rebalance>,
    /// Whether it is being removed: its tasks are stopped, and it goes with the last of them.
    pub removing: bool,
}

impl Service {
    /// Whether a task has to be replaced because it is not what the service asks for. One that
    /// was made for another version but is alike stays; that of a job does not, because each
    /// version of a job is a run of its own.
    ///
    /// As in Docker Swarm a task that has its image does not mind new registry credentials:
    /// those of ECR are new twice a day. Nor does it mind what the image is made for.
    #[must_use]
    pub fn is_outdated(&self, task: &Task) -> bool {
        if task.spec_version == self.spec_version {
            return false;
        }
        if self.spec.mode.is_job() {
            return true;
        }
        let has_image = (TaskState::Ready..=TaskState::Running).contains(&task.status.state);
        let spec = match has_image {
            true => task.spec.with_sources_of(&self.spec.task),
            false => Cow::Borrowed(&task.spec),
        };
        !self.spec.makes(&spec, &task.ports)
    }

    /// Whether an ended task says nothing about what the service asks for now: it was of another
    /// version, or failed before its update was told to go on. One that completed has done what
    /// it was made for.
    #[must_use]
    pub fn is_past(&self, ended: &Task) -> bool {
        ended.spec_version != self.spec_version
            && (ended.status.state != TaskState::Complete || self.is_outdated(ended))
    }

    /// The settings that the latest update works by.
    #[must_use]
    pub fn update_config(&self) -> &UpdateConfig {
        match self.update_status.as_ref().map(|status| status.state) {
            Some(
                UpdateState::RollbackStarted
                | UpdateState::RollbackPaused
                | UpdateState::RollbackCompleted,
            ) => &self.spec.rollback,
            _ => &self.spec.update,
        }
    }

    /// Whether tasks are being replaced by those of another version.
    #[must_use]
    pub fn is_updating(&self) -> bool {
        self.update_status
            .as_ref()
            .is_some_and(UpdateStatus::is_active)
    }
}

/// Tasks of a service on their way to nodes that have fewer of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Rebalance {
    /// When it was asked for.
    pub started_at: Timestamp,
    /// Tasks that may still be moved; bounded when it begins, so that it ends whatever happens
    /// meanwhile.
    pub moves_left: u32,
}

/// What the user asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ServiceSpec {
    /// Name, unique in the cluster.
    pub name: String,
    /// Labels of the service.
    pub labels: BTreeMap<String, String>,
    /// How many tasks.
    pub mode: ServiceMode,
    /// What each task runs.
    #[serde(rename = "TaskTemplate")]
    pub task: TaskSpec,
    /// Ports that it publishes.
    pub ports: Vec<PortSpec>,
    /// How the balancer chooses among its tasks.
    #[serde(rename = "LBPolicy")]
    pub lb_policy: LbPolicy,
    /// Whether a node's balancer sends to the node's own tasks as long as these do not have
    /// clearly more connections than the others.
    #[serde(rename = "LBPreferLocal")]
    pub lb_prefer_local: bool,
    /// How long connections of a task that is to stop may go on before it is stopped anyway.
    #[serde(serialize_with = "nanoseconds")]
    pub drain_timeout: Duration,
    /// How it is updated.
    #[serde(rename = "UpdateConfig")]
    pub update: UpdateConfig,
    /// How it goes back to the version before. A rollback has no rollback: its failure action
    /// is to pause or to continue.
    #[serde(rename = "RollbackConfig")]
    pub rollback: UpdateConfig,
}

impl ServiceSpec {
    /// Drain timeout of a service that names none. Long enough for requests in flight; idle
    /// keep-alive connections would otherwise hold up every scale-down for minutes.
    pub const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

    /// Whether tasks made from it are like one made from these.
    #[must_use]
    pub fn makes(&self, task: &TaskSpec, ports: &[PortSpec]) -> bool {
        let mut pairs = self.ports.iter().zip(ports);
        self.task == *task
            && self.ports.len() == ports.len()
            && pairs.all(|(one, other)| one.is_same_to_tasks(other))
    }
}

/// How the balancer chooses an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LbPolicy {
    /// One after the other, exactly.
    #[default]
    RoundRobin,
    /// Of two at random the one with fewer connections.
    LeastConn,
    /// The same one for the same client address, on every node.
    SourceHash,
}

impl fmt::Display for LbPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RoundRobin => "round-robin",
            Self::LeastConn => "least-conn",
            Self::SourceHash => "source-hash",
        })
    }
}
