//! One slot of a service: the tasks that it counts on, and those that have been.

use crate::model::{Availability, NodeState, ServiceId, Task, TaskState};
use crate::state::State;

/// A slot's tasks, by what they mean for it.
#[derive(Debug, Default)]
pub(super) struct Slot<'a> {
    /// Members on a node that will keep them, or without a node yet.
    pub(super) settled: Vec<&'a Task>,
    /// Members on a node that is down or to be emptied.
    pub(super) displaced: Vec<&'a Task>,
    /// Members that ended by themselves and were not succeeded yet.
    pub(super) finished: Vec<&'a Task>,
    /// Ended tasks that are kept to be looked at.
    pub(super) past: Vec<&'a Task>,
}

impl<'a> Slot<'a> {
    pub(super) fn add(&mut self, state: &State, task: &'a Task) {
        let live = task.is_live();
        match (task.is_member(), live) {
            (true, true) if is_displaced(state, task) => self.displaced.push(task),
            (true, true) => self.settled.push(task),
            (true, false) => self.finished.push(task),
            (false, false) => self.past.push(task),
            // On its way out: nothing to decide about it here.
            (false, true) => {}
        }
    }

    /// Whether anything in it counts.
    pub(super) fn is_occupied(&self) -> bool {
        self.members().next().is_some()
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &'a Task> {
        self.settled
            .iter()
            .chain(&self.displaced)
            .chain(&self.finished)
            .copied()
    }

    /// The member that serves, where there is one whose node answers.
    pub(super) fn serving(&self, state: &State) -> Option<&'a Task> {
        self.members().find(|task| {
            let node = task.node.as_ref().and_then(|id| state.node(id));
            task.status.state == TaskState::Running
                && node.is_some_and(|node| node.status.state == NodeState::Ready)
        })
    }
}

/// Whether a task has to be replaced although it has not ended, because of its node.
pub(crate) fn is_displaced(state: &State, task: &Task) -> bool {
    let Some(id) = &task.node else { return false };
    state.node(id).is_none_or(|node| {
        node.status.state == NodeState::Down || node.spec.availability == Availability::Drain
    })
}

/// Whether a task may be added to a slot: none is there, or just one that is displaced and so
/// needs a replacement. Two leaders that decided the same therefore make one task, not two.
pub(crate) fn has_room(state: &State, service: &ServiceId, slot: u32) -> bool {
    let mut members = state
        .tasks_in(service, slot)
        .filter(|task| task.is_member() && task.is_live());
    match (members.next(), members.next()) {
        (None, _) => true,
        (Some(task), None) => is_displaced(state, task),
        (Some(_), Some(_)) => false,
    }
}

/// Of several members that could stay: one that runs, then the oldest.
pub(super) fn best<'a>(members: &[&'a Task]) -> Option<&'a Task> {
    members.iter().copied().min_by_key(|task| {
        (
            task.status.state != TaskState::Running,
            task.created_at,
            &task.id,
        )
    })
}
