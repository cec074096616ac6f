//! Forgets what has ended.

use std::cmp::Reverse;

use super::Pass;
use super::slot::Slot;
use crate::command::Command;
use crate::model::{ClusterSpec, Service, Task};

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
pub(super) fn history(pass: &mut Pass<'_>, slot: &Slot<'_>) {
    let limit = pass.state.cluster().map_or_else(
        || ClusterSpec::default().task_history_limit,
        |cluster| cluster.spec.task_history_limit,
    );
    let kept = if slot.is_occupied() { limit } else { 0 };
    let mut past = slot.past.clone();
    past.sort_by_key(|task| Reverse((task.status.at, task.created_at, &task.id)));
    for task in past.into_iter().skip(kept as usize) {
        delete(pass, task);
    }
}

fn delete(pass: &mut Pass<'_>, task: &Task) {
    pass.commands.push(Command::DeleteTask {
        id: task.id.clone(),
    });
}
