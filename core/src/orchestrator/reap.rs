//! Forgets what has ended.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::Pass;
use super::slot::Slot;
use crate::command::Command;
use crate::model::{ClusterSpec, NodeId, Service, Task};
use crate::scheduler::{self, FAULTY};

/// Takes a service that is being removed down to nothing.
pub(super) fn service(pass: &mut Pass<'_>, service: &Service) {
    let mut empty = true;
    for task in pass.state.tasks_of(&service.id) {
        empty = false;
        if task.is_live() {
            pass.stop(task);
        } else {
            delete(pass, task);
        }
    }
    if empty {
        pass.commands.push(Command::DeleteService {
            id: service.id.clone(),
        });
    }
}

/// Keeps the last few ended tasks of a slot, and none of a slot that is gone.
pub(super) fn history(pass: &mut Pass<'_>, service: &Service, slot: &Slot<'_>) {
    let kept = if slot.is_occupied() { limit(pass) } else { 0 };
    past(pass, service, slot, kept);
}

/// How many ended tasks of a slot are kept to be looked at.
pub(super) fn limit(pass: &Pass<'_>) -> usize {
    let limit = pass.state.cluster().map_or_else(
        || ClusterSpec::default().task_history_limit,
        |cluster| cluster.spec.task_history_limit,
    );
    limit as usize
}

/// Keeps so many ended tasks of a slot. A slot that goes on keeps its latest failures on each
/// node as well, whatever the number: a node on which they pile up is avoided, and that is
/// counted from them. The back-off sees to it that they are few.
pub(super) fn past(pass: &mut Pass<'_>, service: &Service, slot: &Slot<'_>, kept: usize) {
    if slot.past.is_empty() {
        return;
    }
    let mut past: Vec<&Task> = slot.past.iter().copied().collect();
    past.sort_by_key(|task| Reverse((task.status.at, task.created_at, &task.id)));
    let mut failures: BTreeMap<&NodeId, usize> = BTreeMap::new();
    for (position, task) in past.into_iter().enumerate() {
        let mut counts = false;
        if let Some(node) = task.node.as_ref().filter(|_| slot.is_occupied())
            && scheduler::is_recent_failure(task, service.spec_version, pass.now)
        {
            let count = failures.entry(node).or_default();
            *count += 1;
            counts = *count <= FAULTY;
        }
        if position >= kept && !counts {
            delete(pass, task);
        }
    }
}

fn delete(pass: &mut Pass<'_>, task: &Task) {
    pass.commands.push(Command::DeleteTask {
        id: task.id.clone(),
    });
}
