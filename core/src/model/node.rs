//! A node: one host of the cluster.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::Serialize;

use super::container::Resources;
use super::id::NodeId;
use super::ports::Protocol;
use super::problem::Problem;
use super::time::{Timestamp, Version};

/// A node as the cluster keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Node {
    /// Its identifier, which is also in its certificate.
    #[serde(rename = "ID")]
    pub id: NodeId,
    /// Index of the last change.
    pub version: Version,
    /// When it joined.
    pub created_at: Timestamp,
    /// What the user wants of it.
    pub spec: NodeSpec,
    /// What it says of itself, from its first session on.
    pub description: NodeDescription,
    /// How it does.
    pub status: NodeStatus,
    /// Its place among the managers, while it is one.
    #[serde(rename = "ManagerStatus", skip_serializing_if = "Option::is_none")]
    pub manager: Option<ManagerInfo>,
    /// Published ports that it cannot serve.
    pub port_problems: Vec<PortProblem>,
    /// What else is wrong with it.
    pub problems: Vec<Problem>,
    /// Whether it was a manager when another one went on without it. It may have a state of the
    /// cluster that went another way since, and is not let in again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub superseded: bool,
}

/// What the user wants of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NodeSpec {
    /// Its role.
    pub role: Role,
    /// Whether it takes tasks.
    pub availability: Availability,
    /// Labels for placement.
    pub labels: BTreeMap<String, String>,
}

/// Role of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Runs tasks.
    Worker,
    /// Runs tasks and keeps a replica of the cluster's state.
    Manager,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Worker => "worker",
            Self::Manager => "manager",
        })
    }
}

/// Whether a node takes tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Availability {
    /// It takes tasks.
    Active,
    /// It keeps its tasks and takes no more.
    Pause,
    /// Its tasks go elsewhere.
    Drain,
}

/// A text that is no availability.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid availability {0:?}: expected active, pause or drain")]
pub struct InvalidAvailability(pub String);

impl FromStr for Availability {
    type Err = InvalidAvailability;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "active" => Ok(Self::Active),
            "pause" => Ok(Self::Pause),
            "drain" => Ok(Self::Drain),
            _ => Err(InvalidAvailability(text.to_owned())),
        }
    }
}

impl fmt::Display for Availability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Active => "active",
            Self::Pause => "pause",
            Self::Drain => "drain",
        })
    }
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NodeDescription {
    /// Host name.
    pub hostname: String,
    /// Address at which other nodes reach it and its tasks.
    pub address: IpAddr,
    /// Operating system and architecture.
    pub platform: Platform,
    /// What tasks may reserve: the machine's CPU and memory, less the system's reserve, and the
    /// generic resources that its daemon was told of.
    pub resources: Resources,
    /// The names of generic resources that have some, by kind, such as the identifiers of GPUs.
    /// Their number is in `resources`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub generic_names: BTreeMap<String, Vec<String>>,
    /// What runs its containers.
    pub runtime: RuntimeKind,
    /// Version of the engine; empty while it does not answer.
    pub engine_version: String,
    /// Labels of the engine.
    pub engine_labels: BTreeMap<String, String>,
    /// First and last port of the range that its agent gives to tasks.
    pub task_ports: (u16, u16),
    /// A port of that range on which its agent answers other nodes that try whether the range is
    /// open; zero where it has none.
    pub probe_port: u16,
    /// The newest schema version of the state that its program knows.
    pub schema: u32,
    /// Version of its program.
    pub program_version: String,
}

/// Operating system and architecture, in Go's words as Docker's are (`linux`, `amd64`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Platform {
    /// Operating system.
    #[serde(rename = "OS")]
    pub os: String,
    /// Architecture.
    #[serde(rename = "Architecture")]
    pub arch: String,
}

impl Platform {
    /// The architecture in Go's word.
    #[must_use]
    pub fn go_arch(&self) -> &str {
        go_architecture(&self.arch)
    }

    /// Whether it is what another one is. What this one does not say does not count.
    #[must_use]
    pub fn includes(&self, found: &Self) -> bool {
        let same = |own: &str, found: &str| own.is_empty() || own.eq_ignore_ascii_case(found);
        same(&self.os, &found.os) && same(self.go_arch(), found.go_arch())
    }

    /// Whether what is made for this one runs on another one: on the same, and on the 64-bit
    /// machines that run the programs of their forebears.
    #[must_use]
    pub fn runs_on(&self, machine: &Self) -> bool {
        let heirs = [("386", "amd64"), ("arm", "arm64")];
        let is_heir = heirs.contains(&(self.go_arch(), machine.go_arch()));
        self.includes(machine) || (is_heir && self.os.eq_ignore_ascii_case(&machine.os))
    }
}

/// Users, kernels and engines write the kernel's words for an architecture as well as Go's.
#[must_use]
pub fn go_architecture(name: &str) -> &str {
    match name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.arch.is_empty() { "" } else { "/" };
        write!(f, "{}{slash}{}", self.os, self.arch)
    }
}

/// What runs a node's containers; decided when it joins, and kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeKind {
    /// A Docker engine.
    Docker,
    /// Plain processes: an image is an executable's path.
    Process,
}

impl fmt::Display for RuntimeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Docker => "docker",
            Self::Process => "process",
        })
    }
}

/// How a node does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NodeStatus {
    /// In one word.
    pub state: NodeState,
    /// Why, where it is not ready.
    pub message: String,
    /// Since when, by the leader's clock.
    pub since: Timestamp,
}

/// State of a node as the leader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Its heartbeats arrive.
    Ready,
    /// They have stopped: no connection goes to it, nothing new is placed on it.
    Unknown,
    /// They have stopped for so long that its tasks are replaced.
    Down,
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready => "ready",
            Self::Unknown => "unknown",
            Self::Down => "down",
        })
    }
}

/// A manager's place in Raft.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ManagerInfo {
    /// Its number among the voters; never given out twice.
    #[serde(rename = "RaftID")]
    pub raft_id: u64,
    /// Where it takes calls of other nodes.
    #[serde(rename = "Addr")]
    pub address: SocketAddr,
}

/// A published port that a node cannot serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PortProblem {
    /// The published port.
    pub port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Why, in the system's words.
    pub reason: String,
}

impl PortProblem {
    /// The longest reason in bytes; a system's own have some dozens.
    pub const MAX_REASON_BYTES: usize = 256;
}
