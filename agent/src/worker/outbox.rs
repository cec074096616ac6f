//! The latest status of every task, on its way to a manager.
//!
//! A map behind a watch channel and not a queue: however long no manager listens, it holds
//! one status for each task, and after a reconnect everything is simply sent from the start.

use std::collections::BTreeMap;

use swarmlet_core::model::{TaskId, TaskStatus};
use tokio::sync::watch;

/// Latest statuses, each with the number of its change.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    latest: u64,
    statuses: BTreeMap<TaskId, (u64, TaskStatus)>,
}

impl Outbox {
    /// Statuses that changed after number `sent`, and the number that this comes to.
    pub(crate) fn since(&self, sent: u64) -> (Vec<(TaskId, TaskStatus)>, u64) {
        let news = self
            .statuses
            .iter()
            .filter(|(_, (number, _))| *number > sent)
            .map(|(task, (_, status))| (task.clone(), status.clone()))
            .collect();
        (news, self.latest)
    }

    fn put(&mut self, task: &TaskId, status: &TaskStatus) {
        self.latest += 1;
        self.statuses
            .insert(task.clone(), (self.latest, status.clone()));
    }
}

/// Publishes a status.
pub(super) fn publish(outbox: &watch::Sender<Outbox>, task: &TaskId, status: &TaskStatus) {
    outbox.send_modify(|outbox| outbox.put(task, status));
}

/// Forgets a task that is the node's no more.
pub(super) fn forget(outbox: &watch::Sender<Outbox>, task: &TaskId) {
    // Nobody has to be woken to learn that there is nothing to send.
    outbox.send_if_modified(|outbox| {
        outbox.statuses.remove(task);
        false
    });
}
