//! How the tasks of a service are replaced by those of another specification, slot by slot.
//!
//! ```text
//! stop-first:   old ── new is made ──► new is ready ──► old drains, stops ──► new starts
//! start-first:  old ── new is made ──► new runs ──────► old drains, stops
//! ```
//!
//! In either order the image is there before the old task hears of anything. With percentages,
//! as ECS has them, each slot takes the way that the bounds leave open: where one more task may
//! be started it is start-first, otherwise stop-first.
//!
//! A slot whose new task is on its way occupies one of `parallelism` seats until that task has
//! run for `delay`. A task that failed gives its seat to another slot; it is restarted in its
//! own slot with the usual back-off, and its old task, where that still serves, stays.
//!
//! Nothing is kept here: seats, waits and deadlines are read off the tasks, failures are
//! counted by `apply` in the service, so that a new leader goes on where the last one was.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::apply::update::rollback_spec;
use crate::command::Command;
use crate::model::{
    Bounds, FailureAction, NodeState, Service, Task, TaskState, Timestamp, UpdateConfig,
    UpdateOrder, UpdateState, UpdateStatus,
};
use crate::orchestrator::restart;
use crate::orchestrator::slot::{self, Slot};
use crate::scheduler;
use crate::state::State;

/// What is to happen to the slots of a service because of an update.
#[derive(Debug)]
pub(crate) struct Rollout {
    /// Whether tasks are being replaced.
    pub(crate) phase: Phase,
    /// Whether a new task waits for the old one's end before it starts.
    pub(crate) waits: bool,
    /// Slots that get a new task.
    pub(crate) replace: BTreeSet<u32>,
    /// Slots whose new task may start although the old one is there.
    pub(crate) promote: BTreeSet<u32>,
    /// Slots whose old task may stop.
    pub(crate) stop: BTreeSet<u32>,
}

/// Whether tasks are being replaced.
#[derive(Debug)]
pub(crate) enum Phase {
    /// They are.
    Active,
    /// They were until this moment: the update ends with this command.
    Ends(Command),
    /// They are not.
    Idle,
}

/// Decides about one service. `slots` are those of its occupied slots that may be changed, and
/// `wanted` is how many there should be.
pub(crate) fn rollout(
    state: &State,
    now: Timestamp,
    service: &Service,
    slots: &[(u32, &Slot<'_>)],
    wanted: usize,
) -> Rollout {
    let config = service.update_config();
    let bounds = config.bounds(service.spec.mode, wanted);
    let mut rollout = Rollout {
        phase: Phase::Idle,
        waits: bounds.is_some() || config.order == UpdateOrder::StopFirst,
        replace: BTreeSet::new(),
        promote: BTreeSet::new(),
        stop: BTreeSet::new(),
    };
    let status = service.update_status.as_ref().filter(|s| s.is_active());
    if status.is_none() && !is_behind(service, slots) {
        return rollout;
    }
    let update = Update {
        state,
        now,
        service,
        config,
        slots: slots
            .iter()
            .map(|&(number, slot)| Change::of(number, service, slot))
            .collect(),
        wanted,
    };
    if let Some(command) = status.and_then(|status| update.verdict(status)) {
        rollout.phase = Phase::Ends(command);
        return rollout;
    }
    rollout.phase = Phase::Active;
    let mut seats = update.free_seats(bounds);
    match bounds {
        Some(bounds) => update.within(bounds, &mut rollout),
        None => update.in_order(&mut rollout, &mut seats),
    }
    rollout.replace = update.candidates().take(seats).collect();
    rollout
}

/// Whether a node was passed by, because it was paused or did not answer when its service was
/// updated, and has to catch up. An update that was paused is not gone on with.
fn is_behind(service: &Service, slots: &[(u32, &Slot<'_>)]) -> bool {
    let paused = service
        .update_status
        .as_ref()
        .is_some_and(|s| s.is_paused());
    let mut members = slots.iter().flat_map(|(_, slot)| slot.members());
    service.spec.mode.is_global() && !paused && members.any(|task| service.is_outdated(task))
}

/// When something about an update may change by time alone. Nodes of a global service may catch
/// up at any time.
pub(crate) fn deadlines(state: &State) -> impl Iterator<Item = Timestamp> {
    let updating = state
        .services()
        .filter(|service| service.is_updating() || service.spec.mode.is_global());
    updating.flat_map(|service| {
        let config = service.update_config();
        let waits = [config.delay, config.monitor];
        let running = state
            .tasks_of(&service.id)
            .filter(|task| is_new(service, task) && task.status.state == TaskState::Running)
            .flat_map(move |task| waits.map(|wait| task.status.at.after(wait)));
        running.chain(progress_deadline(state, service))
    })
}

/// An update that is under way.
struct Update<'a> {
    state: &'a State,
    now: Timestamp,
    service: &'a Service,
    config: &'a UpdateConfig,
    slots: Vec<Change<'a>>,
    wanted: usize,
}

/// A slot on its way from one version to the next.
struct Change<'a> {
    number: u32,
    slot: &'a Slot<'a>,
    /// What serves so far.
    old: Option<&'a Task>,
    /// What is to serve.
    new: Option<&'a Task>,
    /// Whether a new task has ended and is not succeeded yet.
    failed: bool,
    /// Whether all that is left is a task of another version that ended, and will be succeeded.
    vacant: bool,
}

impl<'a> Change<'a> {
    fn of(number: u32, service: &Service, slot: &'a Slot<'a>) -> Self {
        let (old, new) = slot.by_version(service);
        let (old, new) = (slot::best(&old), slot::best(&new));
        let mut finished = slot.finished.iter();
        let failed = finished.any(|task| !service.is_past(task));
        let left = || slot::last(&slot.finished);
        let is_over = |task| restart::is_over(task, &service.spec.task.restart);
        Self {
            number,
            slot,
            old,
            new,
            failed,
            vacant: old.is_none()
                && new.is_none()
                && !failed
                && left().is_some_and(|task| !is_over(task)),
        }
    }

    fn pair(&self) -> Option<(&'a Task, &'a Task)> {
        Some((self.old?, self.new?))
    }

    /// Whether the new task is on its way for the first time, or nothing else is there.
    fn is_in_flight(&self, service: &Service, now: Timestamp, delay: Duration) -> bool {
        let on_its_way = |new: &Task| {
            if new.status.state == TaskState::Running {
                return is_new(service, new) && now < new.status.at.after(delay);
            }
            new.restart.failures == 0 || self.slot.is_left_by_another(new)
        };
        self.vacant || self.new.is_some_and(on_its_way)
    }
}

impl Update<'_> {
    fn free_seats(&self, bounds: Option<Bounds>) -> usize {
        let seats = match (bounds, self.config.parallelism) {
            (Some(bounds), _) => usize::try_from(bounds.max.saturating_sub(bounds.min))
                .unwrap_or(usize::MAX)
                .max(1),
            (None, 0) => usize::MAX,
            (None, parallelism) => parallelism as usize,
        };
        let in_flight = self
            .slots
            .iter()
            .filter(|change| change.is_in_flight(self.service, self.now, self.config.delay))
            .count();
        // Empty slots are filled in this very pass.
        let empty = self.wanted.saturating_sub(self.slots.len());
        seats.saturating_sub(in_flight + empty)
    }

    /// Slots that are still to be changed: first those that do not serve.
    fn candidates(&self) -> impl Iterator<Item = u32> {
        let policy = &self.service.spec.task.restart;
        let mut slots: Vec<(bool, u32)> = self
            .slots
            .iter()
            .filter(|change| change.new.is_none() && !change.failed)
            .filter_map(|change| {
                let ended = || {
                    let mut finished = change.slot.finished.iter();
                    change.slot.displaced.is_empty()
                        && finished.any(|task| restart::is_over(task, policy))
                };
                match change.old {
                    Some(old) => Some((old.status.state == TaskState::Running, change.number)),
                    None => ended().then_some((false, change.number)),
                }
            })
            .collect();
        slots.sort_unstable();
        slots.into_iter().map(|(_, number)| number)
    }

    /// Docker's way: one order for all slots.
    fn in_order(&self, rollout: &mut Rollout, seats: &mut usize) {
        for change in &self.slots {
            let Some((old, new)) = change.pair() else {
                continue;
            };
            if new.is_healthy() {
                rollout.stop.insert(change.number);
            } else if self.config.order == UpdateOrder::StartFirst {
                if self.may_start(new) {
                    rollout.promote.insert(change.number);
                }
            } else if self.is_prepared(new) || self.is_blocked(new, old) {
                // One that failed before has lost its seat and needs another one now.
                if new.restart.failures > 0 {
                    if *seats == 0 {
                        continue;
                    }
                    *seats -= 1;
                }
                rollout.stop.insert(change.number);
            }
        }
    }

    /// The way of ECS: whatever the bounds leave open.
    fn within(&self, bounds: Bounds, rollout: &mut Rollout) {
        // Slots that are empty are filled in this very pass, and so are those that lost their
        // task.
        let mut total = self.wanted.saturating_sub(self.slots.len()) as u64;
        let mut healthy = 0u64;
        for change in &self.slots {
            let slot = change.slot;
            let outgoing = slot.outgoing(self.state, self.service);
            // What goes in this very pass for another reason is not there to be counted on.
            let stays = |task: &&Task| outgoing.iter().all(|other| other.id != task.id);
            let remaining = slot.members().filter(stays);
            healthy += remaining.filter(|task| self.is_healthy(task)).count() as u64;
            // A prepared task has not been started. It counts nevertheless once its old one is
            // told to stop: nothing else may take that place.
            let started = |task: &&Task| task.desired >= TaskState::Running || change.old.is_none();
            let live = slot
                .settled
                .iter()
                .chain(&slot.displaced)
                .chain(&slot.leaving);
            total += live.copied().filter(started).count() as u64;
            total += u64::from(slot.settled.is_empty());
        }
        for change in &self.slots {
            let Some((old, new)) = change.pair() else {
                continue;
            };
            let cost = u64::from(self.is_healthy(old));
            let may_stop = cost == 0 || healthy > bounds.min;
            let ready = self.is_prepared(new) || new.is_healthy();
            let blocked = self.is_blocked(new, old);
            let staged = new.desired < TaskState::Running;
            if (new.is_healthy() || blocked) && may_stop {
                rollout.stop.insert(change.number);
                healthy -= cost;
            } else if staged && !blocked && self.may_start(new) && total < bounds.max {
                rollout.promote.insert(change.number);
                total += 1;
            } else if staged && ready && may_stop {
                rollout.stop.insert(change.number);
                healthy -= cost;
            }
        }
    }

    fn is_healthy(&self, task: &Task) -> bool {
        let node = task.node.as_ref().and_then(|id| self.state.node(id));
        task.is_healthy() && node.is_some_and(|node| node.status.state == NodeState::Ready)
    }

    fn may_start(&self, task: &Task) -> bool {
        task.desired < TaskState::Running && task.restart.not_before <= self.now
    }

    /// Whether everything is there to start a task.
    fn is_prepared(&self, task: &Task) -> bool {
        task.status.state >= TaskState::Ready && task.restart.not_before <= self.now
    }

    /// Whether a task waits for the very place that its old one has, so that nothing can be
    /// prepared before that one stops.
    fn is_blocked(&self, task: &Task, old: &Task) -> bool {
        task.status.state == TaskState::Pending
            && task.status.error.is_some()
            && scheduler::fits_in_place_of(self.state, task, old)
    }

    /// How the update ends, where it does.
    fn verdict(&self, status: &UpdateStatus) -> Option<Command> {
        let config = self.config;
        if config
            .max_failure_ratio
            .is_exceeded(status.failures, status.slots)
            && config.failure_action != FailureAction::Continue
        {
            let task = status.failed_task.as_ref().map(ToString::to_string);
            let task = task.unwrap_or_default();
            return Some(self.fail(&format!("failure or early termination of task {task}")));
        }
        if self.is_complete() {
            return Some(match status.state {
                UpdateState::RollbackStarted => {
                    self.end(UpdateState::RollbackCompleted, "rollback completed")
                }
                _ => self.end(UpdateState::Completed, "update completed"),
            });
        }
        let overdue = progress_deadline(self.state, self.service)
            .is_some_and(|deadline| deadline <= self.now);
        overdue.then(|| {
            let seconds = config.progress_deadline.as_secs();
            self.fail(&format!("no progress in {seconds} s"))
        })
    }

    fn fail(&self, cause: &str) -> Command {
        let rolls_back = self
            .service
            .update_status
            .as_ref()
            .map(|status| status.state)
            == Some(UpdateState::RollbackStarted);
        if rolls_back {
            let message = format!("rollback paused due to {cause}");
            return self.end(UpdateState::RollbackPaused, &message);
        }
        let mut message = format!("update paused due to {cause}");
        if self.config.failure_action == FailureAction::Rollback {
            match rollback_spec(self.state, self.service) {
                Ok(_) => {
                    return Command::RollbackService {
                        id: self.service.id.clone(),
                        expected: self.service.version,
                        message: format!("update rolled back due to {cause}"),
                    };
                }
                Err(refusal) => {
                    message = format!("{message}; it cannot be rolled back: {refusal}");
                }
            }
        }
        self.end(UpdateState::Paused, &message)
    }

    fn end(&self, state: UpdateState, message: &str) -> Command {
        Command::SetUpdateStatus {
            id: self.service.id.clone(),
            expected: self.service.version,
            state,
            message: message.to_owned(),
        }
    }

    /// Whether every slot runs the new version, has done so for long enough, and nothing is
    /// left of the old one.
    fn is_complete(&self) -> bool {
        let policy = &self.service.spec.task.restart;
        let settled = self.slots.iter().all(|change| {
            let slot = change.slot;
            let runs = |new: &Task| {
                let watched = new.status.at.after(self.config.monitor);
                new.is_healthy() && (!is_new(self.service, new) || watched <= self.now)
            };
            let over = || {
                slot.finished
                    .iter()
                    .any(|task| restart::is_over(task, policy))
            };
            slot.members().all(|task| !self.service.is_outdated(task))
                && slot.finished.iter().all(|task| !self.service.is_past(task))
                && slot.leaving.is_empty()
                && match change.new {
                    Some(new) => runs(new),
                    None => slot.displaced.is_empty() && over(),
                }
        });
        settled && self.slots.len() >= self.wanted
    }
}

/// Whether a task was made by the latest update.
fn is_new(service: &Service, task: &Task) -> bool {
    task.spec_version == service.spec_version
}

/// When an update that gets no further has failed. Only the first attempt of a slot is
/// progress: a task that is restarted again and again is none.
fn progress_deadline(state: &State, service: &Service) -> Option<Timestamp> {
    let config = service.update_config();
    let status = service.update_status.as_ref()?;
    if config.progress_deadline.is_zero() {
        return None;
    }
    let last = state
        .tasks_of(&service.id)
        .filter(|task| {
            is_new(service, task)
                && task.status.state == TaskState::Running
                && task.restart.failures == 0
        })
        .map(|task| task.status.at)
        .fold(status.started_at, Timestamp::max);
    let patience = config.progress_deadline + config.delay + config.monitor;
    Some(last.after(patience))
}
