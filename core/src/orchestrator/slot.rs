//! One slot of a service: the tasks that it counts on, and those that have been.

use std::collections::BTreeMap;

use super::few::Few;
use crate::model::{Availability, NodeId, NodeState, Service, ServiceId, Task, TaskState};
use crate::scheduler;
use crate::state::State;

/// A slot's tasks, by what they mean for it.
#[derive(Debug, Default)]
pub(crate) struct Slot<'a> {
    /// Members on a node that will keep them, or without a node yet.
    pub(crate) settled: Few<'a>,
    /// Members on a node that is down, to be emptied, or excluded by a constraint, or that are to
    /// move to another one.
    pub(crate) displaced: Few<'a>,
    /// Members that ended by themselves and were not succeeded yet.
    pub(crate) finished: Few<'a>,
    /// Tasks that were told to stop and have not.
    pub(crate) leaving: Few<'a>,
    /// Ended tasks that are kept to be looked at.
    pub(crate) past: Few<'a>,
    /// The node that all of them are for, where the service has one task on each node.
    pub(crate) home: Option<&'a NodeId>,
}

/// The slots of a service, by number.
pub(crate) fn of<'a>(state: &'a State, service: &ServiceId) -> BTreeMap<u32, Slot<'a>> {
    let mut slots: BTreeMap<u32, Slot<'a>> = BTreeMap::new();
    for task in state.tasks_of(service) {
        slots.entry(task.slot).or_default().add(state, task);
    }
    slots
}

impl<'a> Slot<'a> {
    fn add(&mut self, state: &State, task: &'a Task) {
        self.home = task.home.as_ref();
        let live = task.is_live();
        match (task.is_member(), live) {
            (true, true) if is_displaced(state, task) => self.displaced.push(task),
            (true, true) => self.settled.push(task),
            (true, false) => self.finished.push(task),
            (false, false) => self.past.push(task),
            (false, true) => self.leaving.push(task),
        }
    }

    /// Whether anything in it counts.
    pub(crate) fn is_occupied(&self) -> bool {
        self.members().next().is_some()
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = &'a Task> {
        self.settled
            .iter()
            .chain(&self.displaced)
            .chain(&self.finished)
            .copied()
    }

    /// The settled members that are not what the service asks for any more, and those that are.
    pub(crate) fn by_version(&self, service: &Service) -> (Few<'a>, Few<'a>) {
        let settled = self.settled.iter().copied();
        settled.partition(|task| service.is_outdated(task))
    }

    /// Whether a task of another version has still to stop in the slot. A settled one of two
    /// updates ago counts as well: it is told to stop in the same pass.
    pub(crate) fn is_left_by_another(&self, task: &Task) -> bool {
        self.leaving
            .iter()
            .chain(&self.settled)
            .any(|other| other.spec_version != task.spec_version)
    }

    /// The live members that are told to stop in this pass whatever an update decides: another
    /// task of the slot stays, or takes over from them.
    pub(crate) fn outgoing(&self, state: &State, service: &Service) -> Few<'a> {
        let (old, new) = self.by_version(service);
        match (best(&old), best(&new)) {
            (Some(_), Some(_)) => Few::default(),
            // It was to replace a displaced task and does not run yet; what replaces that one
            // next is of the new version.
            (Some(old), None)
                if !self.displaced.is_empty() && old.status.state != TaskState::Running =>
            {
                std::iter::once(old).collect()
            }
            (Some(stays), None) | (None, Some(stays)) => self.succeeded_by(state, stays),
            // The replacement was displaced as well. One of the two is given up; the next pass
            // makes another replacement.
            (None, None) => others(&self.displaced, best(&self.displaced)).collect(),
        }
    }

    /// What goes because of a settled task that stays: those beside it, such as a replacement
    /// whose predecessor came back before it ran, and displaced ones that it takes over from.
    fn succeeded_by(&self, state: &State, stays: &'a Task) -> Few<'a> {
        let runs = stays.status.state == TaskState::Running;
        let nowhere = is_refused(stays);
        // A node that is drained goes on serving for as long as no other one can. A constraint
        // is binding: where it does not hold the task ends, though nobody can take its place.
        let displaced = self.displaced.iter().copied();
        let relieved = displaced.filter(|task| runs || (nowhere && is_evicted(state, task)));
        // Those that serve go last.
        others(&self.settled, Some(stays)).chain(relieved).collect()
    }

    /// The member that serves, where there is one whose node answers.
    pub(crate) fn serving(&self, state: &State) -> Option<&'a Task> {
        self.members().find(|task| {
            let node = task.node.as_ref().and_then(|id| state.node(id));
            task.status.state == TaskState::Running
                && node.is_some_and(|node| node.status.state == NodeState::Ready)
        })
    }
}

/// Whether a task has to be replaced although it has not ended, because of where it is.
pub(crate) fn is_displaced(state: &State, task: &Task) -> bool {
    let Some(id) = &task.node else { return false };
    let unfit = state.node(id).is_none_or(|node| {
        node.status.state == NodeState::Down
            || node.spec.availability == Availability::Drain
            || !scheduler::meets_constraints(node, &task.spec)
    });
    task.moving || unfit
}

/// Whether a task has to end because a constraint holds for its node no more.
pub(crate) fn is_evicted(state: &State, task: &Task) -> bool {
    let node = task.node.as_ref().and_then(|id| state.node(id));
    node.is_some_and(|node| !scheduler::meets_constraints(node, &task.spec))
}

/// Whether no node may have a task as things stand.
pub(crate) fn is_refused(task: &Task) -> bool {
    task.status.state == TaskState::Pending && task.status.error.is_some()
}

/// Whether a task may be added to its slot: none is there, or just one that needs a replacement,
/// because it is displaced or not what the service asks for any more. Two leaders that decided
/// the same therefore make one task, not two. A slot is of one node, where it is of any, and one
/// of a job that has completed takes no further task.
pub(crate) fn has_room(state: &State, service: &Service, task: &Task) -> bool {
    let others = || state.tasks_in(&service.id, task.slot);
    if others().any(|other| other.home != task.home || has_completed(service, other)) {
        return false;
    }
    let mut members = others().filter(|other| other.is_member() && other.is_live());
    match (members.next(), members.next()) {
        (None, _) => true,
        (Some(member), None) => service.is_outdated(member) || is_displaced(state, member),
        (Some(_), Some(_)) => false,
    }
}

/// Whether a task has done what the present run of its job is for.
pub(crate) fn has_completed(service: &Service, task: &Task) -> bool {
    service.spec.mode.is_job()
        && task.status.state == TaskState::Complete
        && task.spec_version == service.spec_version
}

fn others<'a>(members: &Few<'a>, stays: Option<&Task>) -> impl Iterator<Item = &'a Task> {
    let stays = stays.map(|task| task.id.clone());
    let members = members.iter().copied();
    members.filter(move |task| Some(&task.id) != stays.as_ref())
}

/// Of several tasks that have ended, the one that did so last.
pub(crate) fn last<'f, 'a: 'f>(ended: impl IntoIterator<Item = &'f &'a Task>) -> Option<&'a Task> {
    let ended = ended.into_iter().copied();
    ended.max_by_key(|task| (task.status.at, task.created_at, &task.id))
}

/// Of several members that could stay: one that runs, then the oldest.
pub(crate) fn best<'f, 'a: 'f>(
    members: impl IntoIterator<Item = &'f &'a Task>,
) -> Option<&'a Task> {
    members.into_iter().copied().min_by_key(|task| {
        (
            task.status.state != TaskState::Running,
            task.created_at,
            &task.id,
        )
    })
}
