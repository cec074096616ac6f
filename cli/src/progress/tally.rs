//! How far a service is, read off its tasks.

use std::collections::{BTreeMap, BTreeSet};

use swarmlet_core::model::{NodeId, Service, ServiceMode, Task, TaskState, UpdateState};
use swarmlet_core::orchestrator::is_over;

use super::Wait;

/// How far a service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The service's name.
    pub(crate) name: String,
    /// Tasks that there should be.
    pub(crate) total: usize,
    /// Of those, running.
    pub(crate) running: usize,
    /// Of the others, those for which the task before goes on until they run.
    pub(crate) relieving: usize,
    /// Tasks beyond `total` that are not yet on their way out.
    pub(crate) surplus: usize,
    /// Each task, by slot.
    pub(crate) tasks: Vec<Slot>,
    /// Whether tasks are still being replaced.
    pub(crate) updating: bool,
    /// Why an update goes back to the version before, where it does.
    pub(crate) rolling_back: Option<String>,
    /// Where there is one task on each node: how many there are to be is known from them alone.
    pub(crate) by_node: bool,
    /// Tasks that the policy does not start again, although they failed or, where they are not to
    /// end, have ended.
    pub(crate) given_up: usize,
    /// Where the tasks are to end.
    pub(crate) job: Option<Job>,
}

/// How far a job is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Job {
    /// Tasks that have completed.
    pub(crate) completed: usize,
    /// Tasks that run at the same time, at most.
    pub(crate) at_once: usize,
}

/// How far one task is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The node that it is for, where there is one task on each node.
    pub(crate) node: Option<String>,
    /// What it has come to.
    pub(crate) state: TaskState,
    /// Whether the task before it goes on until it runs.
    pub(crate) relieves: bool,
    /// Why it, or the task before it in its slot, does not run.
    pub(crate) error: Option<String>,
}

impl Progress {
    /// Reads it off the tasks. Where an update is waited for, only tasks of the newest version
    /// count, and of a job always. On nodes that are down no task goes on until another one runs.
    pub(crate) fn of(
        service: &Service,
        tasks: &[Task],
        down: &BTreeSet<NodeId>,
        wait: Wait,
    ) -> Self {
        let mode = service.spec.mode;
        let latest = wait != Wait::Tasks || mode.is_job();
        let counted: Vec<&Task> = tasks
            .iter()
            .filter(|task| !latest || !service.is_outdated(task))
            .collect();
        let newest = newest(&counted);
        let errors = errors(&counted);
        let serving = serving(&counted, down);
        let updating =
            service.rebalance.is_some() || (wait != Wait::Tasks && service.is_updating());
        let total = match mode.replicas() {
            Some(replicas) => usize::try_from(replicas).unwrap_or(usize::MAX),
            None if updating => homes(tasks),
            None => newest.len(),
        };
        let mut slots: Vec<Slot> = newest
            .iter()
            .map(|(slot, task)| Slot {
                node: task.home.as_ref().map(|node| node.short().to_owned()),
                state: task.status.state,
                relieves: task.status.state != TaskState::Running && serving.contains(slot),
                error: (!is_well(task, mode))
                    .then(|| errors.get(slot).map(|(_, error)| (*error).clone()))
                    .flatten(),
            })
            .collect();
        let surplus = slots.len().saturating_sub(total);
        // Those that run are the ones that stay.
        slots.sort_by_key(|slot| surplus > 0 && slot.state != TaskState::Running);
        slots.truncate(total);
        let in_state = |state| slots.iter().filter(|slot| slot.state == state).count();
        Self {
            name: service.spec.name.clone(),
            total,
            running: in_state(TaskState::Running),
            relieving: slots.iter().filter(|slot| slot.relieves).count(),
            surplus,
            updating,
            rolling_back: service
                .update_status
                .as_ref()
                .filter(|status| {
                    wait != Wait::Tasks && status.state == UpdateState::RollbackStarted
                })
                .map(|status| status.message.clone()),
            by_node: mode.is_global(),
            given_up: newest
                .values()
                .filter(|task| task.status.state.is_terminal() && !is_well(task, mode))
                .filter(|task| is_over(task, &service.spec.task.restart))
                .count(),
            job: mode.is_job().then(|| Job {
                completed: in_state(TaskState::Complete),
                at_once: at_once(mode, total),
            }),
            tasks: slots,
        }
    }

    /// Whether there is exactly what there should be. With one task on each node none at all
    /// means that they have not been made yet.
    pub(crate) fn is_complete(&self) -> bool {
        let none = self.by_node && self.total == 0;
        match &self.job {
            Some(job) => job.completed == self.total && !none,
            None => self.running == self.total && self.surplus == 0 && !self.updating && !none,
        }
    }

    /// Whether that will not change any more: tasks that have completed stay so.
    pub(crate) fn is_done(&self) -> bool {
        self.job.is_some() && self.is_complete()
    }

    /// Why the service will not come to what it should be, once all that is missing of it has
    /// been given up: whoever waits for it would wait for ever.
    pub(crate) fn given_up(&self) -> Option<String> {
        let (well, updating) = match &self.job {
            Some(job) => (job.completed, false),
            None => (self.running, self.updating),
        };
        if self.given_up == 0 || updating || well + self.given_up < self.total {
            return None;
        }
        let mut errors = self.tasks.iter().filter_map(|slot| slot.error.as_deref());
        let (name, failed, total) = (&self.name, self.given_up, self.total);
        Some(match &self.job {
            Some(_) => format!(
                "job {name} failed: {failed} of {total} tasks were given up: {}",
                errors.next().unwrap_or("no reason given")
            ),
            None => format!(
                "service {name} will not converge: {failed} of {total} tasks ended, and the \
                 restart policy starts no other: {}",
                errors.next().unwrap_or("exit code 0")
            ),
        })
    }
}

/// The newest task of each slot that nobody has told to stop.
fn newest<'a>(tasks: &[&'a Task]) -> BTreeMap<u32, &'a Task> {
    let mut newest: BTreeMap<u32, &Task> = BTreeMap::new();
    for task in tasks.iter().filter(|task| task.is_member()) {
        let known = newest.get(&task.slot);
        if known.is_none_or(|other| is_later(task, other)) {
            newest.insert(task.slot, task);
        }
    }
    newest
}

/// The slots in which a task runs that nobody has told to stop.
fn serving(tasks: &[&Task], down: &BTreeSet<NodeId>) -> BTreeSet<u32> {
    let there = |task: &Task| task.node.as_ref().is_some_and(|node| !down.contains(node));
    let runs = |task: &Task| task.status.state == TaskState::Running && there(task);
    let members = tasks.iter().filter(|task| task.is_member());
    members
        .filter(|task| runs(task))
        .map(|task| task.slot)
        .collect()
}

/// The latest error of each slot.
fn errors<'a>(tasks: &[&'a Task]) -> BTreeMap<u32, (&'a Task, &'a String)> {
    let mut errors: BTreeMap<u32, (&Task, &String)> = BTreeMap::new();
    for task in tasks {
        let known = errors.get(&task.slot);
        if let Some(error) = &task.status.error
            && known.is_none_or(|(other, _)| is_later(task, other))
        {
            errors.insert(task.slot, (task, error));
        }
    }
    errors
}

fn is_later(a: &Task, b: &Task) -> bool {
    (a.created_at, a.version) > (b.created_at, b.version)
}

fn homes(tasks: &[Task]) -> usize {
    let members = tasks.iter().filter(|task| task.is_member());
    let homes: BTreeSet<_> = members.filter_map(|task| task.home.as_ref()).collect();
    homes.len()
}

/// Whether a task is where it should be.
fn is_well(task: &Task, mode: ServiceMode) -> bool {
    let state = task.status.state;
    state == TaskState::Running || (mode.is_job() && state == TaskState::Complete)
}

fn at_once(mode: ServiceMode, total: usize) -> usize {
    match mode {
        ServiceMode::ReplicatedJob { max_concurrent, .. } if max_concurrent > 0 => {
            usize::try_from(max_concurrent).unwrap_or(usize::MAX)
        }
        _ => total,
    }
}
