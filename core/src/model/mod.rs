//! The nouns of a cluster: plain structs, no behaviour beyond validation and defaults.
//!
//! They mirror Docker's `ServiceSpec`, `TaskSpec` and `NodeSpec` in meaning, field by field,
//! so that a Docker-compatible API and Compose files are translations and never a second
//! model. `Serialize` gives Docker's names (`PascalCase`) for `inspect` and `--format json`.

mod check;
mod cluster;
mod container;
mod id;
mod image;
mod log;
mod mode;
mod network;
mod node;
mod placement;
mod ports;
mod problem;
mod service;
mod task;
mod text;
mod time;
mod update;
mod validate;

pub use check::{Check, InvalidProbe, Probe, UnhealthyAction};
pub use cluster::{Cluster, ClusterSpec, JoinSecret, RootCa};
pub use container::{
    ContainerSpec, HealthCheck, HealthTest, Mount, MountKind, RegistryAuth, ResourceRequirements,
    Resources, RestartCondition, RestartPolicy, TaskSpec,
};
pub use id::{ClusterId, InvalidId, NodeId, ServiceId, TaskId};
pub use image::{ImageReference, InvalidReference};
pub use log::LogDriver;
pub use mode::{InvalidMode, ModeKind, ServiceMode};
pub use network::{InvalidNetwork, Network};
pub use node::{
    Availability, InvalidAvailability, ManagerInfo, Node, NodeDescription, NodeSpec, NodeState,
    NodeStatus, Platform, PortProblem, Role, RuntimeKind, go_architecture,
};
pub use placement::{
    Constraint, ConstraintOp, InvalidConstraint, InvalidPreference, Placement, Preference, Strategy,
};
pub use ports::{PortMode, PortSpec, Protocol, ProxyProtocol};
pub use problem::{Closed, DiskUser, NodeProblem, Place, Problem, ProblemKind};
pub use service::{LbPolicy, Rebalance, Service, ServiceSpec};
pub use task::{ContainerStatus, Draining, RestartHistory, Task, TaskPort, TaskState, TaskStatus};
pub use text::cut;
pub use time::{Timestamp, Version};
pub use update::{
    Bounds, FailureAction, FailureRatio, InvalidRatio, UpdateConfig, UpdateOrder, UpdateState,
    UpdateStatus,
};
pub use validate::{InvalidSpec, MAX_SPEC_BYTES};
