//! Where tasks go.
//!
//! Filters say which nodes may have a task, and each explains its refusal; of those nodes the
//! one that ranks first gets it, and where the service has placement preferences, the one that
//! ranks first in the group with fewest of the service's tasks. Tasks of one service and specification are placed as a group:
//! they have the same demands, so a node that refused one of them need not be asked again,
//! and a pass over T tasks and N nodes takes (T + N) log N steps instead of T times N.
//!
//! A task whose back-off is not over is not placed yet. Placing it would have its agent pull
//! the image at once, and a missing image would be asked for without any pause.

mod balance;
mod census;
mod constraint;
mod filter;
mod load;
mod rank;
#[cfg(test)]
mod tests;
mod tree;

pub(crate) use balance::moves;
pub(crate) use census::{FAULTY, is_recent_failure};
pub use filter::Refusal;
pub(crate) use filter::{meets_constraints, suits};
pub(crate) use load::{Load, host_ports};

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use census::{Count, census};
use filter::Refusals;
use rank::Rank;
use tree::Tree;

use crate::command::Command;
use crate::model::{
    Node, NodeId, Placement, Resources, Service, ServiceId, Task, TaskState, Timestamp, Version,
};
use crate::state::State;

/// A node that may have a task, with what it carries already.
struct Candidate<'a> {
    node: &'a Node,
    load: Cow<'a, Load>,
    count: Count,
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
    // What nodes carry with the tasks that this pass gives them; of others the state knows it.
    let mut loads: BTreeMap<&NodeId, Load> = BTreeMap::new();
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
    let load = state.load(&node.id);
    filter::by_load(node, &load, load.of_service(&task.service), task)
}

/// The values by which a node is grouped, one for each preference of a service.
pub(crate) fn path<'a>(placement: &Placement, node: &'a Node) -> Vec<Cow<'a, str>> {
    let value = |attribute| constraint::value(attribute, node).unwrap_or_default();
    let preferences = placement.preferences.iter();
    preferences.map(|p| value(p.attribute())).collect()
}

/// Whether a task could be placed on the node of another one, were that one gone.
pub(crate) fn fits_in_place_of(state: &State, task: &Task, old: &Task) -> bool {
    let Some(node) = old.node.as_ref().and_then(|id| state.node(id)) else {
        return false;
    };
    let mut load = state.load(&node.id).into_owned();
    load.remove(old);
    filter::lasting(node, task).is_ok()
        && filter::by_load(node, &load, load.of_service(&task.service), task).is_ok()
}

/// Which of a node's generic resources that have names become a task's own: the first that no
/// other live task has.
pub(crate) fn generic_names(
    state: &State,
    node: &Node,
    task: &Task,
) -> BTreeMap<String, Vec<String>> {
    let mut own = BTreeMap::new();
    for (kind, &amount) in &task.spec.resources.reservations.generic {
        let Some(names) = node.description.generic_names.get(kind) else {
            continue;
        };
        let taken: BTreeSet<&String> = state
            .tasks_on(&node.id)
            .filter(|other| other.is_live())
            .filter_map(|other| other.generic_names.get(kind))
            .flatten()
            .collect();
        let free = names.iter().filter(|name| !taken.contains(name)).cloned();
        let amount = usize::try_from(amount).unwrap_or(usize::MAX);
        own.insert(kind.clone(), free.take(amount).collect());
    }
    own
}

/// What the tasks of a node reserve together.
pub(crate) fn reserved(state: &State, node: &NodeId) -> Resources {
    state.load(node).reserved()
}

/// What tasks have in common that can be placed together: service, specification, and the node
/// that they are for, where there is one.
type GroupKey<'a> = (&'a ServiceId, Version, Option<&'a NodeId>);

/// Tasks that can be placed now, in groups; the group that has waited longest first.
fn waiting(state: &State, now: Timestamp) -> Vec<Vec<&Task>> {
    let mut groups: BTreeMap<GroupKey<'_>, Vec<&Task>> = BTreeMap::new();
    for task in state.unplaced_tasks() {
        let waits = task.is_live() && task.is_member() && task.restart.not_before <= now;
        let kept = |service: &Service| !service.removing;
        if waits && state.service(&task.service).is_some_and(kept) {
            groups
                .entry((&task.service, task.spec_version, task.home.as_ref()))
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

fn place<'a>(
    state: &'a State,
    now: Timestamp,
    seed: u64,
    tasks: &[&'a Task],
    loads: &mut BTreeMap<&'a NodeId, Load>,
    commands: &mut Vec<Command>,
) {
    let Some(&first) = tasks.first() else { return };
    let counts = match &first.home {
        // Its node is the only one there is: how many tasks the others have decides nothing.
        Some(_) => BTreeMap::new(),
        None => census(state, now, first),
    };
    let mut refusals = Refusals::default();
    let mut candidates = Vec::new();
    let mut tree = Tree::default();
    for node in eligible(state, first) {
        let count = counts.get(&node.id).copied().unwrap_or_default();
        let path = path(&first.spec.placement, node);
        let candidate = match filter::lasting(node, first) {
            Ok(()) => {
                candidates.push(Candidate {
                    node,
                    load: match loads.remove(&node.id) {
                        Some(load) => Cow::Owned(load),
                        None => state.load(&node.id),
                    },
                    count,
                });
                let index = candidates.len() - 1;
                Some((rank(&candidates[index], first, seed), index))
            }
            Err(refusal) => {
                refusals.count(refusal);
                None
            }
        };
        tree.add(&path, count.stays, candidate);
    }
    tree.arrange();
    for &task in tasks {
        let found = tree.next(&mut |index| {
            let candidate = &mut candidates[index];
            match candidate.take(task) {
                Ok(()) => Some(rank(candidate, task, seed)),
                Err(refusal) => {
                    refusals.count(refusal);
                    None
                }
            }
        });
        match found {
            Some(index) => commands.push(Command::AssignTask {
                id: task.id.clone(),
                expected: task.version,
                node: candidates[index].node.id.clone(),
            }),
            None => commands.extend(explain(task, &refusals)),
        }
    }
    for candidate in candidates {
        if let Cow::Owned(load) = candidate.load {
            loads.insert(&candidate.node.id, load);
        }
    }
}

/// The nodes that are asked: the one that the task is for, or else all.
fn eligible<'a>(state: &'a State, task: &Task) -> Box<dyn Iterator<Item = &'a Node> + 'a> {
    match &task.home {
        Some(home) => Box::new(state.node(home).into_iter()),
        None => Box::new(state.nodes()),
    }
}

impl Candidate<'_> {
    /// Takes a task if there is room for it.
    fn take(&mut self, task: &Task) -> Result<(), Refusal> {
        filter::by_load(self.node, &self.load, self.count.live, task)?;
        self.load.to_mut().add(task);
        self.count.live += 1;
        self.count.stays += 1;
        Ok(())
    }
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
        task.spec.placement.strategy,
        (candidate.node, &candidate.load),
        candidate.count.stays,
        candidate.count.failures >= FAULTY,
        seed,
    )
}
