//! What an update leaves behind in a service: where it stands, what failed, and which version
//! to go back to.

use std::collections::BTreeSet;

use super::service::{check_ports, find};
use super::{Change, NothingBefore, Outcome, Rejection, rebalance, task};
use crate::event::Event;
use crate::model::{
    Service, ServiceId, ServiceSpec, Task, TaskId, TaskState, TaskStatus, UpdateState,
    UpdateStatus, Version,
};
use crate::state::State;

/// Gives a service another specification. What its tasks are made of is replaced by an update;
/// anything else holds at once.
///
/// A paused update is begun again by any change but that of the replica count, an unchanged
/// specification included: that is how Docker's users ask for it. Scaling a service must not
/// go on with what has just failed. What goes on is tried anew: failures count from zero, and no
/// back-off is waited for.
pub(super) fn change_spec(
    state: &mut State,
    change: Change,
    id: &ServiceId,
    spec: ServiceSpec,
) -> Outcome {
    let service = find(state, id)?;
    let scaled = ServiceSpec {
        mode: spec.mode,
        ..service.spec.clone()
    };
    let paused = service.update_status.as_ref().filter(|s| s.is_paused());
    let resumed = paused.filter(|_| service.spec == spec || scaled != spec);
    let alike = differ_in_sources_alone(&service.spec, &spec);
    // Whoever renews a token does not ask for another run of a job.
    let same_run = alike && service.spec.mode.is_job();
    let remade = !same_run && !spec.makes(&service.spec.task, &service.spec.ports);
    if service.spec == spec && resumed.is_none() {
        return Ok(Vec::new());
    }
    let begun = match resumed.map(|status| status.state) {
        Some(UpdateState::RollbackPaused) if !remade => Some(UpdateState::RollbackStarted),
        Some(_) => Some(UpdateState::Updating),
        None => remade.then_some(UpdateState::Updating),
    };
    // What is new in a job begins another run of it, and a run that failed is no update.
    let begun = begun.filter(|_| !service.spec.mode.is_job());
    let goes_on = resumed.is_some();
    // With new credentials, or with nothing new, there is nothing that could be gone back from.
    let completed = !alike && is_deployed(state, service);
    let completed = completed.then(|| Box::new(service.spec.clone()));
    let service = state
        .service_mut(id)
        .ok_or_else(|| Rejection::ServiceNotFound(id.clone()))?;
    if completed.is_some() {
        service.previous_spec = completed;
    }
    service.spec = spec;
    service.version = change.index;
    service.updated_at = change.at;
    if remade {
        service.spec_version = change.index;
        rebalance::stop(state, change, id)?;
    }
    let Some(reached) = begun else {
        return Ok(vec![Event::Service(id.clone())]);
    };
    let message = match reached {
        UpdateState::RollbackStarted => "rollback in progress",
        _ => "update in progress",
    };
    if goes_on {
        return go_on(state, change, id, reached, message);
    }
    begin(state, change, id, reached, message);
    Ok(vec![Event::Service(id.clone())])
}

/// Whether nothing else is new than where the images are got from, or not even that.
fn differ_in_sources_alone(one: &ServiceSpec, other: &ServiceSpec) -> bool {
    let same_sources = ServiceSpec {
        task: other.task.with_sources_of(&one.task).into_owned(),
        ..other.clone()
    };
    *one == same_sources
}

/// Takes up an update that was paused. Its tasks count as those of a new version, although they
/// may be alike: whoever asks has done something about the cause, and wants to know at once
/// whether that was enough.
fn go_on(
    state: &mut State,
    change: Change,
    id: &ServiceId,
    reached: UpdateState,
    message: &str,
) -> Outcome {
    let service = state
        .service_mut(id)
        .ok_or_else(|| Rejection::ServiceNotFound(id.clone()))?;
    service.spec_version = change.index;
    service.version = change.index;
    service.updated_at = change.at;
    begin(state, change, id, reached, message);
    let waits = |task: &&Task| {
        let backs_off = task.restart.failures > 0 && task.desired == TaskState::Ready;
        backs_off && task.is_member() && task.is_live()
    };
    let waiting: Vec<TaskId> = state
        .tasks_of(id)
        .filter(waits)
        .map(|task| task.id.clone())
        .collect();
    let mut events = vec![Event::Service(id.clone())];
    for task in waiting {
        events.extend(task::set_desired(
            state,
            change,
            &task,
            TaskState::Shutdown,
        )?);
    }
    Ok(events)
}

/// Gives a service the specification of its last completed deployment. A rollback that paused on
/// the way there goes on.
pub(super) fn roll_back(
    state: &mut State,
    change: Change,
    id: &ServiceId,
    expected: Version,
    message: &str,
) -> Outcome {
    let service = find(state, id)?;
    if service.version != expected {
        return Err(Rejection::OutOfSequence);
    }
    let paused = UpdateState::RollbackPaused;
    let status = service.update_status.as_ref().map(|status| status.state);
    if service.previous_spec.is_none() && status == Some(paused) {
        return go_on(state, change, id, UpdateState::RollbackStarted, message);
    }
    let mut spec = rollback_spec(state, service)?.clone();
    spec.task.renew_credentials(&service.spec.task);
    // A version that failed is nothing to come back to.
    let previous = is_deployed(state, service).then(|| Box::new(service.spec.clone()));
    let remade = !spec.makes(&service.spec.task, &service.spec.ports);
    let service = state
        .service_mut(id)
        .ok_or_else(|| Rejection::ServiceNotFound(id.clone()))?;
    service.previous_spec = previous;
    service.spec = spec;
    service.version = change.index;
    service.updated_at = change.at;
    if remade {
        service.spec_version = change.index;
    }
    rebalance::stop(state, change, id)?;
    begin(state, change, id, UpdateState::RollbackStarted, message);
    Ok(vec![Event::Service(id.clone())])
}

/// The specification that a rollback leads to.
///
/// # Errors
/// There is none, or somebody else has one of its ports by now.
pub(crate) fn rollback_spec<'a>(
    state: &State,
    service: &'a Service,
) -> Result<&'a ServiceSpec, Rejection> {
    let spec = service.previous_spec.as_deref().ok_or_else(|| {
        Rejection::NoPreviousSpec(service.spec.name.clone(), nothing_before(service))
    })?;
    check_ports(state, &service.id, &spec.ports)?;
    Ok(spec)
}

/// Why a service has no previous specification. A rollback of a version that completed can be
/// taken back by another one, as with Docker, so that only one which did not leaves nothing.
fn nothing_before(service: &Service) -> NothingBefore {
    let reached = service.update_status.as_ref().map(|status| status.state);
    match reached {
        _ if service.spec.mode.is_job() => NothingBefore::Job,
        Some(UpdateState::RollbackStarted) => NothingBefore::RollingBack,
        Some(UpdateState::RollbackCompleted | UpdateState::RollbackPaused) => {
            NothingBefore::RolledBack
        }
        Some(UpdateState::Updating | UpdateState::Paused | UpdateState::Completed) | None => {
            NothingBefore::Nothing
        }
    }
}

/// Ends an update.
pub(super) fn end(
    state: &mut State,
    change: Change,
    id: &ServiceId,
    expected: Version,
    reached: UpdateState,
    message: &str,
) -> Outcome {
    let service = find(state, id)?;
    if service.version != expected {
        return Err(Rejection::OutOfSequence);
    }
    let from = service.update_status.as_ref().map(|status| status.state);
    let follows = matches!(
        (from, reached),
        (
            Some(UpdateState::Updating),
            UpdateState::Paused | UpdateState::Completed
        ) | (
            Some(UpdateState::RollbackStarted),
            UpdateState::RollbackPaused | UpdateState::RollbackCompleted
        )
    );
    let refused = || Rejection::NotUpdating(service.spec.name.clone(), reached);
    if !follows {
        return Err(refused());
    }
    let Some(service) = state.service_mut(id) else {
        return Err(Rejection::ServiceNotFound(id.clone()));
    };
    if let Some(status) = &mut service.update_status {
        status.state = reached;
        status.completed_at = Some(change.at);
        message.clone_into(&mut status.message);
    }
    service.version = change.index;
    Ok(vec![Event::Service(id.clone())])
}

/// Counts the end of a task as a failure of the update that made it: at the slot's first
/// attempt, before it ran or soon after. Restarts of the same slot do not count again, so that
/// the failures are a share of the slots.
pub(super) fn note_end(
    state: &mut State,
    change: Change,
    id: &TaskId,
    before: &TaskStatus,
) -> Option<Event> {
    let task = state.task(id)?;
    let service = state.service(&task.service).filter(|s| s.is_updating())?;
    let failed = matches!(
        task.status.state,
        TaskState::Complete | TaskState::Failed | TaskState::Rejected
    );
    let early = before.state < TaskState::Running
        || change.at.since(before.at) < service.update_config().monitor;
    let first = task.restart.failures == 0 && task.spec_version == service.spec_version;
    if !(failed && early && first) {
        return None;
    }
    let service_id = service.id.clone();
    let service = state.service_mut(&service_id)?;
    service.version = change.index;
    let status = service.update_status.as_mut()?;
    status.failures = status.failures.saturating_add(1);
    status.failed_task = Some(id.clone());
    Some(Event::Service(service_id))
}

fn begin(state: &mut State, change: Change, id: &ServiceId, reached: UpdateState, message: &str) {
    let Some(service) = state.service(id) else {
        return;
    };
    // Those that were changed before a pause, and failed, are still to be shown to run.
    let serves = |task: &Task| task.status.state == TaskState::Running;
    let unchanged: BTreeSet<u32> = state
        .tasks_of(id)
        .filter(|task| task.is_member() && (service.is_outdated(task) || !serves(task)))
        .map(|task| task.slot)
        .collect();
    // What made an update roll back is of interest until something else fails.
    let failed_task = service
        .update_status
        .as_ref()
        .filter(|status| {
            reached == UpdateState::RollbackStarted && status.state == UpdateState::Updating
        })
        .and_then(|status| status.failed_task.clone());
    let status = UpdateStatus {
        state: reached,
        started_at: change.at,
        completed_at: None,
        message: message.to_owned(),
        slots: u32::try_from(unchanged.len()).unwrap_or(u32::MAX),
        failures: 0,
        failed_task,
    };
    if let Some(service) = state.service_mut(id) {
        service.update_status = Some(status);
    }
}

/// Whether the deployment of the present specification completed. That of a service which was
/// never updated has once a task of it runs. A job is run, not deployed: there is nothing to go
/// back to.
fn is_deployed(state: &State, service: &Service) -> bool {
    if service.spec.mode.is_job() {
        return false;
    }
    match service.update_status.as_ref().map(|status| status.state) {
        Some(reached) => matches!(
            reached,
            UpdateState::Completed | UpdateState::RollbackCompleted
        ),
        None => {
            service.spec.mode.replicas() == Some(0)
                || state
                    .tasks_of(&service.id)
                    .any(|task| task.status.state == TaskState::Running)
        }
    }
}

#[cfg(test)]
mod tests;
