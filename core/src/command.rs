//! The verbs: everything that can happen to the replicated state.
//!
//! Ids and times ride inside, so that every replica comes to the same result. A command names
//! the version that its proposer had seen; [`apply`](crate::apply) refuses it where the
//! object has changed since.

use crate::model::{
    Cluster, ClusterSpec, JoinSecret, ManagerInfo, Node, NodeDescription, NodeId, NodeSpec,
    NodeState, PortProblem, Problem, Role, ServiceId, ServiceSpec, Task, TaskId, TaskState,
    TaskStatus, Timestamp, UpdateState, Version,
};

/// What one log entry holds: commands that were collected for a few milliseconds, because a
/// write to disk costs the same for one as for a hundred. Each succeeds or fails by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The proposer's clock; all objects touched take their times from it.
    pub at: Timestamp,
    /// In the order in which they apply.
    pub commands: Vec<Command>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Makes the cluster, with its first node; the first command there is.
    InitCluster {
        /// The cluster; its version is set by apply.
        cluster: Box<Cluster>,
        /// Its first manager.
        node: Box<Node>,
    },
    /// Changes settings.
    UpdateCluster {
        /// The version that the proposer saw.
        expected: Version,
        /// The new settings.
        spec: ClusterSpec,
    },
    /// Replaces a join secret; nodes that joined with the old one stay.
    RotateJoinSecret {
        /// Whose.
        role: Role,
        /// The new one.
        secret: JoinSecret,
    },
    /// Starts to use a newer schema of the state.
    RaiseSchema {
        /// The new version; refused unless every manager knows it.
        schema: u32,
    },

    /// Adds a node whose certificate has been signed.
    AddNode {
        /// The node.
        node: Box<Node>,
    },
    /// Changes what the user wants of a node.
    UpdateNode {
        /// Which.
        id: NodeId,
        /// The version that the proposer saw.
        expected: Version,
        /// The new wish.
        spec: NodeSpec,
    },
    /// Keeps what a node says of itself.
    DescribeNode {
        /// Which.
        id: NodeId,
        /// Its words.
        description: Box<NodeDescription>,
    },
    /// Keeps how a node does.
    ReportNode {
        /// Which.
        id: NodeId,
        /// The new state.
        state: NodeState,
        /// Why.
        message: String,
    },
    /// Keeps which published ports a node cannot serve; an empty list clears them.
    ReportPorts {
        /// Which node.
        id: NodeId,
        /// What it cannot serve.
        problems: Vec<PortProblem>,
    },
    /// Keeps what is wrong with a node; an empty list clears it.
    ReportProblems {
        /// Which node.
        id: NodeId,
        /// All of its problems.
        problems: Vec<Problem>,
    },
    /// Notes that a node has become a voter, or has ceased to be one. A `Some` takes the
    /// cluster's `next_raft_id` forward past the one named.
    SetManager {
        /// Which.
        id: NodeId,
        /// Its place among the voters.
        manager: Option<ManagerInfo>,
    },
    /// Forgets a node; its tasks become orphaned.
    RemoveNode {
        /// Which.
        id: NodeId,
    },

    /// Adds a service.
    CreateService {
        /// Its identifier.
        id: ServiceId,
        /// What the user asks for; ports that were left open are filled in by apply.
        spec: Box<ServiceSpec>,
    },
    /// Changes what the user asks for.
    UpdateService {
        /// Which.
        id: ServiceId,
        /// The version that the proposer saw.
        expected: Version,
        /// The new specification, whole.
        spec: Box<ServiceSpec>,
    },
    /// Goes back to the last specification whose deployment completed.
    RollbackService {
        /// Which.
        id: ServiceId,
        /// The version that the proposer saw.
        expected: Version,
        /// Why.
        message: String,
    },
    /// Ends an update, well or not.
    SetUpdateStatus {
        /// Which service.
        id: ServiceId,
        /// The version that the proposer saw.
        expected: Version,
        /// How it ended.
        state: UpdateState,
        /// Why.
        message: String,
    },
    /// Begins to move tasks of a service to nodes that have fewer of them.
    StartRebalance {
        /// Which.
        id: ServiceId,
        /// The version that the proposer saw.
        expected: Version,
        /// How many tasks may be moved at most.
        moves: u32,
    },
    /// Ends it, done or not.
    EndRebalance {
        /// Which service.
        id: ServiceId,
    },
    /// Marks a service for removal: it goes once its tasks have been stopped.
    RemoveService {
        /// Which.
        id: ServiceId,
    },
    /// Forgets a service that has no task left.
    DeleteService {
        /// Which.
        id: ServiceId,
    },

    /// Adds a task.
    CreateTask {
        /// The task, new and without a node.
        task: Box<Task>,
    },
    /// Binds a task to a node.
    AssignTask {
        /// Which.
        id: TaskId,
        /// The version that the scheduler saw.
        expected: Version,
        /// Where it goes.
        node: NodeId,
    },
    /// Keeps why a task waits.
    ExplainTask {
        /// Which.
        id: TaskId,
        /// The version that the scheduler saw.
        expected: Version,
        /// The reason.
        reason: String,
    },
    /// Takes a task out of every balancer, because it is to stop.
    DrainTask {
        /// Which.
        id: TaskId,
    },
    /// Has a task replaced by an equal one on another node.
    MoveTask {
        /// Which.
        id: TaskId,
        /// The version that the proposer saw.
        expected: Version,
    },
    /// Lets a task that was to move stay where it is.
    KeepTask {
        /// Which.
        id: TaskId,
    },
    /// Changes what a task should come to; never backwards.
    SetDesired {
        /// Which.
        id: TaskId,
        /// The new aim.
        desired: TaskState,
    },
    /// Keeps what was observed of a task; never backwards.
    ReportTask {
        /// Which.
        id: TaskId,
        /// Who observed it: the task's own node, or `None` for the leader where the node is
        /// gone for good.
        by: Option<NodeId>,
        /// What was observed.
        status: Box<TaskStatus>,
    },
    /// Forgets a task that has ended.
    DeleteTask {
        /// Which.
        id: TaskId,
    },
}
