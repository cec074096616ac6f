//! Finds objects by what users call them: identifier, name, or the start of an identifier,
//! in this order, as Docker does.

use tonic::Status;

use swarmlet_core::model::{Node, Service, Task};
use swarmlet_core::state::State;

/// Finds a service.
pub(crate) fn service<'a>(state: &'a State, text: &str) -> Result<&'a Service, Status> {
    let found = pick(
        state.services().filter(|service| !service.removing),
        text,
        |service| service.id.as_str(),
        |service| &service.spec.name,
    );
    match found {
        Found::One(service) => Ok(service),
        Found::None => Err(Status::not_found(format!("no such service: {text}"))),
        Found::Many(count) => Err(ambiguous("service", text, count)),
    }
}

/// Finds a node.
pub(super) fn node<'a>(state: &'a State, text: &str) -> Result<&'a Node, Status> {
    let found = pick(
        state.nodes(),
        text,
        |node| node.id.as_str(),
        |node| &node.description.hostname,
    );
    match found {
        Found::One(node) => Ok(node),
        Found::None => Err(Status::not_found(format!("no such node: {text}"))),
        Found::Many(count) => Err(ambiguous("node", text, count)),
    }
}

/// Finds a task, by its identifier, its container's name, or the start of its identifier.
pub(crate) fn task<'a>(state: &'a State, text: &str) -> Result<&'a Task, Status> {
    // Names are made for each task anew, so they are compared by hand.
    if let Some(task) = state.tasks().find(|task| task.container_name() == text) {
        return Ok(task);
    }
    let found = pick(state.tasks(), text, |task| task.id.as_str(), |_| "");
    match found {
        Found::One(task) => Ok(task),
        Found::None => Err(Status::not_found(format!("no such task: {text}"))),
        Found::Many(count) => Err(ambiguous("task", text, count)),
    }
}

enum Found<'a, T> {
    One(&'a T),
    None,
    Many(usize),
}

fn pick<'a, T>(
    objects: impl Iterator<Item = &'a T>,
    text: &str,
    id: impl Fn(&T) -> &str,
    name: impl Fn(&T) -> &str,
) -> Found<'a, T> {
    if text.is_empty() {
        return Found::None;
    }
    let (mut named, mut prefixed) = (Vec::new(), Vec::new());
    for object in objects {
        if id(object) == text {
            return Found::One(object);
        }
        if name(object) == text {
            named.push(object);
        } else if id(object).starts_with(text) {
            prefixed.push(object);
        }
    }
    let candidates = if named.is_empty() { prefixed } else { named };
    match candidates.as_slice() {
        [] => Found::None,
        [one] => Found::One(one),
        many => Found::Many(many.len()),
    }
}

fn ambiguous(kind: &str, text: &str, count: usize) -> Status {
    Status::failed_precondition(format!(
        "{kind} {text} is ambiguous ({count} matches found): name it by its ID"
    ))
}
