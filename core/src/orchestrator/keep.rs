//! What one slot of a service needs: a task that stays, the end of one that does not, a
//! successor, or the next step of an update. It is the same whether slots are numbers or nodes.

use std::collections::{BTreeMap, BTreeSet};

use super::slot::{self, Slot};
use super::{Pass, reap, restart};
use crate::command::Command;
use crate::model::{NodeId, Service, Task, TaskState};
use crate::updater::{Phase, Rollout};

/// What is to become of a service's slots.
pub(super) struct Aim {
    /// Slots that go.
    pub(super) surplus: BTreeSet<u32>,
    /// Slots that get their first task, with the node that it is for where there is one.
    pub(super) missing: Vec<(u32, Option<NodeId>)>,
    /// What the update of the service does.
    pub(super) rollout: Rollout,
}

/// Brings the slots of a service nearer to what they should be.
pub(super) fn pursue(
    pass: &mut Pass<'_>,
    service: &Service,
    slots: &BTreeMap<u32, Slot<'_>>,
    aim: Aim,
) {
    for (&number, slot) in slots {
        if aim.surplus.contains(&number) {
            remove(pass, slot);
        } else if slot.is_occupied() {
            keep(pass, service, number, slot, &aim.rollout);
        }
        reap::history(pass, service, slot);
    }
    for (number, home) in aim.missing {
        pass.create(service, restart::Plan::fresh(), number, home.as_ref());
    }
    if let Phase::Ends(command) = aim.rollout.phase {
        pass.commands.push(command);
    }
}

/// Ends everything in a slot.
pub(super) fn remove(pass: &mut Pass<'_>, slot: &Slot<'_>) {
    for task in slot.members() {
        if task.is_live() {
            pass.stop(task);
        } else {
            pass.retire(task);
        }
    }
}

fn keep(pass: &mut Pass<'_>, service: &Service, number: u32, slot: &Slot<'_>, rollout: &Rollout) {
    for task in slot.outgoing(pass.state, service) {
        pass.stop(task);
    }
    let (old, new) = slot.by_version(service);
    match (slot::best(&old), slot::best(&new)) {
        (None, Some(stays)) => settle(pass, slot, stays, rollout),
        (None, None) => renew(pass, service, number, slot, rollout),
        (Some(old), None) => replace(pass, service, number, (slot, old), rollout),
        (Some(old), Some(new)) => swap(pass, number, slot, (old, new), rollout),
    }
}

/// The slot has what it needs.
fn settle(pass: &mut Pass<'_>, slot: &Slot<'_>, stays: &Task, rollout: &Rollout) {
    for task in &slot.finished {
        pass.retire(task);
    }
    serve(pass, slot, stays, rollout);
}

/// The best task of the slot starts once it may.
fn serve(pass: &mut Pass<'_>, slot: &Slot<'_>, stays: &Task, rollout: &Rollout) {
    let waits = rollout.waits && slot.is_left_by_another(stays);
    if stays.restart.not_before <= pass.now && !waits {
        start(pass, stays);
    }
}

/// Lets a task start that was only prepared so far.
pub(super) fn start(pass: &mut Pass<'_>, task: &Task) {
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
        // It goes before it took over.
        return;
    }
    if !rollout.replace.contains(&number) || old.desired == TaskState::Running {
        serve(pass, slot, old, rollout);
    }
    let (past, failed): (Vec<&Task>, Vec<&Task>) =
        slot.finished.iter().partition(|task| service.is_past(task));
    for task in past {
        pass.retire(task);
    }
    let last = slot::last(&failed);
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
                pass.create(service, plan.behind(rollout.waits), number, slot.home);
            }
        }
        (Phase::Active, None) if rollout.replace.contains(&number) => {
            let plan = restart::Plan::update().behind(rollout.waits);
            pass.create(service, plan, number, slot.home);
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
        // One of them goes first.
        return;
    }
    let Some(last) = slot::last(&slot.finished) else {
        if let Some(task) = slot.displaced.first() {
            let plan = restart::Plan::replace(task, pass.now);
            pass.create(service, plan, number, slot.home);
        }
        return;
    };
    for task in slot.finished.iter().filter(|task| task.id != last.id) {
        pass.retire(task);
    }
    let policy = &service.spec.task.restart;
    let plan = if service.is_past(last) {
        // What the old version did is no reason to keep the new one waiting.
        let wanted = !restart::is_over(last, policy) || rollout.replace.contains(&number);
        wanted.then(restart::Plan::update)
    } else {
        restart::Plan::after(last, policy, pass)
    };
    if let Some(plan) = plan {
        let leaving = |task: &&Task| task.spec_version != service.spec_version;
        let waits = rollout.waits && slot.leaving.iter().copied().any(|task| leaving(&task));
        pass.create(service, plan.behind(waits), number, slot.home);
    }
}
