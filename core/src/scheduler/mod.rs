//! Where tasks go.
//!
//! Filters say which nodes may have a task, and each explains its refusal; of those nodes the
//! one that ranks first gets it. Tasks of one service and specification are placed as a group:
//! they have the same demands, so a node that refused one of them need not be asked again,
//! and a pass over T tasks and N nodes takes (T + N) log N steps instead of T times N.
//!
//! A task whose back-off is not over is not placed yet. Placing it would have its agent pull
//! the image at once, and a missing image would be asked for without any pause.

mod constraint;
mod filter;
mod load;
mod rank;
#[cfg(test)]
mod tests;

pub use filter::Refusal;
pub(crate) use load::host_ports;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use filter::Refusals;
use load::Load;
use rank::Rank;

use crate::command::Command;
use crate::model::{Node, NodeId, Resources, ServiceId, Task, TaskState, Timestamp, Version};
use crate::state::State;

/// Failures count against a node for this long (swarmkit's numbers, as the next one).
const FAULT_WINDOW: Duration = Duration::from_secs(5 * 60);

/// With this many failures of a service and specification a node is chosen last.
const FAULTY: usize = 5;

/// A node that may have a task, with what it carries already.
struct Candidate<'a> {
    node: &'a Node,
    load: Load,
    failures: usize,
}

/// Places every task that waits for a node, or says why it has to go on waiting.
///
/// Returns `AssignTask` and `ExplainTask`, the latter only where the reason has changed. Each
/// decision counts towards those after it. `seed` decides between nodes that are otherwise
/// equal, so that a task which fails on one gets another chance elsewhere.
#[must_use]
pub fn schedule(state: &State, now: Timestamp, seed: u64) -> Vec<Command> {
    let groups = waiting(state, now);
    if groups.is_empty() {
        return Vec::new();
    }
    let mut loads: BTreeMap<NodeId, Load> = state
        .nodes()
        .map(|node| (node.id.clone(), Load::of(state, &node.id)))
        .collect();
    let mut commands = Vec::new();
    for tasks in groups {
        place(state, now, seed, &tasks, &mut loads, &mut commands);
    }
    commands
}

/// Whether a node may have a task as things stand: the check of `apply`, which has the last
/// word on a placement.
///
/// # Errors
/// What is in the way.
pub fn admit(state: &State, node: &Node, task: &Task) -> Result<(), Refusal> {
    filter::lasting(node, task)?;
    filter::by_load(node, &Load::of(state, &node.id), task)
}

/// Whether a task could be placed on the node of another one, were that one gone.
pub(crate) fn fits_in_place_of(state: &State, task: &Task, old: &Task) -> bool {
    let Some(node) = old.node.as_ref().and_then(|id| state.node(id)) else {
        return false;
    };
    let others = state
        .tasks_on(&node.id)
        .filter(|other| other.is_live() && other.id != old.id);
    filter::lasting(node, task).is_ok() && filter::by_load(node, &Load::sum(others), task).is_ok()
}

/// What the tasks of a node reserve together.
pub(crate) fn reserved(state: &State, node: &NodeId) -> Resources {
    Load::of(state, node).reserved
}

/// Tasks that can be placed now, in groups of one service and specification; the group that
/// has waited longest first.
fn waiting(state: &State, now: Timestamp) -> Vec<Vec<&Task>> {
    let mut groups: BTreeMap<(&ServiceId, Version), Vec<&Task>> = BTreeMap::new();
    for task in state.tasks() {
        let kept = state
            .service(&task.service)
            .is_some_and(|service| !service.removing);
        let waits = task.node.is_none() && task.is_live() && task.is_member();
        if kept && waits && task.restart.not_before <= now {
            groups
                .entry((&task.service, task.spec_version))
                .or_default()
                .push(task);
        }
    }
    let mut groups: Vec<Vec<&Task>> = groups.into_values().collect();
    for group in &mut groups {
        group.sort_by_key(|task| (task.created_at, task.slot, &task.id));
    }
    groups.sort_by_key(|group| group.first().map(|task| (task.created_at, &task.service)));
    groups
}

fn place(
    state: &State,
    now: Timestamp,
    seed: u64,
    tasks: &[&Task],
    loads: &mut BTreeMap<NodeId, Load>,
    commands: &mut Vec<Command>,
) {
    let Some(first) = tasks.first() else { return };
    let failures = failures(state, now, first);
    let mut refusals = Refusals::default();
    let mut candidates = Vec::new();
    for node in state.nodes() {
        match filter::lasting(node, first) {
            Ok(()) => candidates.push(Candidate {
                node,
                load: loads.remove(&node.id).unwrap_or_default(),
                failures: failures.get(&node.id).copied().unwrap_or(0),
            }),
            Err(refusal) => refusals.count(refusal),
        }
    }
    let mut queue: BinaryHeap<Reverse<(Rank, usize)>> = candidates
        .iter()
        .enumerate()
        .map(|(index, candidate)| Reverse((rank(candidate, first, seed), index)))
        .collect();
    for &task in tasks {
        match next(&mut queue, &candidates, task, &mut refusals) {
            Some(index) => {
                let candidate = &mut candidates[index];
                candidate.load.add(task);
                queue.push(Reverse((rank(candidate, task, seed), index)));
                commands.push(Command::AssignTask {
                    id: task.id.clone(),
                    expected: task.version,
                    node: candidate.node.id.clone(),
                });
            }
            None => commands.extend(explain(task, &refusals)),
        }
    }
    for candidate in candidates {
        loads.insert(candidate.node.id.clone(), candidate.load);
    }
}

/// The best candidate that has room. Those without are dropped for the rest of the group.
fn next(
    queue: &mut BinaryHeap<Reverse<(Rank, usize)>>,
    candidates: &[Candidate<'_>],
    task: &Task,
    refusals: &mut Refusals,
) -> Option<usize> {
    while let Some(Reverse((_, index))) = queue.pop() {
        let candidate = &candidates[index];
        match filter::by_load(candidate.node, &candidate.load, task) {
            Ok(()) => return Some(index),
            Err(refusal) => refusals.count(refusal),
        }
    }
    None
}

fn explain(task: &Task, refusals: &Refusals) -> Option<Command> {
    let reason = refusals.to_string();
    let known = task.status.state == TaskState::Pending
        && task.status.error.as_deref() == Some(reason.as_str());
    (!known).then(|| Command::ExplainTask {
        id: task.id.clone(),
        expected: task.version,
        reason,
    })
}

fn rank(candidate: &Candidate<'_>, task: &Task, seed: u64) -> Rank {
    Rank::new(
        candidate.node,
        &candidate.load,
        &task.service,
        candidate.failures >= FAULTY,
        seed,
    )
}

/// How often tasks made from this specification failed lately, by node.
fn failures(state: &State, now: Timestamp, like: &Task) -> BTreeMap<NodeId, usize> {
    let mut failures = BTreeMap::new();
    for task in state.tasks_of(&like.service) {
        let failed = matches!(task.status.state, TaskState::Failed | TaskState::Rejected)
            && task.spec_version == like.spec_version
            && now.since(task.status.at) < FAULT_WINDOW;
        if let (true, Some(node)) = (failed, &task.node) {
            *failures.entry(node.clone()).or_insert(0) += 1;
        }
    }
    failures
}
