//! Commands about tasks.

use std::sync::Arc;

use super::{Change, Outcome, Rejection, update};
use crate::event::Event;
use crate::model::{
    Draining, NodeId, NodeState, Task, TaskId, TaskState, TaskStatus, Timestamp, Version,
};
use crate::orchestrator::{restart, slot};
use crate::scheduler;
use crate::state::State;

pub(super) fn create(state: &mut State, change: Change, task: &Task) -> Outcome {
    if state.task(&task.id).is_some() {
        return Err(Rejection::TaskExists(task.id.clone()));
    }
    let service = state
        .service(&task.service)
        .filter(|service| !service.removing)
        .ok_or_else(|| Rejection::ServiceNotFound(task.service.clone()))?;
    // Decided from a specification that has been replaced meanwhile.
    if task.spec_version != service.spec_version {
        return Err(Rejection::OutOfSequence);
    }
    let malformed = |what| Err(Rejection::MalformedTask(task.id.clone(), what));
    if task.slot == 0 {
        return malformed("slots count from 1");
    }
    if task.node.is_some()
        || task.status.state != TaskState::New
        || task.draining.is_some()
        || task.moving
    {
        return malformed("it does not start at the beginning");
    }
    if !matches!(task.desired, TaskState::Ready | TaskState::Running) {
        return malformed("it should come to nothing");
    }
    if task.home.is_some() != service.spec.mode.is_global() {
        return malformed("a node is meant for tasks of global services, and for no others");
    }
    if let Some(home) = task.home.as_ref().filter(|home| state.node(home).is_none()) {
        return Err(Rejection::NodeNotFound(home.clone()));
    }
    if !slot::has_room(state, service, task) {
        return Err(Rejection::SlotTaken(task.service.clone(), task.slot));
    }
    let mut task = task.clone();
    task.version = change.index;
    task.created_at = change.at;
    task.status.at = change.at;
    let event = Event::Task(task.id.clone());
    state.put_task(Arc::new(task));
    Ok(vec![event])
}

pub(super) fn assign(
    state: &mut State,
    change: Change,
    id: &TaskId,
    expected: Version,
    node_id: &NodeId,
) -> Outcome {
    let task = pending(state, id, expected)?;
    let node = state
        .node(node_id)
        .ok_or_else(|| Rejection::NodeNotFound(node_id.clone()))?;
    if let Err(refusal) = scheduler::admit(state, node, task) {
        return Err(Rejection::DoesNotFit {
            task: id.clone(),
            node: node_id.clone(),
            reason: refusal.to_string(),
        });
    }
    let generic_names = scheduler::generic_names(state, node, task);
    let mut task = task.clone();
    task.node = Some(node_id.clone());
    task.generic_names = generic_names;
    task.version = change.index;
    task.status.state = TaskState::Assigned;
    task.status.at = change.at;
    task.status.message = "assigned to a node".to_owned();
    task.status.error = None;
    state.put_task(Arc::new(task));
    Ok(vec![Event::Task(id.clone())])
}

pub(super) fn explain(
    state: &mut State,
    change: Change,
    id: &TaskId,
    expected: Version,
    reason: &str,
) -> Outcome {
    let status = &pending(state, id, expected)?.status;
    if status.state == TaskState::Pending && status.error.as_deref() == Some(reason) {
        return Ok(Vec::new());
    }
    edit(state, change, id, |task| {
        if task.status.state != TaskState::Pending {
            task.status.state = TaskState::Pending;
            task.status.at = change.at;
        }
        task.status.message = "waiting for a node".to_owned();
        task.status.error = Some(reason.to_owned());
    })
}

pub(super) fn drain(state: &mut State, change: Change, id: &TaskId) -> Outcome {
    if find(state, id)?.draining.is_some() {
        return Ok(Vec::new());
    }
    edit(state, change, id, |task| {
        task.draining = Some(Draining {
            since: change.at,
            version: change.index,
        });
    })
}

pub(super) fn set_desired(
    state: &mut State,
    change: Change,
    id: &TaskId,
    desired: TaskState,
) -> Outcome {
    let task = find(state, id)?;
    if desired == task.desired {
        return Ok(Vec::new());
    }
    if desired < task.desired {
        return Err(Rejection::Backwards {
            task: id.clone(),
            from: task.desired,
            to: desired,
        });
    }
    edit(state, change, id, |task| {
        task.desired = desired;
        // No node has it, so no agent will ever report its end.
        if desired > TaskState::Running && task.node.is_none() && task.is_live() {
            task.status.state = TaskState::Shutdown;
            task.status.at = change.at;
            task.status.message = "withdrawn before it was placed".to_owned();
        }
    })
}

pub(super) fn report(
    state: &mut State,
    change: Change,
    id: &TaskId,
    by: Option<&NodeId>,
    status: &TaskStatus,
) -> Outcome {
    let task = find(state, id)?;
    if !may_report(state, task, by, status.state) {
        return Err(Rejection::NotTheirs {
            task: id.clone(),
            state: status.state,
            by: by.map_or("the leader".to_owned(), |node| format!("node {node}")),
        });
    }
    let known = &task.status;
    // Of two observations the greater is right, so an older one is old news and no mistake.
    // After the end there is nothing to add to it.
    let news = status.state > known.state
        || (status.state == known.state && task.is_live() && !same(known, status));
    if !news {
        return Ok(Vec::new());
    }
    let (was_member, before) = (task.is_member(), task.status.clone());
    let mut events = edit(state, change, id, |task| advance(task, status, change.at))?;
    if was_member && !before.state.is_terminal() {
        events.extend(update::note_end(state, change, id, &before));
    }
    Ok(events)
}

/// Marks a task whose node is gone. The node cannot contradict it any more.
pub(super) fn orphan(state: &mut State, change: Change, id: &TaskId) -> Vec<Event> {
    let edited = edit(state, change, id, |task| {
        let status = TaskStatus {
            state: TaskState::Orphaned,
            message: "its node was removed from the cluster".to_owned(),
            ..task.status.clone()
        };
        advance(task, &status, change.at);
    });
    // One that is not there has nothing to lose.
    edited.unwrap_or_default()
}

pub(super) fn delete(state: &mut State, id: &TaskId) -> Outcome {
    if find(state, id)?.is_live() {
        return Err(Rejection::TaskLive(id.clone()));
    }
    state.remove_task(id);
    Ok(vec![Event::Task(id.clone())])
}

/// An agent reports what its runtime shows; the leader only that nobody is there to report.
fn may_report(state: &State, task: &Task, by: Option<&NodeId>, observed: TaskState) -> bool {
    match by {
        Some(node) => {
            task.node.as_ref() == Some(node)
                && state.node(node).is_some()
                && (TaskState::Accepted..=TaskState::Rejected).contains(&observed)
        }
        None => {
            let down = task
                .node
                .as_ref()
                .and_then(|node| state.node(node))
                .is_some_and(|node| node.status.state == NodeState::Down);
            observed == TaskState::Orphaned && down
        }
    }
}

/// Whether nothing but the time differs, which is the leader's to set.
fn same(known: &TaskStatus, reported: &TaskStatus) -> bool {
    let mut reported = reported.clone();
    reported.at = known.at;
    reported == *known
}

fn advance(task: &mut Task, status: &TaskStatus, at: Timestamp) {
    if task.is_live() && status.state.is_terminal() && restart::was_stable(&task.status, at) {
        // Kept here, because the moment it began to run is overwritten below.
        task.restart.failures = 0;
    }
    let since = if status.state == task.status.state {
        task.status.at
    } else {
        at
    };
    task.status = status.clone();
    task.status.at = since;
}

pub(super) fn find<'a>(state: &'a State, id: &TaskId) -> Result<&'a Task, Rejection> {
    state
        .task(id)
        .ok_or_else(|| Rejection::TaskNotFound(id.clone()))
}

fn pending<'a>(state: &'a State, id: &TaskId, expected: Version) -> Result<&'a Task, Rejection> {
    let task = find(state, id)?;
    if task.version != expected {
        return Err(Rejection::OutOfSequence);
    }
    if task.node.is_some() || !task.is_live() || !task.is_member() {
        return Err(Rejection::NotPending(id.clone()));
    }
    Ok(task)
}

/// Changes a task.
pub(super) fn edit(
    state: &mut State,
    change: Change,
    id: &TaskId,
    edit: impl FnOnce(&mut Task),
) -> Outcome {
    state
        .edit_task(id, |task| {
            edit(task);
            task.version = change.index;
        })
        .ok_or_else(|| Rejection::TaskNotFound(id.clone()))?;
    Ok(vec![Event::Task(id.clone())])
}
