//! Which tasks there should be.
//!
//! ```text
//! slot:  free → member → … ended by itself → successor (after a back-off) → …
//!                     ↘ displaced (node down, drained or excluded) → replacement runs → old one stops
//!                     ↘ surplus (scaled down, removed) → drained → stopped → forgotten
//! ```
//!
//! Everything is decided from the state alone, and each command repeats harmlessly: a batch
//! that was applied in part, or twice, leads to the same end. A task is first succeeded and
//! then retired, never the other way about, so that a slot never loses the history that its
//! back-off grows from.

pub(crate) mod few;
mod global;
mod job;
mod keep;
mod reap;
mod replicated;
pub(crate) mod restart;
pub(crate) mod slot;
mod surplus;
#[cfg(test)]
mod tests;

use crate::command::Command;
use crate::endpoints;
use crate::model::{
    Node, NodeId, NodeState, Service, ServiceMode, Task, TaskState, TaskStatus, Timestamp,
};
use crate::random::Random;
use crate::state::State;

pub(crate) use global::takes_part;
pub use restart::{is_over, restart_in_place};

/// Creates, promotes, replaces, stops and forgets tasks until each service has what its
/// specification asks for. `seed` gives the identifiers of new tasks and the jitter of their
/// back-off; the same seed may be used again for another version of the state.
#[must_use]
pub fn reconcile(state: &State, now: Timestamp, seed: u64) -> Vec<Command> {
    let mut pass = Pass {
        state,
        now,
        random: Random::for_version(seed, state.version().0),
        commands: Vec::new(),
    };
    for service in state.services() {
        if service.removing {
            reap::service(&mut pass, service);
            continue;
        }
        match service.spec.mode {
            ServiceMode::Replicated { replicas } => {
                replicated::reconcile(&mut pass, service, replicas);
            }
            ServiceMode::Global {} => global::reconcile(&mut pass, service),
            ServiceMode::ReplicatedJob { .. } | ServiceMode::GlobalJob {} => {
                job::reconcile(&mut pass, service);
            }
        }
    }
    let is_down = |node: &&Node| node.status.state == NodeState::Down;
    let on_it = state.nodes().filter(is_down);
    let on_it = on_it.flat_map(|node| state.tasks_on(&node.id));
    for task in on_it.filter(|task| is_lost(task)) {
        pass.commands.push(Command::ReportTask {
            id: task.id.clone(),
            by: None,
            status: Box::new(TaskStatus {
                state: TaskState::Orphaned,
                at: now,
                message: "its node was down when it was to stop".to_owned(),
                ..task.status.clone()
            }),
        });
    }
    pass.commands
}

/// How many tasks a service should have.
pub(crate) fn wanted(state: &State, service: &Service) -> usize {
    match service.spec.mode.replicas() {
        Some(replicas) => replicas as usize,
        None => global::wanted(state, service),
    }
}

/// One run of the orchestrator.
struct Pass<'a> {
    state: &'a State,
    now: Timestamp,
    random: Random,
    commands: Vec<Command>,
}

impl Pass<'_> {
    /// Lets a task end: out of the balancers first where it is in them.
    fn stop(&mut self, task: &Task) {
        if task.draining.is_some() || task.desired > TaskState::Running {
            return;
        }
        let id = task.id.clone();
        self.commands
            .push(if endpoints::is_routable(self.state, task) {
                Command::DrainTask { id }
            } else {
                Command::SetDesired {
                    id,
                    desired: TaskState::Shutdown,
                }
            });
    }

    /// Marks an ended task as no member of its slot any more.
    fn retire(&mut self, task: &Task) {
        if task.is_member() {
            self.commands.push(Command::SetDesired {
                id: task.id.clone(),
                desired: TaskState::Shutdown,
            });
        }
    }

    /// Adds a task to a slot; `home` is the node that it is for, where its service has one task
    /// on each node.
    fn create(&mut self, service: &Service, plan: restart::Plan, slot: u32, home: Option<&NodeId>) {
        let place = (slot, home.cloned());
        let task = restart::task(service, plan, place, self.now, &mut self.random);
        self.commands.push(Command::CreateTask {
            task: Box::new(task),
        });
    }
}

/// Whether a task on a node that is down was told to stop. Nobody will report its end, and a
/// service would wait for it for ever; should the node come back, its agent finds that the task
/// is not wanted and stops it.
fn is_lost(task: &Task) -> bool {
    task.is_live() && task.desired > TaskState::Running
}
