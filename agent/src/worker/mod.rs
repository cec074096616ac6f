//! The loop that brings the node's tasks to where they should be.
//!
//! One asynchronous task owns everything: assignments and the runtime's events come in,
//! statuses go out, and for each of the node's tasks at most one [`Step`] is under way, in an
//! asynchronous task of its own, so that a slow pull holds up nothing else. What to do is
//! decided in [`entry`]; here it is only carried out.

mod entry;
mod follow;
mod handle;
mod job;
mod listing;
mod outbox;
mod own;
mod saving;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use swarmlet_core::model::{Task, TaskId, TaskState, TaskStatus};
use swarmlet_proto::clock::now;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use self::handle::{Assignments, WorkerHandle};
pub(crate) use self::outbox::Outbox;
pub(crate) use self::own::Own;

use self::entry::{Entry, Outcome, Step};
use self::handle::Command;
use self::job::Job;
use crate::cause::chain;
use crate::check::{Checker, Report};
use crate::ports::Ports;
use crate::runtime::{Container, Runtime, RuntimeError, RuntimeEvent, Scope};
use crate::session::{Connection, random};
use crate::store::Store;

/// How often all containers are looked at although no event said so: an engine's events can
/// be lost, and a container without a task must not stay for longer than ten seconds.
const RELIST: Duration = Duration::from_secs(5);

/// How long no manager may answer before tasks that ended are started again in place. A session
/// that is merely moved to another manager takes a few hundred milliseconds.
const ALONE: Duration = Duration::from_secs(1);

/// Starts at the same time. An engine serialises much of a start, and more at once
/// only makes each of them slower.
const CONCURRENT_STEPS: usize = 8;

/// Everything that the worker owns.
pub(crate) struct Worker {
    scope: Arc<Scope>,
    runtime: Arc<dyn Runtime>,
    store: Store,
    ports: Ports,
    commands: mpsc::Receiver<Command>,
    outbox: watch::Sender<Outbox>,
    entries: BTreeMap<TaskId, Entry>,
    published: BTreeMap<TaskId, TaskStatus>,
    jobs: JoinSet<Done>,
    running: HashMap<Id, (TaskId, Step)>,
    aborts: BTreeMap<TaskId, AbortHandle>,
    /// The checks that this node runs of its tasks.
    checkers: BTreeMap<TaskId, Checker>,
    reports: (mpsc::Sender<Report>, mpsc::Receiver<Report>),
    slots: Arc<Semaphore>,
    /// Whether the runtime has been seen: before, nothing is started.
    listed: bool,
    listing: Option<Id>,
    list_again: bool,
    /// When a list is due although no event asked for it, or the one under way takes too long.
    list_due: Option<Instant>,
    /// Whether the engine answers, as it is told to the managers.
    engine: watch::Sender<bool>,
    /// Running containers that belong to no task that is known.
    strangers: BTreeMap<TaskId, Option<IpAddr>>,
    own: watch::Sender<Own>,
    /// The own endpoints that the balancer has.
    routed: watch::Receiver<u64>,
    session: watch::Receiver<Connection>,
    /// Since when no manager answers.
    alone_since: Option<Instant>,
    /// Whether a manager has named all of the node's tasks.
    complete: bool,
    /// When the tasks are to be written to disk.
    save_at: Option<Instant>,
    /// Whether the node leaves: nothing is started any more.
    left: bool,
    /// Who waits for it.
    leaving: Vec<oneshot::Sender<()>>,
}

/// What the worker has to tell the managers.
pub(crate) struct Told {
    /// The latest status of each task.
    pub(crate) statuses: watch::Receiver<Outbox>,
    /// Whether the engine answers.
    pub(crate) engine: watch::Receiver<bool>,
}

/// What a job came to.
enum Done {
    Step(Result<Outcome, RuntimeError>),
    Listed(Result<Vec<Container>, RuntimeError>),
}

impl Worker {
    /// A worker that goes on from `kept`, and the handle to it.
    pub(crate) fn new(
        scope: Scope,
        runtime: Arc<dyn Runtime>,
        store: Store,
        ports: Ports,
        kept: Vec<Task>,
        session: watch::Receiver<Connection>,
    ) -> (Self, WorkerHandle, Told) {
        let (handle, ends) = WorkerHandle::new();
        let (engine, answers) = watch::channel(true);
        let (outbox, statuses) = watch::channel(Outbox::default());
        let entries = kept
            .into_iter()
            .map(|task| (task.id.clone(), Entry::assigned(task, now())))
            .collect();
        let worker = Self {
            scope: Arc::new(scope),
            runtime,
            store,
            ports,
            commands: ends.commands,
            outbox,
            entries,
            published: BTreeMap::new(),
            jobs: JoinSet::new(),
            running: HashMap::new(),
            aborts: BTreeMap::new(),
            checkers: BTreeMap::new(),
            // A health that changes is rare, and a checker can wait.
            reports: mpsc::channel(16),
            slots: Arc::new(Semaphore::new(CONCURRENT_STEPS)),
            listed: false,
            listing: None,
            list_again: false,
            list_due: None,
            engine,
            strangers: BTreeMap::new(),
            own: ends.own,
            routed: ends.routed,
            session,
            alone_since: Some(Instant::now()),
            complete: false,
            save_at: None,
            left: false,
            leaving: Vec::new(),
        };
        let told = Told {
            statuses,
            engine: answers,
        };
        (worker, handle, told)
    }

    /// Runs until `stop`; tasks go on running.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut events: BoxStream<'static, RuntimeEvent> = self.runtime.events(&self.scope);
        let mut relist = tokio::time::interval_at(Instant::now() + RELIST, RELIST);
        loop {
            self.settle().await;
            let deadline = self.next_deadline();
            tokio::select! {
                () = stop.cancelled() => break,
                Some(command) = self.commands.recv() => self.command(command),
                Some(event) = events.next() => self.event(event),
                Some(report) = self.reports.1.recv() => self.report(report),
                Some(done) = self.jobs.join_next_with_id() => self.done(done),
                _ = relist.tick() => self.list(),
                // Its sender ends together with this worker.
                Ok(()) = self.session.changed() => {}
                () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {}
            }
        }
        if self.save_at.is_some() {
            self.save_tasks().await;
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Assign(assignments) => self.assign(assignments),
            Command::Acknowledged(tasks) => self.ports.acknowledge(&tasks),
            Command::Leave(done) => {
                self.left = true;
                self.leaving.push(done);
                // What is left is only known from a list that succeeds after this.
                self.listed = false;
                self.assign(Assignments {
                    complete: true,
                    ..Assignments::default()
                });
            }
        }
    }

    fn assign(&mut self, assignments: Assignments) {
        if assignments.complete {
            let named: BTreeSet<&TaskId> = assignments.update.iter().map(|task| &task.id).collect();
            for entry in self.entries.values_mut() {
                if !named.contains(&entry.id) {
                    entry.unassign();
                }
            }
            self.complete = true;
            self.list();
        }
        for id in &assignments.remove {
            if let Some(entry) = self.entries.get_mut(id) {
                entry.unassign();
            }
        }
        if !self.left {
            for task in assignments.update {
                self.upsert(task);
            }
        }
        self.changed();
    }

    fn upsert(&mut self, task: Task) {
        match self.entries.get_mut(&task.id) {
            Some(entry) => entry.update(task),
            None => {
                tracing::info!(task = %task.name(), id = %task.id, "a task was assigned");
                let mut entry = Entry::assigned(task, now());
                // Its container can only exist where an earlier agent made it; then the first
                // list, which nothing is started before, tells.
                entry.look = entry.status.state >= TaskState::Starting;
                self.entries.insert(entry.id.clone(), entry);
            }
        }
    }

    fn event(&mut self, event: RuntimeEvent) {
        match event {
            RuntimeEvent::Relist => self.list(),
            RuntimeEvent::Ended(task) => {
                if let Some(entry) = self.entries.get_mut(&task) {
                    entry.suspect();
                }
            }
            RuntimeEvent::Changed(task) => {
                if let Some(entry) = self.entries.get_mut(&task) {
                    entry.look = true;
                }
            }
        }
    }

    fn report(&mut self, report: Report) {
        let Some(entry) = self.entries.get_mut(&report.task) else {
            return;
        };
        tracing::info!(task = %report.task, health = ?report.health, reason = report.reason, "the health of a task");
        entry.report(report, now());
    }

    fn done(&mut self, done: Result<(Id, Done), JoinError>) {
        let (id, done) = match done {
            Ok((id, done)) => (id, Some(done)),
            Err(error) => {
                if error.is_panic() {
                    tracing::error!(%error, "a step of a task panicked");
                }
                (error.id(), None)
            }
        };
        if self.listing == Some(id) {
            let listed = match done {
                Some(Done::Listed(listed)) => Some(listed),
                _ => None,
            };
            self.listed(listed);
            return;
        }
        let Some((task, step)) = self.running.remove(&id) else {
            return;
        };
        self.aborts.remove(&task);
        let Some(entry) = self.entries.get_mut(&task) else {
            return;
        };
        entry.step = None;
        match done {
            Some(Done::Step(Ok(outcome))) => entry.finished(outcome, now()),
            Some(Done::Step(Err(error))) => {
                tracing::warn!(task = %task, ?step, %error, "a step failed");
                entry.failed(step, &error, Instant::now(), now());
                match error {
                    RuntimeError::PortTaken(_) => self.ports.release(&task, now()),
                    // An engine that comes back may have given addresses anew: nothing is
                    // started before everything was looked at.
                    RuntimeError::Unavailable(_) => {
                        self.listed = false;
                        self.list();
                    }
                    RuntimeError::Rejected(_) | RuntimeError::Refused(_) => {}
                }
            }
            // Cut off, or a panic: how far it came is for the runtime to say.
            _ => entry.look = true,
        }
    }

    /// Starts the next step of every task that has one, and tells what changed.
    async fn settle(&mut self) {
        let moment = Instant::now();
        self.attend_list(moment);
        self.attend_session(moment);
        let ids: Vec<TaskId> = self.entries.keys().cloned().collect();
        for id in &ids {
            self.note(id, moment);
        }
        // Before anything is started that might get the address of a container that is gone.
        self.publish_own();
        let unclear = self.entries.values().any(Entry::is_unclear);
        for id in &ids {
            self.settle_task(id, moment, unclear);
        }
        self.save().await;
        if self.entries.is_empty() && self.listed && self.listing.is_none() {
            for done in self.leaving.drain(..) {
                // Whoever asked may have stopped waiting.
                let _gone = done.send(());
            }
        }
    }

    /// Takes note of where a task stands.
    fn note(&mut self, id: &TaskId, moment: Instant) {
        let alone = self.is_alone(moment);
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        entry.settle(now());
        if alone && self.listed {
            entry.restart_in_place(now(), moment, random());
        }
        match entry.to_check(self.scope.advertise) {
            None => drop(self.checkers.remove(id)),
            Some(subject) => {
                let known = self.checkers.get(id);
                if known.is_none_or(|checker| checker.container != subject.container) {
                    let checker = Checker::spawn(subject, self.reports.0.clone());
                    self.checkers.insert(id.clone(), checker);
                }
            }
        }
        let found = entry.found_ports();
        if entry.container.as_ref().is_some_and(Container::is_running) {
            self.ports.adopt(id, found);
        } else if entry.status.state.is_terminal()
            && entry.is_leaving()
            && entry.step.is_none()
            && self.ports.holds(id)
        {
            // Not before: a task that is started again in place keeps them.
            self.ports.release(id, now());
        }
        if entry.is_gone() {
            self.forget(id);
        }
    }

    /// Starts the task's next step, where there is one, and publishes its status.
    fn settle_task(&mut self, id: &TaskId, moment: Instant, unclear: bool) {
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        if let Some(step) = entry.step
            && entry.is_obsolete(step)
            && let Some(abort) = self.aborts.get(id)
        {
            abort.abort();
        }
        let waits = entry.retry_at.is_some_and(|at| at > moment);
        if self.listed
            && !waits
            && let Some(step) = entry.next()
            // Those that are looked at may be gone, and their addresses be given to this one.
            && !(unclear && step == Step::Start)
        {
            self.begin(id, step, moment);
        }
        self.publish(id);
    }

    fn begin(&mut self, id: &TaskId, step: Step, moment: Instant) {
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        let mut ports = Vec::new();
        match step {
            Step::Prepare => entry.advance(TaskState::Preparing, "preparing", None, now()),
            Step::Start => {
                let Some(task) = &entry.task else { return };
                match self.ports.allot(task, now()) {
                    Ok(allotted) => ports = allotted,
                    Err(error) => {
                        let error = RuntimeError::Unavailable(error.to_string());
                        entry.failed(step, &error, moment, now());
                        return;
                    }
                }
                entry.advance(TaskState::Starting, "starting", None, now());
            }
            Step::Inspect | Step::Stop | Step::Remove => {}
        }
        entry.look = false;
        entry.step = Some(step);
        let job = Job {
            step,
            id: id.clone(),
            task: entry.task.clone(),
            ports,
            grace: entry.grace(),
            scope: self.scope.clone(),
            runtime: self.runtime.clone(),
            routed: (self.routed.clone(), self.own.borrow().number),
        };
        let places = match step {
            Step::Start => Some(self.slots.clone()),
            // A stop mostly waits for the task itself, and an inspection is cheap. Pulls are the
            // runtime's to count: one that stalls must not hold up tasks whose image is there.
            Step::Prepare | Step::Inspect | Step::Stop | Step::Remove => None,
        };
        let saving = self.saving_ports();
        let handle = self.jobs.spawn(async move {
            if let Some(saving) = saving
                && let Err(error) = saving.await
            {
                return Done::Step(Err(RuntimeError::Unavailable(chain(&error))));
            }
            let _place = match &places {
                Some(places) => places.acquire().await.ok(),
                None => None,
            };
            Done::Step(job.run().await)
        });
        self.running.insert(handle.id(), (id.clone(), step));
        self.aborts.insert(id.clone(), handle);
    }

    /// Tells the router which of the node's own endpoints take connections.
    fn publish_own(&self) {
        let entries = self.entries.values();
        let mut serving = self.strangers.clone();
        // What is known of a task counts more than that its container was found.
        serving.retain(|id, _| !self.entries.get(id).is_some_and(Entry::is_seen));
        serving.extend(entries.filter_map(|entry| Some((entry.id.clone(), entry.serving()?))));
        let looked = self.entries.values().all(Entry::is_seen);
        self.own.send_if_modified(|own| {
            // It was complete once: an engine that goes away later takes nothing back.
            let complete = own.complete || (self.listed && looked);
            own.replace(complete, serving)
        });
    }

    fn attend_session(&mut self, moment: Instant) {
        let connected = self.session.borrow_and_update().manager.is_some();
        self.alone_since = match (connected, self.alone_since) {
            (true, _) => None,
            (false, None) => Some(moment),
            (false, since) => since,
        };
    }

    /// Whether no manager answers, and not only for a moment.
    fn is_alone(&self, moment: Instant) -> bool {
        self.alone_since
            .is_some_and(|since| moment.duration_since(since) >= ALONE)
    }

    fn forget(&mut self, id: &TaskId) {
        self.ports.release(id, now());
        self.entries.remove(id);
        self.checkers.remove(id);
        self.published.remove(id);
        outbox::forget(&self.outbox, id);
        self.changed();
    }

    fn publish(&mut self, id: &TaskId) {
        let Some(entry) = self.entries.get(id) else {
            return;
        };
        if entry.task.is_none() || self.published.get(id) == Some(&entry.status) {
            return;
        }
        tracing::debug!(task = %id, state = %entry.status.state, error = ?entry.status.error, "task");
        self.published.insert(id.clone(), entry.status.clone());
        outbox::publish(&self.outbox, id, &entry.status);
        self.changed();
    }

    /// When something is to be done although nothing happens.
    fn next_deadline(&self) -> Option<Instant> {
        let moment = Instant::now();
        self.entries
            .values()
            .filter(|entry| entry.step.is_none())
            .flat_map(|entry| {
                let again = entry.again_at().filter(|_| self.alone_since.is_some());
                [entry.retry_at, again]
            })
            .flatten()
            .chain(self.alone_since.map(|since| since + ALONE))
            .filter(|at| *at > moment)
            .chain(self.save_at)
            .chain(self.list_due)
            .min()
    }
}
