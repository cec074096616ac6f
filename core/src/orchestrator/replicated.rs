//! A number of identical tasks, one in each slot.

use std::collections::BTreeMap;

use super::slot::{self, Slot};
use super::{Pass, reap, restart, surplus};
use crate::command::Command;
use crate::model::{Service, Task, TaskState};
use crate::updater::{self, Phase, Rollout};

pub(super) fn reconcile(pass: &mut Pass<'_>, service: &Service) {
    let mut slots: BTreeMap<u32, Slot<'_>> = BTreeMap::new();
    for task in pass.state.tasks_of(&service.id) {
        slots.entry(task.slot).or_default().add(pass.state, task);
    }
    let wanted = service.spec.mode.replicas() as usize;
    let occupied = slots.values().filter(|slot| slot.is_occupied()).count();
    let surplus = surplus::slots(
        pass.state,
        &service.spec.task.placement,
        &slots,
        occupied.saturating_sub(wanted),
    );
    let rollout = updater::rollout(pass.state, pass.now, service, &slots);
    for (&number, slot) in &slots {
        if surplus.contains(&number) {
            remove(pass, slot);
        } else if slot.is_occupied() {
            keep(pass, service, number, slot, &rollout);
        }
        reap::history(pass, slot);
    }
    let free = (1..).filter(|number| !slots.get(number).is_some_and(Slot::is_occupied));
    for number in free.take(wanted.saturating_sub(occupied)) {
        pass.create(service, restart::Plan::fresh(), number);
    }
    if let Phase::Ends(command) = rollout.phase {
        pass.commands.push(command);
    }
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

fn keep(pass: &mut Pass<'_>, service: &Service, number: u32, slot: &Slot<'_>, rollout: &Rollout) {
    let (old, new) = slot.by_version(service);
    match (slot::best(&old), slot::best(&new)) {
        (None, Some(stays)) => settle(pass, slot, stays, rollout),
        (None, None) => renew(pass, service, number, slot, rollout),
        (Some(old), None) => replace(pass, service, number, (slot, old), rollout),
        (Some(old), Some(new)) => swap(pass, number, slot, (old, new), rollout),
    }
}

/// The slot has what it needs: the others go, and those that serve go last.
fn settle(pass: &mut Pass<'_>, slot: &Slot<'_>, stays: &Task, rollout: &Rollout) {
    for task in slot.settled.iter().filter(|task| task.id != stays.id) {
        // A replacement whose predecessor came back before it ran is withdrawn here.
        pass.stop(task);
    }
    for task in &slot.finished {
        pass.retire(task);
    }
    serve(pass, slot, stays, rollout);
}

/// The best task of the slot takes over from displaced ones, or starts once it may.
fn serve(pass: &mut Pass<'_>, slot: &Slot<'_>, stays: &Task, rollout: &Rollout) {
    if stays.status.state == TaskState::Running {
        for task in &slot.displaced {
            pass.stop(task);
        }
    }
    let waits = rollout.waits && slot.is_left_by_another(stays);
    if stays.restart.not_before <= pass.now && !waits {
        start(pass, stays);
    }
}

fn start(pass: &mut Pass<'_>, task: &Task) {
    if task.desired < TaskState::Running {
        pass.commands.push(Command::SetDesired {
            id: task.id.clone(),
            desired: TaskState::Running,
        });
    }
}

/// The slot has an outdated task only, which goes on until the update comes to it.
fn replace(
    pass: &mut Pass<'_>,
    service: &Service,
    number: u32,
    (slot, old): (&Slot<'_>, &Task),
    rollout: &Rollout,
) {
    if !slot.displaced.is_empty() && old.status.state != TaskState::Running {
        // It was to replace a displaced task and does not run yet; what replaces that one next
        // is of the new version.
        pass.stop(old);
        return;
    }
    for task in slot.settled.iter().filter(|task| task.id != old.id) {
        pass.stop(task);
    }
    if !rollout.replace.contains(&number) || old.desired == TaskState::Running {
        serve(pass, slot, old, rollout);
    }
    let (outdated, failed): (Vec<&Task>, Vec<&Task>) = slot
        .finished
        .iter()
        .partition(|task| service.is_outdated(task));
    for task in outdated {
        pass.retire(task);
    }
    let last = failed
        .iter()
        .copied()
        .max_by_key(|task| (task.status.at, task.created_at, &task.id));
    match (&rollout.phase, last) {
        (Phase::Ends(_), _) => {}
        (Phase::Idle, _) => {
            for task in failed {
                pass.retire(task);
            }
        }
        (Phase::Active, Some(last)) => {
            for task in failed.iter().filter(|task| task.id != last.id) {
                pass.retire(task);
            }
            if let Some(plan) = restart::Plan::after(last, &service.spec.task.restart, pass) {
                pass.create(service, plan.behind(rollout.waits), number);
            }
        }
        (Phase::Active, None) if rollout.replace.contains(&number) => {
            let plan = restart::Plan::update().behind(rollout.waits);
            pass.create(service, plan, number);
        }
        (Phase::Active, None) => {}
    }
}

/// The slot has a task of each version.
fn swap(
    pass: &mut Pass<'_>,
    number: u32,
    slot: &Slot<'_>,
    (old, new): (&Task, &Task),
    rollout: &Rollout,
) {
    for task in &slot.finished {
        pass.retire(task);
    }
    match rollout.phase {
        Phase::Active => {
            if rollout.stop.contains(&number) {
                pass.stop(old);
            }
            if rollout.promote.contains(&number) {
                start(pass, new);
            }
        }
        Phase::Ends(_) => {}
        // What serves stays; what was under way when the update was paused is withdrawn.
        Phase::Idle if new.status.state == TaskState::Running => pass.stop(old),
        Phase::Idle => pass.stop(new),
    }
}

/// The slot needs a new task.
fn renew(pass: &mut Pass<'_>, service: &Service, number: u32, slot: &Slot<'_>, rollout: &Rollout) {
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
    let policy = &service.spec.task.restart;
    let plan = if service.is_outdated(last) {
        // What the old version did is no reason to keep the new one waiting.
        let wanted = !restart::is_over(last, policy) || rollout.replace.contains(&number);
        wanted.then(restart::Plan::update)
    } else {
        restart::Plan::after(last, policy, pass)
    };
    if let Some(plan) = plan {
        let leaving = |task: &&Task| task.spec_version != service.spec_version;
        let waits = rollout.waits && slot.leaving.iter().copied().any(|task| leaving(&task));
        pass.create(service, plan.behind(waits), number);
    }
}
