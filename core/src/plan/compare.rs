//! What is different between two states, as a user would put it.

use std::collections::{BTreeMap, BTreeSet};

use super::projection::Projection;
use super::{Action, Object, Step};
use crate::model::{NodeId, Service, ServiceId, Task};
use crate::orchestrator::few::Few;
use crate::orchestrator::slot;
use crate::state::State;

/// The services and nodes that were changed themselves.
pub(super) fn objects(before: &State, after: &State) -> Vec<Step> {
    let step = |action, object| Step {
        action,
        object,
        from: None,
        to: None,
        reason: None,
    };
    let mut steps = Vec::new();
    for node in after.nodes() {
        if before
            .node(&node.id)
            .is_some_and(|old| old.spec != node.spec)
        {
            steps.push(step(Action::Update, Object::Node(node.id.clone())));
        }
    }
    for service in after.services() {
        let object = || Object::Service(service.spec.name.clone());
        match before.service(&service.id) {
            None => steps.push(step(Action::Create, object())),
            Some(old) if old.spec != service.spec => {
                steps.push(step(Action::Update, object()));
            }
            Some(_) => {}
        }
    }
    steps
}

/// What becomes of the tasks.
pub(super) fn tasks(before: &State, after: &Projection) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut services: Vec<&Service> = after.state.services().collect();
    services.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
    for service in services {
        let (old, new) = (
            places(before, &service.id),
            places(&after.state, &service.id),
        );
        let slots: BTreeSet<u32> = old.keys().chain(new.keys()).copied().collect();
        let nothing = Place::default();
        for slot in slots {
            let old = old.get(&slot).unwrap_or(&nothing);
            let new = new.get(&slot).unwrap_or(&nothing);
            let waited = after.waited.get(&(service.id.clone(), slot));
            steps.extend(step(service, slot, old, new, waited));
        }
    }
    steps
}

/// What a slot has.
#[derive(Debug, Default)]
struct Place<'a> {
    /// The task that serves, or is on its way to.
    placed: Option<&'a Task>,
    /// The one that has no node.
    waits: Option<&'a Task>,
}

fn places<'a>(state: &'a State, service: &ServiceId) -> BTreeMap<u32, Place<'a>> {
    let mut slots: BTreeMap<u32, Few<'a>> = BTreeMap::new();
    for task in state.tasks_of(service) {
        if task.is_live() && task.is_member() {
            slots.entry(task.slot).or_default().push(task);
        }
    }
    let place = |(slot, tasks): (u32, Few<'a>)| {
        let (placed, waits): (Few<'_>, Few<'_>) =
            tasks.iter().copied().partition(|task| task.node.is_some());
        let place = Place {
            placed: slot::best(&placed),
            waits: slot::best(&waits),
        };
        (slot, place)
    };
    slots.into_iter().map(place).collect()
}

fn step(
    service: &Service,
    slot: u32,
    old: &Place<'_>,
    new: &Place<'_>,
    waited: Option<&String>,
) -> Option<Step> {
    let node = |task: Option<&Task>| task.and_then(|task| task.node.clone());
    let step = |action, from: Option<NodeId>, to: Option<NodeId>, reason| {
        let object = Object::Task(format!("{}.{slot}", service.spec.name));
        Some(Step {
            action,
            object,
            from,
            to,
            reason,
        })
    };
    let from = node(old.placed);
    // A task that waits was there before, or it is what the change is too much for.
    if let Some(task) = new.waits {
        let known = old.waits.is_some_and(|old| old.id == task.id);
        let reason = task.status.error.clone();
        return step(Action::Wait, from, None, reason).filter(|_| !known);
    }
    match (old.placed, new.placed) {
        (None, None) => None,
        (None, Some(_)) => step(Action::Create, None, node(new.placed), None),
        (Some(_), None) => step(Action::Stop, from, None, None),
        (Some(before), Some(after)) if before.id == after.id => {
            // An update that found no place for a new task has given it up.
            let stuck = waited.filter(|_| service.is_outdated(after));
            stuck.and_then(|reason| step(Action::Wait, from, None, Some(reason.clone())))
        }
        (Some(before), Some(after)) => {
            // One that a rollback has left alone is of an earlier version, and alike.
            let alike = before.spec_version == after.spec_version || !service.is_outdated(before);
            let action = match alike && before.node != after.node {
                true => Action::Move,
                false => Action::Replace,
            };
            step(action, from, node(new.placed), None)
        }
    }
}
