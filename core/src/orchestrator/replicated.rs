//! A number of identical tasks, one in each slot.

use std::collections::{BTreeMap, BTreeSet};

use super::slot::{self, Slot};
use super::{Pass, reap, restart};
use crate::command::Command;
use crate::model::{NodeId, Service, Task, TaskState};

pub(super) fn reconcile(pass: &mut Pass<'_>, service: &Service) {
    let mut slots: BTreeMap<u32, Slot<'_>> = BTreeMap::new();
    for task in pass.state.tasks_of(&service.id) {
        slots.entry(task.slot).or_default().add(pass.state, task);
    }
    let wanted = service.spec.mode.replicas() as usize;
    let occupied = slots.values().filter(|slot| slot.is_occupied()).count();
    let surplus = surplus(pass, &slots, occupied.saturating_sub(wanted));
    for (&number, slot) in &slots {
        if surplus.contains(&number) {
            remove(pass, slot);
        } else if slot.is_occupied() {
            keep(pass, service, number, slot);
        }
        reap::history(pass, slot);
    }
    let free = (1..).filter(|number| !slots.get(number).is_some_and(Slot::is_occupied));
    for number in free.take(wanted.saturating_sub(occupied)) {
        pass.create(service, restart::Plan::fresh(), number);
    }
}

/// Which slots go: first those that do not serve, then one after the other from the node that
/// has most of the service's tasks; among equals the highest number.
fn surplus(pass: &Pass<'_>, slots: &BTreeMap<u32, Slot<'_>>, count: usize) -> BTreeSet<u32> {
    if count == 0 {
        return BTreeSet::new();
    }
    let mut gone = BTreeSet::new();
    let mut by_node: BTreeMap<&NodeId, Vec<u32>> = BTreeMap::new();
    for (&number, slot) in slots.iter().filter(|(_, slot)| slot.is_occupied()) {
        match slot.serving(pass.state).and_then(|task| task.node.as_ref()) {
            Some(node) => by_node.entry(node).or_default().push(number),
            None => {
                gone.insert(number);
            }
        }
    }
    while gone.len() > count {
        // The lowest numbers stay longest.
        gone.pop_first();
    }
    let key = |node, numbers: &[u32]| Some((numbers.len(), *numbers.last()?, node));
    let mut queue: BTreeSet<(usize, u32, &NodeId)> = by_node
        .iter()
        .filter_map(|(&node, numbers)| key(node, numbers))
        .collect();
    while gone.len() < count {
        let Some((_, number, node)) = queue.pop_last() else {
            break;
        };
        gone.insert(number);
        if let Some(numbers) = by_node.get_mut(node) {
            numbers.pop();
            queue.extend(key(node, numbers));
        }
    }
    gone
}

fn remove(pass: &mut Pass<'_>, slot: &Slot<'_>) {
    for task in slot.members() {
        if task.is_live() {
            pass.stop(task);
        } else {
            pass.retire(task);
        }
    }
}

fn keep(pass: &mut Pass<'_>, service: &Service, number: u32, slot: &Slot<'_>) {
    match slot::best(&slot.settled) {
        Some(stays) => settle(pass, slot, stays),
        None => renew(pass, service, number, slot),
    }
}

/// The slot has what it needs: the others go, and those that serve go last.
fn settle(pass: &mut Pass<'_>, slot: &Slot<'_>, stays: &Task) {
    for task in slot.settled.iter().filter(|task| task.id != stays.id) {
        // A replacement whose predecessor came back before it ran is withdrawn here.
        pass.stop(task);
    }
    for task in &slot.finished {
        pass.retire(task);
    }
    if stays.status.state == TaskState::Running {
        for task in &slot.displaced {
            pass.stop(task);
        }
    }
    if stays.desired < TaskState::Running && stays.restart.not_before <= pass.now {
        pass.commands.push(Command::SetDesired {
            id: stays.id.clone(),
            desired: TaskState::Running,
        });
    }
}

/// The slot needs a new task.
fn renew(pass: &mut Pass<'_>, service: &Service, number: u32, slot: &Slot<'_>) {
    if slot.displaced.len() > 1 {
        // The replacement was displaced as well. One of the two is given up; the next pass
        // makes another replacement.
        let stays = slot::best(&slot.displaced).map(|task| &task.id);
        for task in &slot.displaced {
            if Some(&task.id) != stays {
                pass.stop(task);
            }
        }
        return;
    }
    let newest = slot
        .finished
        .iter()
        .max_by_key(|task| (task.status.at, task.created_at, &task.id));
    let Some(last) = newest else {
        if let Some(task) = slot.displaced.first() {
            pass.create(service, restart::Plan::replace(task, pass.now), number);
        }
        return;
    };
    for task in slot.finished.iter().filter(|task| task.id != last.id) {
        pass.retire(task);
    }
    if let Some(plan) = restart::Plan::after(last, &service.spec.task.restart, pass) {
        pass.create(service, plan, number);
    }
}
