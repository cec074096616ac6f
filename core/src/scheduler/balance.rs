//! Which tasks of a service are in the wrong place.
//!
//! A move goes from the fullest group of nodes to the emptiest that has room, on the highest
//! level of the service's placement preferences on which they differ by two tasks or more, and
//! last of all from node to node. It makes the difference smaller and no other one on its level
//! greater, so moves come to an end, and there is none where the service is balanced. Where the
//! tasks really go is the scheduler's decision; it looks at the same numbers.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::census::census;
use super::filter;
use super::load::Load;
use super::path;
use crate::model::{Node, NodeState, Service, ServiceMode, Strategy, Task, TaskState, Timestamp};
use crate::orchestrator::slot;
use crate::state::State;

/// At most `most` tasks that should move. A service that is packed has none: its tasks are
/// together on purpose.
pub(crate) fn moves<'a>(state: &'a State, service: &Service, most: usize) -> Vec<&'a Task> {
    let mut moves = Vec::new();
    let placement = &service.spec.task.placement;
    // Where there is one task on each node none can go elsewhere, and a job's would begin anew.
    let counted = matches!(service.spec.mode, ServiceMode::Replicated { .. });
    if placement.strategy == Strategy::Binpack || most == 0 || !counted {
        return moves;
    }
    let mut leaves = leaves(state, service);
    let Some(like) = leaves.iter().find_map(|leaf| leaf.movable.last().copied()) else {
        return moves;
    };
    let mut root = Group::default();
    for (index, leaf) in leaves.iter().enumerate() {
        let mut path = path(placement, leaf.node);
        path.push(leaf.node.id.as_str().into());
        root.add(&path, index);
    }
    while moves.len() < most {
        let mut view = View {
            leaves: &mut leaves,
            like,
        };
        root.count(&mut view);
        let Some((from, to)) = root.gap() else { break };
        let Some(task) = leaves[from].movable.pop() else {
            break;
        };
        leaves[from].stays -= 1;
        leaves[to].stays += 1;
        leaves[to].live += 1;
        leaves[to].load.to_mut().add(task);
        moves.push(task);
    }
    moves
}

/// A node, with the tasks of the service on it.
struct Leaf<'a> {
    node: &'a Node,
    load: Cow<'a, Load>,
    live: usize,
    stays: usize,
    /// Those that may move, the highest slot last.
    movable: Vec<&'a Task>,
}

struct View<'v, 'a> {
    leaves: &'v mut [Leaf<'a>],
    like: &'a Task,
}

fn leaves<'a>(state: &'a State, service: &Service) -> Vec<Leaf<'a>> {
    let mut movable: BTreeMap<_, Vec<&Task>> = BTreeMap::new();
    let mut like = None;
    for task in state.tasks_of(&service.id) {
        let runs = task.status.state == TaskState::Running && task.is_member();
        if !runs || service.is_outdated(task) || slot::is_displaced(state, task) {
            continue;
        }
        if let Some(node) = &task.node {
            movable.entry(node).or_default().push(task);
            like = Some(task);
        }
    }
    let Some(like) = like else { return Vec::new() };
    // Failures do not matter here, so neither does the time.
    let counts = census(state, Timestamp::default(), like);
    let leaf = |node: &'a Node| {
        let count = counts.get(&node.id).copied().unwrap_or_default();
        let answers = node.status.state == NodeState::Ready;
        Leaf {
            node,
            load: state.load(&node.id),
            live: count.live,
            stays: count.stays,
            movable: movable
                .remove(&node.id)
                .filter(|_| answers)
                .unwrap_or_default(),
        }
    };
    state.nodes().map(leaf).collect()
}

/// Nodes by the values of the preferences; the last level is the nodes themselves.
#[derive(Debug, Default)]
struct Group<'a> {
    leaf: Option<usize>,
    groups: BTreeMap<Cow<'a, str>, Self>,
    tasks: usize,
    /// The fullest node of its fullest group, where a task of it may move.
    from: Option<usize>,
    /// The emptiest node of its emptiest group, where one has room.
    to: Option<usize>,
}

impl<'a> Group<'a> {
    fn add(&mut self, path: &[Cow<'a, str>], leaf: usize) {
        match path.split_first() {
            Some((value, rest)) => self
                .groups
                .entry(value.clone())
                .or_default()
                .add(rest, leaf),
            None => self.leaf = Some(leaf),
        }
    }

    /// Counts anew, from the nodes up.
    fn count(&mut self, view: &mut View<'_, '_>) {
        if let Some(index) = self.leaf {
            let leaf = &view.leaves[index];
            let fits = filter::lasting(leaf.node, view.like).is_ok()
                && filter::by_load(leaf.node, &leaf.load, leaf.live, view.like).is_ok();
            self.tasks = leaf.stays;
            self.from = (!leaf.movable.is_empty()).then_some(index);
            self.to = fits.then_some(index);
            return;
        }
        for group in self.groups.values_mut() {
            group.count(view);
        }
        self.tasks = self.groups.values().map(|group| group.tasks).sum();
        self.from = self.fullest().and_then(|group| group.from);
        self.to = self.emptiest().and_then(|group| group.to);
    }

    fn fullest(&self) -> Option<&Self> {
        let movable = self.groups.values().filter(|group| group.from.is_some());
        movable.max_by_key(|group| group.tasks)
    }

    fn emptiest(&self) -> Option<&Self> {
        let open = self.groups.values().filter(|group| group.to.is_some());
        open.min_by_key(|group| group.tasks)
    }

    /// The nodes between which a task should move.
    fn gap(&self) -> Option<(usize, usize)> {
        if let (Some(from), Some(to)) = (self.fullest(), self.emptiest())
            && from.tasks >= to.tasks + 2
        {
            return from.from.zip(to.to);
        }
        self.groups.values().find_map(Self::gap)
    }
}
