//! Rules about the tasks of a service that is being updated.

use super::{Violation, ensure};
use crate::model::{NodeState, Service, Task, TaskState, UpdateOrder};
use crate::orchestrator::slot::is_displaced;
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
        started(before, after, new)?;
        if new
            .update_config()
            .bounds(new.spec.mode.replicas())
            .is_some()
        {
            stopped(before, after, new)?;
        }
    }
    Ok(())
}

/// What was prepared starts only where its order lets it: stop-first once nothing of another
/// version lives in the slot, within bounds while there is room.
fn started(before: &State, after: &State, service: &Service) -> Result<(), Violation> {
    let config = service.update_config();
    let bounds = config.bounds(service.spec.mode.replicas());
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
fn stopped(before: &State, after: &State, service: &Service) -> Result<(), Violation> {
    let replicas = service.spec.mode.replicas();
    let Some(bounds) = service.update_config().bounds(replicas) else {
        return Ok(());
    };
    let told = after.tasks_of(&service.id).any(|task| {
        let before_it = before.task(&task.id);
        // Surplus slots and displaced tasks are stopped for other reasons.
        before_it.is_some_and(|old| is_healthy(before, old))
            && task.is_live()
            && !task.is_member()
            && service.is_outdated(task)
            && is_occupied(after, task)
            && !is_displaced(before, task)
    });
    let healthy = |state: &State| {
        let tasks = state.tasks_of(&service.id);
        tasks.filter(|task| is_healthy(state, task)).count() as u64
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
