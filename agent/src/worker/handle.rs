//! The way to talk to the worker.

use std::collections::BTreeSet;
use std::sync::Arc;

use swarmlet_core::model::{Task, TaskId};
use tokio::sync::{mpsc, oneshot, watch};

use super::own::Own;

/// The node's tasks as a manager names them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Assignments {
    /// Whether tasks that are not in `update` are the node's no more.
    pub(crate) complete: bool,
    pub(crate) update: Vec<Task>,
    pub(crate) remove: Vec<TaskId>,
}

pub(super) enum Command {
    Assign(Assignments),
    Acknowledged(Arc<BTreeSet<TaskId>>),
    Leave(oneshot::Sender<()>),
}

/// Talks to the worker. Its calls wait while the worker is busy; once it has ended they do
/// nothing, because then the whole agent ends.
#[derive(Clone)]
pub(crate) struct WorkerHandle {
    commands: mpsc::Sender<Command>,
    own: watch::Receiver<Own>,
    routed: watch::Sender<u64>,
}

/// The worker's ends of a handle.
pub(super) struct Ends {
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) own: watch::Sender<Own>,
    pub(super) routed: watch::Receiver<u64>,
}

impl WorkerHandle {
    /// A handle, and what the worker reads.
    pub(super) fn new() -> (Self, Ends) {
        // Bounded, so that a flood of assignments slows the session down instead of filling
        // the memory; the worker empties it between any two steps.
        let (commands, receiver) = mpsc::channel(16);
        let (own_in, own) = watch::channel(Own::default());
        let (routed, routed_out) = watch::channel(0);
        let handle = Self {
            commands,
            own,
            routed,
        };
        let ends = Ends {
            commands: receiver,
            own: own_in,
            routed: routed_out,
        };
        (handle, ends)
    }

    /// The node's own endpoints, and every change of them.
    pub(crate) fn own(&self) -> watch::Receiver<Own> {
        self.own.clone()
    }

    /// Tells that the balancer has the own endpoints of this number, or later ones.
    pub(crate) fn routed(&self, number: u64) {
        self.routed.send_replace(number);
    }

    /// Hands over assignments.
    pub(crate) async fn assign(&self, assignments: Assignments) {
        self.send(Command::Assign(assignments)).await;
    }

    /// Tells that the node's balancer works by a table with exactly these tasks.
    pub(crate) async fn acknowledged(&self, tasks: Arc<BTreeSet<TaskId>>) {
        self.send(Command::Acknowledged(tasks)).await;
    }

    /// Stops and removes every task; returns once none is left.
    pub(crate) async fn leave(&self) {
        let (done, waiting) = oneshot::channel();
        self.send(Command::Leave(done)).await;
        if waiting.await.is_err() {
            tracing::debug!("the worker ended before all tasks were removed");
        }
    }

    async fn send(&self, command: Command) {
        if self.commands.send(command).await.is_err() {
            tracing::debug!("the worker has ended");
        }
    }
}
