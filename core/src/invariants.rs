//! What must hold after every step, whatever happened before it.
//!
//! Tests check it after each apply, and so may a manager in a debug build. A violation is a
//! bug in this crate, never a user's mistake.

mod state;
mod step;
#[cfg(test)]
mod tests;
mod update;

use crate::model::TaskState;
use crate::orchestrator::{restart, slot};
use crate::state::State;

/// A rule that was broken, with the objects concerned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(pub String);

/// Checks a state by itself.
///
/// # Errors
/// The first rule found broken.
pub fn check(state: &State) -> Result<(), Violation> {
    state::cluster(state)?;
    state::services(state)?;
    state::tasks(state)?;
    state::slots(state)?;
    state::nodes(state)
}

/// Checks what one log entry did to the state.
///
/// # Errors
/// The first rule found broken.
pub fn check_step(before: &State, after: &State) -> Result<(), Violation> {
    step::versions(before, after)?;
    step::cluster(before, after)?;
    step::services(before, after)?;
    step::tasks(before, after)?;
    update::steps(before, after)?;
    step::capacity(before, after)?;
    step::per_node(before, after)
}

/// Checks that what is, is what was asked for: each service has its number of tasks, they run
/// (or have ended, where the policy leaves it at that), and nothing else is under way. That
/// holds once faults and changes have stopped for a while.
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
        let paused = service
            .update_status
            .as_ref()
            .is_some_and(|s| s.is_paused());
        let members = state.tasks_of(&service.id).filter(|task| task.is_member());
        let mut count = 0;
        for task in members {
            ensure(paused || !service.is_outdated(task), || {
                format!("task {} is of an older version", task.name())
            })?;
            count += 1;
            let as_wanted = if task.is_live() {
                task.status.state == TaskState::Running && !slot::is_displaced(state, task)
            } else {
                restart::is_over(task, &service.spec.task.restart)
            };
            ensure(as_wanted, || {
                format!(
                    "task {} should run but is {} ({:?})",
                    task.name(),
                    task.status.state,
                    task.status.error
                )
            })?;
        }
        let wanted = service.spec.mode.replicas();
        ensure(count == wanted, || {
            format!(
                "service {} has {count} tasks instead of {wanted}",
                service.spec.name
            )
        })?;
    }
    for task in state.tasks() {
        ensure(!task.is_live() || task.is_member(), || {
            format!("task {} has not stopped yet", task.name())
        })?;
    }
    Ok(())
}

fn ensure(holds: bool, message: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds {
        Ok(())
    } else {
        Err(Violation(message()))
    }
}
