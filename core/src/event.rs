//! What changed: apply returns one event per object touched, for everybody who watches.

use crate::model::{NodeId, ServiceId, TaskId};

/// An object that a command touched. The object itself is in the state, unless it was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The cluster's settings or secrets.
    Cluster,
    /// A node was added, changed or removed.
    Node(NodeId),
    /// A service was added, changed or removed.
    Service(ServiceId),
    /// A task was added, changed or removed.
    Task(TaskId),
}
