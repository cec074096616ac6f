//! What is, is what was asked for.

use std::collections::BTreeSet;

use super::{Violation, ensure};
use crate::model::{Service, Task, TaskState};
use crate::orchestrator::{self, restart, slot};
use crate::state::State;

/// Checks that what is, is what was asked for: each service has its number of tasks, or one on
/// each node; they run (or have ended, where the policy leaves it at that); jobs have been done
/// (or given up, likewise); and nothing else is under way. That holds once faults and changes
/// have stopped for a while.
///
/// # Errors
/// The first thing that is not as it should be.
pub fn check_converged(state: &State) -> Result<(), Violation> {
    for service in state.services() {
        ensure(!service.removing, || {
            format!("service {} is still being removed", service.spec.name)
        })?;
        ensure(!service.is_updating(), || {
            format!("service {} is still being updated", service.spec.name)
        })?;
        ensure(service.rebalance.is_none(), || {
            format!("service {} is still being rebalanced", service.spec.name)
        })?;
        tasks(state, service)?;
    }
    for task in state.tasks() {
        ensure(!task.is_live() || task.is_member(), || {
            format!("task {} has not stopped yet", task.name())
        })?;
    }
    Ok(())
}

fn tasks(state: &State, service: &Service) -> Result<(), Violation> {
    let paused = service
        .update_status
        .as_ref()
        .is_some_and(|s| s.is_paused());
    let mut count = 0;
    let mut homes = BTreeSet::new();
    // A job's task that completed although it was told to stop is not made again.
    let counts = |task: &&Task| task.is_member() || slot::has_completed(service, task);
    for task in state.tasks_of(&service.id).filter(counts) {
        ensure(paused || !service.is_outdated(task), || {
            format!("task {} is of an older version", task.name())
        })?;
        count += 1;
        ensure(is_as_wanted(state, service, task), || {
            format!(
                "task {} should run but is {} ({:?})",
                task.name(),
                task.status.state,
                task.status.error
            )
        })?;
        if let Some(home) = &task.home {
            ensure(homes.insert(home), || {
                format!("service {} has two tasks for {home}", service.spec.name)
            })?;
        }
    }
    let wanted = orchestrator::wanted(state, service);
    ensure(count == wanted, || {
        let name = &service.spec.name;
        format!("service {name} has {count} tasks instead of {wanted}")
    })
}

fn is_as_wanted(state: &State, service: &Service, task: &Task) -> bool {
    if task.is_live() {
        return task.status.state == TaskState::Running
            && !service.spec.mode.is_job()
            && !slot::is_displaced(state, task);
    }
    restart::is_over(task, &service.spec.task.restart)
}
