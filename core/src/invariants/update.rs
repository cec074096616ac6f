//! Rules about the tasks of a service that is being updated.

use super::{Violation, ensure};
use crate::model::{Bounds, NodeState, Service, Task, TaskState, UpdateOrder};
use crate::orchestrator::slot::is_displaced;
use crate::orchestrator::{self, takes_part};
use crate::state::State;

pub(super) fn steps(before: &State, after: &State) -> Result<(), Violation> {
    for new in after.services() {
        let Some(old) = before.service(&new.id) else {
            continue;
        };
        // A change of the specification belongs to both versions.
        if old.spec != new.spec || !old.is_updating() || new.removing {
            continue;
        }
        let tasks = orchestrator::wanted(before, new);
        let bounds = new.update_config().bounds(new.spec.mode, tasks);
        started(before, after, (new, bounds))?;
        if let Some(bounds) = bounds {
            stopped(before, after, (new, bounds))?;
        }
    }
    Ok(())
}

/// What was prepared starts only where its order lets it: stop-first once nothing of another
/// version lives in the slot, within bounds while there is room.
fn started(
    before: &State,
    after: &State,
    (service, bounds): (&Service, Option<Bounds>),
) -> Result<(), Violation> {
    let config = service.update_config();
    for task in after.tasks_of(&service.id).filter(|task| task.is_live()) {
        let waited = before
            .task(&task.id)
            .is_some_and(|old| old.desired == TaskState::Ready && old.is_live());
        let others = || {
            after.tasks_in(&service.id, task.slot).filter(|other| {
                other.is_live()
                    && other.desired != TaskState::Ready
                    && other.spec_version != task.spec_version
                    && !is_displaced(after, other)
            })
        };
        if !waited || task.desired != TaskState::Running || others().next().is_none() {
            continue;
        }
        if let Some(bounds) = bounds {
            let total = after
                .tasks_of(&service.id)
                .filter(|task| {
                    task.is_live()
                        && task.desired != TaskState::Ready
                        && !is_displaced(after, task)
                        && is_occupied(after, task)
                        && takes_part(before, service, task)
                })
                .count() as u64;
            ensure(total <= bounds.max, || {
                let (name, max) = (&service.spec.name, bounds.max);
                format!("service {name} has {total} tasks, at most {max} may be started")
            })?;
        } else {
            ensure(config.order == UpdateOrder::StartFirst, || {
                format!("task {} starts beside another version", task.name())
            })?;
        }
    }
    Ok(())
}

/// No update stops a healthy task where too few would be left.
fn stopped(
    before: &State,
    after: &State,
    (service, bounds): (&Service, Bounds),
) -> Result<(), Violation> {
    let told = after.tasks_of(&service.id).any(|task| {
        let before_it = before.task(&task.id);
        // Surplus slots and displaced tasks are stopped for other reasons.
        before_it.is_some_and(|old| is_healthy(before, old))
            && task.is_live()
            && !task.is_member()
            && service.is_outdated(task)
            && is_occupied(after, task)
            && !is_displaced(before, task)
            && takes_part(before, service, task)
    });
    let healthy = |state: &State| {
        let tasks = state.tasks_of(&service.id);
        let counts = |task: &&Task| is_healthy(state, task) && takes_part(before, service, task);
        tasks.filter(counts).count() as u64
    };
    ensure(!told || healthy(after) >= bounds.min, || {
        format!(
            "service {} has {} healthy tasks, at least {} must be left",
            service.spec.name,
            healthy(after),
            bounds.min
        )
    })
}

fn is_healthy(state: &State, task: &Task) -> bool {
    let node = task.node.as_ref().and_then(|id| state.node(id));
    task.status.state == TaskState::Running
        && task.is_member()
        && node.is_some_and(|node| node.status.state == NodeState::Ready)
}

/// Whether the task's slot still counts.
fn is_occupied(state: &State, task: &Task) -> bool {
    state
        .tasks_in(&task.service, task.slot)
        .any(Task::is_member)
}
