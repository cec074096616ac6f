//! One task of the node: what is wanted, what was found, and what to do next.
//!
//! ```text
//!  assigned ──> Prepare ──> (desired Running) ──> Start ──> runs ──> ends by itself
//!     │            │                               │         │            │
//!     └────────────┴── desired Shutdown, or not assigned ────┴─> Stop ──> stays, until it
//!                                                                         is not assigned:
//!                                                                         Remove ──> forgotten
//! ```
//!
//! A task that ends by itself is succeeded by another one, which the managers make. While none
//! answers its node starts it again in place, with the same ports:
//!
//! ```text
//!  ended by itself, no session ──> plan ──(pause of the restart policy)──> Remove ──> Prepare …
//!                                   └── a manager answers: it learns of the end, and decides
//! ```
//!
//! Everything here is a function of the entry: no clock, no runtime.

use std::net::IpAddr;
use std::time::Duration;

use swarmlet_core::model::{
    ContainerSpec, ContainerStatus, RestartHistory, Task, TaskId, TaskPort, TaskState, TaskStatus,
    Timestamp, cut,
};
use swarmlet_core::orchestrator::restart_in_place;
use tokio::time::Instant;

use super::follow::Checked;
use crate::runtime::{Container, ContainerState, RuntimeError};

/// What to do with a task, one thing at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Prepare,
    Start,
    Inspect,
    Stop,
    Remove,
}

/// What a step came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Prepared,
    Found(Option<Container>),
    Removed,
}

/// How often a step that the engine refuses is tried before the task is given up. A refusal
/// that passes (a device still busy, a name not yet free) passes within a few tries.
const MAX_REFUSALS: u32 = 3;

/// How many ports are tried where somebody else is faster to take them.
const MAX_PORTS: u32 = 5;

/// First and longest pause before a step that failed is tried again. An engine that comes
/// back is to be noticed within seconds, and one that is gone is not to be hammered.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// A task, or a container that was found without one.
pub(super) struct Entry {
    pub(super) id: TaskId,
    /// `None` for a container that belongs to no task.
    pub(super) task: Option<Task>,
    /// Whether it is among the node's tasks.
    pub(super) assigned: bool,
    pub(super) status: TaskStatus,
    pub(super) container: Option<Container>,
    /// Whether the runtime has to be asked before anything else is decided.
    pub(super) look: bool,
    /// Whether everything is there to start it.
    prepared: bool,
    /// The step that is under way.
    pub(super) step: Option<Step>,
    /// Not to be tried again before.
    pub(super) retry_at: Option<Instant>,
    failures: u32,
    lost_ports: u32,
    /// Whether its container, or that there is none, was seen by this agent.
    seen: bool,
    /// Whether its container was said to have ended, and has not been looked at since.
    suspect: bool,
    /// How often it was started again in place.
    pub(super) attempt: u32,
    /// What the node's own check found last.
    pub(super) checked: Option<Checked>,
    /// What the pause before the next restart in place grows from.
    history: RestartHistory,
    /// How long it had run when it ended.
    ran_for: Duration,
    again: Again,
    /// What is left of the run before, until it is removed: its end is no news.
    former: Option<String>,
}

/// Whether a task that ended is started again in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    /// Nothing was decided.
    Open,
    /// Not before then.
    At(Instant),
    /// Its policy wants no restart.
    Never,
}

impl Entry {
    /// A task that was assigned, or kept on disk.
    pub(super) fn assigned(task: Task, now: Timestamp) -> Self {
        let mut entry = Self {
            id: task.id.clone(),
            assigned: true,
            status: task.status.clone(),
            container: None,
            look: true,
            prepared: false,
            step: None,
            retry_at: None,
            failures: 0,
            lost_ports: 0,
            seen: false,
            suspect: false,
            attempt: 0,
            checked: None,
            history: task.restart,
            ran_for: Duration::ZERO,
            again: Again::Open,
            former: None,
            task: Some(task),
        };
        entry.advance(TaskState::Accepted, "accepted", None, now);
        entry
    }

    /// A container without a task: it is stopped and removed.
    pub(super) fn stray(container: Container, now: Timestamp) -> Self {
        Self {
            id: container.task.clone(),
            task: None,
            assigned: false,
            status: TaskStatus {
                state: TaskState::Running,
                at: now,
                message: "without a task".to_owned(),
                error: None,
                container: None,
                ports: Vec::new(),
            },
            container: Some(container),
            look: false,
            prepared: false,
            step: None,
            retry_at: None,
            failures: 0,
            lost_ports: 0,
            seen: true,
            suspect: false,
            attempt: 0,
            checked: None,
            history: RestartHistory::default(),
            ran_for: Duration::ZERO,
            again: Again::Never,
            former: None,
        }
    }

    /// Takes a newer version of the task. What this node observed stays, unless the managers
    /// know of its end: they may have given it up meanwhile. Of a task that runs they know
    /// what this node told them, maybe before it was started again in place.
    pub(super) fn update(&mut self, task: Task) {
        if task.status.state > self.status.state && task.status.state.is_terminal() {
            self.status = task.status.clone();
            self.again = Again::Never;
        }
        if self.attempt == 0 {
            self.history = task.restart;
        }
        if self
            .task
            .as_ref()
            .is_some_and(|old| old.desired != task.desired)
        {
            self.retry_at = None;
        }
        self.assigned = true;
        self.task = Some(task);
    }

    /// The task as it is kept on disk, with what was observed of it.
    pub(super) fn to_keep(&self) -> Option<Task> {
        let task = self.task.as_ref().filter(|_| self.assigned)?;
        Some(Task {
            status: self.status.clone(),
            restart: self.history,
            ..task.clone()
        })
    }

    /// Notes that it is the node's no more.
    pub(super) fn unassign(&mut self) {
        if std::mem::take(&mut self.assigned) {
            self.retry_at = None;
        }
    }

    /// How long the container may take to stop.
    pub(super) fn grace(&self) -> Duration {
        self.task
            .as_ref()
            .and_then(|task| task.spec.container())
            .map_or(ContainerSpec::DEFAULT_STOP_GRACE_PERIOD, |container| {
                container.stop_grace_period
            })
    }

    /// What is to be done now, if anything. `None` also while a step is under way.
    pub(super) fn next(&self) -> Option<Step> {
        if self.step.is_some() {
            return None;
        }
        if self.look {
            return Some(Step::Inspect);
        }
        if self.is_leaving() || self.status.state.is_terminal() {
            return match &self.container {
                Some(container) if container.is_running() => Some(Step::Stop),
                Some(_) if self.is_forgotten() => Some(Step::Remove),
                _ => None,
            };
        }
        let desired = self.task.as_ref()?.desired;
        match self.container.as_ref().map(|container| &container.state) {
            Some(ContainerState::Running(_)) => return None,
            // What is left of the run before this one.
            Some(ContainerState::Exited { .. }) => return Some(Step::Remove),
            Some(ContainerState::Created) | None => {}
        }
        match desired {
            TaskState::Running | TaskState::Complete if self.prepared => Some(Step::Start),
            TaskState::Ready if self.prepared => None,
            TaskState::Ready | TaskState::Running | TaskState::Complete => Some(Step::Prepare),
            _ => None,
        }
    }

    /// Whether a running step is of no use any more and may be cut off. Only a pull may: of
    /// the others one would not know how far they came.
    pub(super) fn is_obsolete(&self, step: Step) -> bool {
        step == Step::Prepare && self.is_leaving()
    }

    /// Whether nothing is left of it and nobody wants it.
    pub(super) fn is_gone(&self) -> bool {
        !self.assigned && self.step.is_none() && self.container.is_none() && !self.look
    }

    /// Notes that its container was said to have ended.
    pub(super) fn suspect(&mut self) {
        self.suspect = true;
        self.look = true;
    }

    /// Whether it has to be looked at, and nothing has kept that from happening.
    pub(super) fn is_unclear(&self) -> bool {
        let looks = match self.step {
            None => self.look,
            Some(step) => step == Step::Inspect,
        };
        looks && self.failures == 0
    }

    /// Whether what runs of it was seen by this agent, or nothing can run yet.
    pub(super) fn is_seen(&self) -> bool {
        self.seen || !(self.look || self.step == Some(Step::Inspect))
    }

    /// Where it takes connections: `None` where it does not, `Some(None)` where it has no
    /// address of its own.
    pub(super) fn serving(&self) -> Option<Option<IpAddr>> {
        let container = self.container.as_ref()?;
        let serves = self.seen
            && !self.suspect
            && container.is_running()
            && self.status.state == TaskState::Running
            && !self.is_ejected();
        serves.then_some(container.address)
    }

    /// Lets a task that ended by itself run again, as soon as its policy says, while no manager
    /// is there to make another one. `now` and `moment` are the same point in time.
    pub(super) fn restart_in_place(&mut self, now: Timestamp, moment: Instant, seed: u64) {
        let ended = self.status.state.is_terminal() && self.status.state <= TaskState::Rejected;
        if !ended || self.is_leaving() || self.look || self.step.is_some() {
            return;
        }
        let Some(task) = &self.task else { return };
        match self.again {
            Again::Never => {}
            Again::At(at) if at > moment => {}
            Again::At(_) => self.begin_again(now),
            Again::Open => {
                let ended = Task {
                    status: self.status.clone(),
                    restart: self.history,
                    ..task.clone()
                };
                self.again = match restart_in_place(&ended, self.ran_for, now, seed) {
                    None => Again::Never,
                    Some(history) => {
                        self.history = history;
                        Again::At(moment + history.not_before.since(now))
                    }
                };
            }
        }
    }

    /// When it is started again in place.
    pub(super) fn again_at(&self) -> Option<Instant> {
        match self.again {
            Again::At(at) => Some(at),
            Again::Open | Again::Never => None,
        }
    }

    fn begin_again(&mut self, now: Timestamp) {
        self.attempt += 1;
        self.again = Again::Open;
        self.failures = 0;
        self.lost_ports = 0;
        self.retry_at = None;
        // Whether its image is still there is to be seen.
        self.prepared = false;
        self.ran_for = Duration::ZERO;
        self.former = self.container.as_ref().map(|found| found.id.clone());
        self.status = TaskStatus {
            state: TaskState::Accepted,
            at: now,
            message: format!("started again in place ({})", self.attempt),
            error: None,
            container: None,
            ports: Vec::new(),
        };
    }

    /// Notes a step's success.
    pub(super) fn finished(&mut self, outcome: Outcome, now: Timestamp) {
        self.failures = 0;
        self.retry_at = None;
        match outcome {
            Outcome::Prepared => {
                self.prepared = true;
                self.advance(TaskState::Ready, "prepared", None, now);
            }
            // An event that came meanwhile asks for another look, and may be right.
            Outcome::Found(container) => {
                self.seen = true;
                self.suspect = false;
                self.observe(container, now);
            }
            Outcome::Removed => {
                self.container = None;
                self.former = None;
            }
        }
        self.settle(now);
    }

    /// Notes a step's failure, and when to try again.
    pub(super) fn failed(&mut self, step: Step, error: &RuntimeError, at: Instant, now: Timestamp) {
        self.failures += 1;
        self.look |= step == Step::Inspect;
        let starting = matches!(step, Step::Prepare | Step::Start);
        let give_up = starting
            && match error {
                RuntimeError::Rejected(_) => true,
                RuntimeError::PortTaken(_) => {
                    self.lost_ports += 1;
                    self.lost_ports >= MAX_PORTS
                }
                RuntimeError::Refused(_) => self.failures >= MAX_REFUSALS,
                RuntimeError::Unavailable(_) => false,
            };
        let text = error.to_string();
        if give_up {
            self.advance(TaskState::Rejected, "rejected", Some(text), now);
            // Whether a container was left behind is for the runtime to say.
            self.look = true;
        } else {
            let message = self.status.message.clone();
            self.advance(self.status.state, &message, Some(text), now);
        }
        let factor = 1u32 << (self.failures - 1).min(10);
        self.retry_at = Some(at + (PAUSE.0 * factor).min(PAUSE.1));
    }

    /// Moves the status on, and never back.
    pub(super) fn advance(
        &mut self,
        state: TaskState,
        message: &str,
        error: Option<String>,
        now: Timestamp,
    ) {
        // An engine's words may be long, and a message with many statuses must stay short.
        let error = error.map(|error| cut(error, TaskStatus::MAX_TEXT_BYTES));
        let same = state == self.status.state
            && self.status.message == message
            && self.status.error == error;
        if state < self.status.state || same {
            return;
        }
        if state > self.status.state {
            self.status.state = state;
            self.status.at = now;
        }
        message.clone_into(&mut self.status.message);
        self.status.error = error;
    }

    /// Ends what is to end and has no container that runs.
    pub(super) fn settle(&mut self, now: Timestamp) {
        let running = self.container.as_ref().is_some_and(Container::is_running);
        let waits = self.look || self.step.is_some();
        if self.is_leaving() && !running && !waits && !self.status.state.is_terminal() {
            self.advance(TaskState::Shutdown, "shutdown", None, now);
        }
    }

    fn observe(&mut self, container: Option<Container>, now: Timestamp) {
        let Some(container) = container else {
            // One that was never seen may not have been made yet: the agent can have ended
            // between saying `Starting` and doing it.
            if self.status.container.is_some() && !self.is_leaving() {
                let error = Some("the container is gone".to_owned());
                self.end(TaskState::Failed, "failed", error, now);
            }
            self.container = None;
            self.former = None;
            return;
        };
        if self.former.as_ref() == Some(&container.id) {
            self.container = Some(container);
            return;
        }
        let ejected = self.is_ejected();
        self.status.container = Some(ContainerStatus {
            id: container.id.clone(),
            pid: container.pid,
            exit_code: exit_code(&container),
            address: container.address,
            ejected,
        });
        self.status.ports.clone_from(&container.ports);
        if !self.is_leaving() {
            self.follow(&container, now);
        }
        self.container = Some(container);
    }

    /// A task ends once: what is found of its container afterwards changes nothing.
    pub(super) fn end(
        &mut self,
        state: TaskState,
        message: &str,
        error: Option<String>,
        now: Timestamp,
    ) {
        if !self.status.state.is_terminal() {
            if self.status.state == TaskState::Running {
                self.ran_for = now.since(self.status.at);
            }
            self.advance(state, message, error, now);
        }
    }

    pub(super) fn is_leaving(&self) -> bool {
        !self.assigned
            || self
                .task
                .as_ref()
                .is_none_or(|task| task.desired >= TaskState::Shutdown)
    }

    fn is_forgotten(&self) -> bool {
        !self.assigned
            || self
                .task
                .as_ref()
                .is_none_or(|task| task.desired >= TaskState::Remove)
    }

    /// The ports that its container was found with.
    pub(super) fn found_ports(&self) -> &[TaskPort] {
        self.container
            .as_ref()
            .map_or(&[], |container| &container.ports)
    }
}

fn exit_code(container: &Container) -> Option<i32> {
    match container.state {
        ContainerState::Exited { code, .. } => Some(code),
        ContainerState::Created | ContainerState::Running(_) => None,
    }
}
