//! A task: one run of a service's containers, bound to one node, never used again.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

use super::container::TaskSpec;
use super::id::{NodeId, ServiceId, TaskId};
use super::ports::{PortMode, PortSpec, Protocol};
use super::time::{Timestamp, Version};

/// A task as the cluster keeps it.
///
/// The manager writes `desired`; from [`TaskState::Accepted`] on the node's agent writes
/// `status`. Neither ever goes backwards: of two observations the greater one is right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Task {
    /// Its identifier.
    #[serde(rename = "ID")]
    pub id: TaskId,
    /// Index of the last change.
    pub version: Version,
    /// The service that it belongs to.
    #[serde(rename = "ServiceID")]
    pub service: ServiceId,
    /// The service's name, kept here because a container's name shows it.
    pub service_name: String,
    /// Which of the service's replicas it is, from 1. With one task on each node the numbers
    /// mean nothing, but that tasks of one number are of one node.
    pub slot: u32,
    /// The node that it is for, where its service has one task on each node.
    #[serde(rename = "HomeID", skip_serializing_if = "Option::is_none")]
    pub home: Option<NodeId>,
    /// The node that it is bound to, once it has been placed.
    #[serde(rename = "NodeID")]
    pub node: Option<NodeId>,
    /// The generic resources of its node that are its own, where they have names, by kind.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub generic_names: BTreeMap<String, Vec<String>>,
    /// What it runs, as the service said when the task was made.
    pub spec: TaskSpec,
    /// The ports that the service published when the task was made.
    pub ports: Vec<PortSpec>,
    /// [`Service::spec_version`](super::Service::spec_version) when it was made.
    pub spec_version: Version,
    /// When it was made.
    pub created_at: Timestamp,
    /// What it should come to.
    #[serde(rename = "DesiredState")]
    pub desired: TaskState,
    /// What it has come to.
    pub status: TaskStatus,
    /// How often its slot was restarted before, and when it may start.
    pub restart: RestartHistory,
    /// Whether it makes room for an equal task on another node: it goes on until that one runs.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub moving: bool,
    /// Set once the balancers are to give it no new connections, because it is to stop.
    pub draining: Option<Draining>,
}

impl Task {
    /// `service.slot`, or `service.node` with one task on each node, as tables show it.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}.{}", self.service_name, self.place())
    }

    /// `service.slot.id`, or `service.node.id`: the name of its container, as Docker Swarm's.
    #[must_use]
    pub fn container_name(&self) -> String {
        format!("{}.{}.{}", self.service_name, self.place(), self.id)
    }

    /// What tells it from the other tasks of its service: its slot's number, or the identifier
    /// of the node that it is for.
    #[must_use]
    pub fn place(&self) -> String {
        match &self.home {
            Some(node) => node.to_string(),
            None => self.slot.to_string(),
        }
    }

    /// Whether it still is, or may come to be, a container on its node.
    #[must_use]
    pub fn is_live(&self) -> bool {
        !self.status.state.is_terminal()
    }

    /// Whether it runs and its checks, where it has some, pass.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        let ejected = |container: &ContainerStatus| container.ejected;
        self.status.state == TaskState::Running
            && !self.status.container.as_ref().is_some_and(ejected)
    }

    /// Whether its slot counts on it: nobody has told it, or is about to tell it, to stop. It
    /// may have ended by itself nevertheless.
    #[must_use]
    pub fn is_member(&self) -> bool {
        self.desired <= TaskState::Running && self.draining.is_none()
    }
}

/// State of a task, in the order in which it goes through them.
///
/// ```text
/// New → Pending → Assigned → Accepted → Preparing → Ready → Starting → Running → Complete
///                                                             any of them → Shutdown | Failed | Rejected | Orphaned
/// ```
///
/// The numbers are swarmkit's; [`TaskState::Remove`] is only ever desired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u16)]
pub enum TaskState {
    /// Made.
    New = 0,
    /// Waiting for a node.
    Pending = 64,
    /// Bound to a node that does not know of it yet.
    Assigned = 192,
    /// The node's agent has it.
    Accepted = 256,
    /// Its image is being pulled.
    Preparing = 320,
    /// Everything is there to start it.
    Ready = 384,
    /// Started, not yet known to be healthy.
    Starting = 448,
    /// Running, and healthy where there is a check.
    Running = 512,
    /// Ended with exit code 0.
    Complete = 576,
    /// Stopped because it was asked to.
    Shutdown = 640,
    /// Ended by itself with a failure.
    Failed = 704,
    /// Could not be started at all.
    Rejected = 768,
    /// Desired only: stop it and forget it.
    Remove = 800,
    /// Its node has been gone for so long that nobody knows.
    Orphaned = 832,
}

impl TaskState {
    /// All of them, in order.
    pub const ALL: [Self; 14] = [
        Self::New,
        Self::Pending,
        Self::Assigned,
        Self::Accepted,
        Self::Preparing,
        Self::Ready,
        Self::Starting,
        Self::Running,
        Self::Complete,
        Self::Shutdown,
        Self::Failed,
        Self::Rejected,
        Self::Remove,
        Self::Orphaned,
    ];

    /// Whether nothing comes after it: there is no container any more.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        self > Self::Running
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::New => "new",
            Self::Pending => "pending",
            Self::Assigned => "assigned",
            Self::Accepted => "accepted",
            Self::Preparing => "preparing",
            Self::Ready => "ready",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Shutdown => "shutdown",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Remove => "remove",
            Self::Orphaned => "orphaned",
        })
    }
}

/// What is known of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct TaskStatus {
    /// How far it has come.
    pub state: TaskState,
    /// When the cluster learned of it, by the leader's clock: the clocks of nodes may differ,
    /// and waits are measured from here.
    #[serde(rename = "Timestamp")]
    pub at: Timestamp,
    /// What is going on, in a few words.
    pub message: String,
    /// Why it is pending, or what went wrong.
    #[serde(rename = "Err")]
    pub error: Option<String>,
    /// Its container, once there is one.
    pub container: Option<ContainerStatus>,
    /// Where its ports can be reached, once it has started.
    pub ports: Vec<TaskPort>,
}

impl TaskStatus {
    /// The longest message, and the longest error, in bytes. People read them in the column of a
    /// list, and hundreds go into one log entry.
    pub const MAX_TEXT_BYTES: usize = 2048;
}

/// What the runtime says of a task's container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerStatus {
    /// The runtime's identifier.
    #[serde(rename = "ContainerID")]
    pub id: String,
    /// Process id on the node; zero once it has ended.
    #[serde(rename = "PID")]
    pub pid: u32,
    /// Exit code, once it has ended.
    pub exit_code: Option<i32>,
    /// Its address on its own node, where it has one of its own.
    pub address: Option<IpAddr>,
    /// Whether its checks fail while it runs on: it gets no connections.
    pub ejected: bool,
}

/// A port of a running task as it can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct TaskPort {
    /// The port inside the container.
    pub target: u16,
    /// The port on the node: one of the agent's own range, or, with [`PortMode::Host`], the
    /// published one.
    pub host: u16,
    /// Transport protocol.
    pub protocol: Protocol,
    /// How the service publishes it.
    pub mode: PortMode,
}

/// A task on its way out of the balancers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Draining {
    /// Since when.
    pub since: Timestamp,
    /// Tables of this version and later choose it no more.
    pub version: Version,
}

/// How often a slot has been started again, carried from a task to its successor so that a
/// new leader knows it from the state alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RestartHistory {
    /// Ends in a row without a stable run in between; the back-off grows with it.
    pub failures: u32,
    /// Restarts that count towards `max_attempts` in the current window.
    pub attempts: u32,
    /// When that window began.
    pub window_start: Timestamp,
    /// The task may not start before this moment.
    pub not_before: Timestamp,
}
