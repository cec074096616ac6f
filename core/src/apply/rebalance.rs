//! Commands that move tasks to other nodes.

use super::service::find;
use super::{Change, Outcome, Rejection, task};
use crate::event::Event;
use crate::model::{Rebalance, ServiceId, TaskId, TaskState, Version};
use crate::state::State;

pub(super) fn start(
    state: &mut State,
    change: Change,
    id: &ServiceId,
    expected: Version,
    moves: u32,
) -> Outcome {
    let service = find(state, id)?;
    if service.version != expected {
        return Err(Rejection::OutOfSequence);
    }
    if service.is_updating() {
        return Err(Rejection::Updating(service.spec.name.clone()));
    }
    set(
        state,
        change,
        id,
        Some(Rebalance {
            started_at: change.at,
            moves_left: moves,
        }),
    )
}

pub(super) fn end(state: &mut State, change: Change, id: &ServiceId) -> Outcome {
    if find(state, id)?.rebalance.is_none() {
        return Ok(Vec::new());
    }
    stop(state, change, id)
}

/// Ends the rebalance of a service, and lets those of its tasks stay that have not gone.
pub(super) fn stop(state: &mut State, change: Change, id: &ServiceId) -> Outcome {
    let moving: Vec<TaskId> = state
        .tasks_of(id)
        .filter(|task| task.moving && task.is_live() && task.is_member())
        .map(|task| task.id.clone())
        .collect();
    let mut events = Vec::new();
    for task in moving {
        events.extend(keep_task(state, change, &task)?);
    }
    if find(state, id)?.rebalance.is_some() {
        events.extend(set(state, change, id, None)?);
    }
    Ok(events)
}

pub(super) fn move_task(
    state: &mut State,
    change: Change,
    id: &TaskId,
    expected: Version,
) -> Outcome {
    let task = task::find(state, id)?;
    if task.version != expected {
        return Err(Rejection::OutOfSequence);
    }
    let service = find(state, &task.service)?;
    let serves = task.status.state == TaskState::Running && task.is_member() && !task.moving;
    let left = service.rebalance.filter(|left| left.moves_left > 0);
    let (Some(rebalance), true) = (left, serves && !service.is_outdated(task)) else {
        return Err(Rejection::StaysHere(id.clone()));
    };
    let service = task.service.clone();
    let mut events = task::edit(state, change, id, |task| task.moving = true)?;
    let moves_left = rebalance.moves_left - 1;
    events.extend(set(
        state,
        change,
        &service,
        Some(Rebalance {
            moves_left,
            ..rebalance
        }),
    )?);
    Ok(events)
}

pub(super) fn keep_task(state: &mut State, change: Change, id: &TaskId) -> Outcome {
    let task = task::find(state, id)?;
    // One that is told to stop has been replaced, and there is no way back.
    if !task.moving || !task.is_live() || !task.is_member() {
        return Ok(Vec::new());
    }
    task::edit(state, change, id, |task| task.moving = false)
}

fn set(state: &mut State, change: Change, id: &ServiceId, rebalance: Option<Rebalance>) -> Outcome {
    let service = state
        .service_mut(id)
        .ok_or_else(|| Rejection::ServiceNotFound(id.clone()))?;
    service.rebalance = rebalance;
    service.version = change.index;
    Ok(vec![Event::Service(id.clone())])
}
