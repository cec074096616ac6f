//! Why a command was refused, in Docker's words where Docker has some.

use crate::model::{NodeId, ServiceId, TaskId, TaskState, UpdateState};

/// A command that could not be carried out. The state is as if it had never been proposed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Anything but `InitCluster` before it.
    #[error("there is no cluster yet")]
    NoCluster,
    /// A second `InitCluster`.
    #[error("the cluster has been made already")]
    ClusterExists,
    /// The object changed after the proposer had looked at it.
    #[error("update out of sequence")]
    OutOfSequence,
    /// No such node.
    #[error("node {0} not found")]
    NodeNotFound(NodeId),
    /// No such service, or it is being removed.
    #[error("service {0} not found")]
    ServiceNotFound(ServiceId),
    /// No such task.
    #[error("task {0} not found")]
    TaskNotFound(TaskId),
    /// The node's identifier is taken.
    #[error("node {0} already exists")]
    NodeExists(NodeId),
    /// The service's identifier is taken.
    #[error("service {0} already exists")]
    ServiceExists(ServiceId),
    /// The task's identifier is taken.
    #[error("task {0} already exists")]
    TaskExists(TaskId),
    /// Nobody would be left to decide anything.
    #[error("attempting to demote the last manager of the swarm")]
    LastManager,
    /// Another service has the name.
    #[error("name conflicts with an existing object: service {0} already exists")]
    NameTaken(String),
    /// Another service publishes the port.
    #[error("port '{port}' is already in use by service '{name}' ({service})")]
    PortInUse {
        /// The port.
        port: u16,
        /// Name of the other service.
        name: String,
        /// Its identifier.
        service: ServiceId,
    },
    /// Every port that could be given out is in use.
    #[error("no free port in 30000-32767: name a published port")]
    NoFreePort,
    /// The name of a service is for ever.
    #[error("renaming services is not supported")]
    Rename,
    /// So is its mode.
    #[error("service mode change is not allowed")]
    ModeChange,
    /// No deployment of the service completed before the present one.
    #[error("service {0} does not have a previous spec: {1}")]
    NoPreviousSpec(String, NothingBefore),
    /// No update is under way that could end so.
    #[error("the update of service {0} cannot become {1}")]
    NotUpdating(String, UpdateState),
    /// Tasks are being replaced already.
    #[error("service {0} is being updated: rebalance it when the update is over")]
    Updating(String),
    /// Its service is not being rebalanced, or the task does not run or is outdated.
    #[error("task {0} cannot be moved")]
    StaysHere(TaskId),
    /// The service has tasks, or nobody asked for its removal.
    #[error("service {0} cannot be deleted: it is not being removed, or it has tasks left")]
    ServiceInUse(ServiceId),
    /// A manager does not know the schema, or it is not newer than the present one.
    #[error("schema {schema} cannot be used: {reason}")]
    Schema {
        /// The schema asked for.
        schema: u32,
        /// Why not.
        reason: String,
    },
    /// Its program is older than the schema in use.
    #[error(
        "{hostname} cannot be a manager: its swarmlet knows schema {known} of the swarm's state, \
         and {in_use} is in use: update swarmlet there first"
    )]
    OldManager {
        /// The node's host name.
        hostname: String,
        /// The newest schema that its program knows.
        known: u32,
        /// The one that it would have to know.
        in_use: u32,
    },
    /// The number belongs, or belonged, to another manager.
    #[error("manager number {0} has been given out already")]
    RaftIdTaken(u64),
    /// A task that does not start at the beginning, or not from its service's specification.
    #[error("malformed task {0}: {1}")]
    MalformedTask(TaskId, &'static str),
    /// Another task has the slot.
    #[error("slot {1} of service {0} is taken")]
    SlotTaken(ServiceId, u32),
    /// The task has been placed, or has no need of a place any more.
    #[error("task {0} is not waiting for a node")]
    NotPending(TaskId),
    /// The node has no room for the task any more.
    #[error("task {task} does not fit node {node}: {reason}")]
    DoesNotFit {
        /// The task.
        task: TaskId,
        /// The node.
        node: NodeId,
        /// What is in the way.
        reason: String,
    },
    /// Desired states never go backwards.
    #[error("task {task} cannot go back from desired state {from} to {to}")]
    Backwards {
        /// The task.
        task: TaskId,
        /// What it should come to.
        from: TaskState,
        /// What was asked for.
        to: TaskState,
    },
    /// Somebody reported on a task that is not theirs, or what they cannot know.
    #[error("task {task}: {state} cannot be reported by {by}")]
    NotTheirs {
        /// The task.
        task: TaskId,
        /// What was reported.
        state: TaskState,
        /// By whom.
        by: String,
    },
    /// A task is deleted after its end only.
    #[error("task {0} has not ended")]
    TaskLive(TaskId),
}

/// Why there is no specification to go back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NothingBefore {
    /// It is a job.
    #[error("a job is run again by `service update`, and not rolled back")]
    Job,
    /// A rollback is under way.
    #[error("it is being rolled back already")]
    RollingBack,
    /// A rollback has spent what there was: it came from a version that did not complete.
    #[error(
        "it was rolled back from a version that did not complete, which is nothing to go back \
         to: change it with `service update`"
    )]
    RolledBack,
    /// Nothing else has ever been deployed.
    #[error("no earlier version of it has completed: change it with `service update`")]
    Nothing,
}

/// What sort of refusal it is, for the one place that maps it to an RPC status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectionKind {
    /// The object does not exist.
    NotFound,
    /// Another object has the name or the identifier.
    AlreadyExists,
    /// The proposer had seen an older version: read again, then retry.
    OutOfSequence,
    /// The state does not allow it.
    FailedPrecondition,
    /// The request can never succeed.
    Invalid,
}

impl Rejection {
    /// What sort of refusal it is.
    #[must_use]
    pub fn kind(&self) -> RejectionKind {
        match self {
            Self::NodeNotFound(_) | Self::ServiceNotFound(_) | Self::TaskNotFound(_) => {
                RejectionKind::NotFound
            }
            Self::ClusterExists
            | Self::NodeExists(_)
            | Self::ServiceExists(_)
            | Self::TaskExists(_)
            | Self::NameTaken(_) => RejectionKind::AlreadyExists,
            Self::OutOfSequence | Self::RaftIdTaken(_) => RejectionKind::OutOfSequence,
            Self::Rename | Self::ModeChange | Self::MalformedTask(..) | Self::NotTheirs { .. } => {
                RejectionKind::Invalid
            }
            Self::NoCluster
            | Self::LastManager
            | Self::PortInUse { .. }
            | Self::NoFreePort
            | Self::ServiceInUse(_)
            | Self::NoPreviousSpec(..)
            | Self::NotUpdating(..)
            | Self::Updating(_)
            | Self::StaysHere(_)
            | Self::Schema { .. }
            | Self::OldManager { .. }
            | Self::SlotTaken(..)
            | Self::NotPending(_)
            | Self::DoesNotFit { .. }
            | Self::Backwards { .. }
            | Self::TaskLive(_) => RejectionKind::FailedPrecondition,
        }
    }
}
