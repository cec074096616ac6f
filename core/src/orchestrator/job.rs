//! Tasks that run to completion, each once.
//!
//! ```text
//! slot:  open → live → complete: done, for as long as this version of the job is the newest
//!                    → failed → successor (after a back-off) → …, or given up by the policy
//!                    → its node is down, drained or excluded → stopped → open
//! ```
//!
//! Each version of a job is a run of its own: `--force` makes one, and so does any change of
//! what its tasks are made of. What is left of the run before is stopped first. A task is never
//! started beside another one of its slot, not even to replace it: both would do the same work.

use std::collections::BTreeMap;

use super::few::Few;
use super::global::Homes;
use super::slot::{self, Slot};
use super::{Pass, keep, reap, restart};
use crate::model::{NodeId, Service, ServiceMode, Task};
use crate::state::State;

pub(super) fn reconcile(pass: &mut Pass<'_>, service: &Service) {
    let slots = slots(pass.state, service);
    match service.spec.mode {
        ServiceMode::ReplicatedJob {
            max_concurrent,
            total_completions,
        } => replicated(pass, service, &slots, (max_concurrent, total_completions)),
        ServiceMode::GlobalJob {} => global(pass, service, &slots),
        // They are no jobs.
        ServiceMode::Replicated { .. } | ServiceMode::Global {} => {}
    }
}

/// The slots of a job. A task that was told to stop and completed before it heard of that has
/// done its work, which is not done again: it counts for its slot as any other that completed.
fn slots<'a>(state: &'a State, service: &Service) -> BTreeMap<u32, Slot<'a>> {
    let mut slots = slot::of(state, &service.id);
    for (&number, slot) in &mut slots {
        let goes_on = match service.spec.mode.replicas() {
            Some(total) => number <= total,
            None => slot.home.is_some_and(|home| state.node(home).is_some()),
        };
        if goes_on {
            let (completed, past): (Few<'_>, Few<'_>) = std::mem::take(&mut slot.past)
                .into_iter()
                .partition(|task| slot::has_completed(service, task));
            slot.finished.extend(completed);
            slot.past = past;
        }
    }
    slots
}

/// A number of completions, so many at a time. Slots begin in their order.
fn replicated(
    pass: &mut Pass<'_>,
    service: &Service,
    slots: &BTreeMap<u32, Slot<'_>>,
    (max_concurrent, total): (u32, u32),
) {
    for (&number, slot) in slots {
        if number > total {
            keep::remove(pass, slot);
            reap::history(pass, service, slot);
        } else {
            tend(pass, service, number, slot);
            reap::past(pass, service, slot, reap::limit(pass));
        }
    }
    let busy = slots.values().filter(|slot| is_busy(service, slot)).count();
    let most = match max_concurrent {
        0 => usize::MAX,
        limit => limit as usize,
    };
    let nothing = Slot::default();
    let open = (1..=total)
        .map(|number| (number, slots.get(&number).unwrap_or(&nothing)))
        .filter(|(_, slot)| is_open(service, slot));
    for (number, slot) in open.take(most.saturating_sub(busy)) {
        begin(pass, service, number, slot, None);
    }
}

/// One completion on each node. What has completed on a node that is drained later has completed.
fn global(pass: &mut Pass<'_>, service: &Service, slots: &BTreeMap<u32, Slot<'_>>) {
    let homes = Homes::of(pass.state, service, slots);
    for (&number, slot) in slots {
        if homes.surplus.contains(&number) {
            let known = slot
                .home
                .is_some_and(|home| pass.state.node(home).is_some());
            for task in slot.members() {
                if task.is_live() {
                    pass.stop(task);
                } else if !known || !slot::has_completed(service, task) {
                    pass.retire(task);
                }
            }
        } else {
            tend(pass, service, number, slot);
        }
        reap::history(pass, service, slot);
    }
    for (number, home) in homes.missing(pass.state, service, slots) {
        if slots.get(&number).is_none_or(|slot| is_open(service, slot)) {
            let nothing = Slot::default();
            let slot = slots.get(&number).unwrap_or(&nothing);
            begin(pass, service, number, slot, Some(home));
        }
    }
}

/// Goes on with the tasks that a slot has.
fn tend(pass: &mut Pass<'_>, service: &Service, number: u32, slot: &Slot<'_>) {
    let (current, outdated): (Vec<&Task>, Vec<&Task>) = slot
        .members()
        .partition(|task| task.spec_version == service.spec_version);
    let beside = !slot.leaving.is_empty() || outdated.iter().any(|task| task.is_live());
    for task in outdated {
        end(pass, task);
    }
    let done = current
        .iter()
        .find(|task| slot::has_completed(service, task));
    if let Some(done) = done {
        for task in current.iter().filter(|task| task.id != done.id) {
            end(pass, task);
        }
        return;
    }
    let (live, finished): (Vec<&Task>, Vec<&Task>) =
        current.into_iter().partition(|task| task.is_live());
    if live.is_empty() {
        follow(pass, service, number, slot, &finished);
        return;
    }
    for task in finished {
        pass.retire(task);
    }
    let settled: Vec<&Task> = live
        .iter()
        .copied()
        .filter(|task| !slot::is_displaced(pass.state, task))
        .collect();
    let stays = slot::best(&settled);
    let alone = live.len() == 1 && !beside;
    for task in live {
        if stays.is_none_or(|stays| stays.id != task.id) {
            pass.stop(task);
        } else if alone && task.restart.not_before <= pass.now {
            keep::start(pass, task);
        }
    }
}

/// Makes the successor of the task that failed last, where the policy wants one.
fn follow(
    pass: &mut Pass<'_>,
    service: &Service,
    number: u32,
    slot: &Slot<'_>,
    finished: &[&Task],
) {
    let Some(last) = newest(finished.iter().copied()) else {
        return;
    };
    for task in finished.iter().filter(|task| task.id != last.id) {
        pass.retire(task);
    }
    if let Some(plan) = restart::Plan::after(last, &service.spec.task.restart, pass) {
        let beside = !slot.leaving.is_empty();
        pass.create(service, plan.behind(beside), number, slot.home);
    }
}

/// Makes the first task of a slot in this run, or the one that takes over from a task whose node
/// did not keep it.
fn begin(
    pass: &mut Pass<'_>,
    service: &Service,
    number: u32,
    slot: &Slot<'_>,
    home: Option<&NodeId>,
) {
    let before = slot.past.iter().copied();
    let before = newest(before.filter(|task| task.spec_version == service.spec_version));
    let plan = match before {
        Some(task) => restart::Plan::replace(task, pass.now),
        None => restart::Plan::fresh(),
    };
    pass.create(service, plan, number, home);
}

fn end(pass: &mut Pass<'_>, task: &Task) {
    if task.is_live() {
        pass.stop(task);
    } else {
        pass.retire(task);
    }
}

/// Whether nothing of the present run is in a slot, and nothing else runs there any more.
fn is_open(service: &Service, slot: &Slot<'_>) -> bool {
    let current = |task: &Task| task.spec_version == service.spec_version;
    slot.leaving.is_empty() && !slot.members().any(|task| task.is_live() || current(task))
}

/// Whether a slot has a task that runs, is to run, or has not stopped yet.
fn is_busy(service: &Service, slot: &Slot<'_>) -> bool {
    let policy = &service.spec.task.restart;
    let goes_on = |task: &Task| {
        task.is_live()
            || (task.spec_version == service.spec_version
                && !slot::has_completed(service, task)
                && !restart::is_over(task, policy))
    };
    !slot.leaving.is_empty() || slot.members().any(goes_on)
}

fn newest<'a>(tasks: impl Iterator<Item = &'a Task>) -> Option<&'a Task> {
    tasks.max_by_key(|task| (task.status.at, task.created_at, &task.id))
}
