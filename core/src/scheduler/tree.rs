//! Nodes grouped by placement preferences.
//!
//! ```text
//! zone a (4 tasks) ─┬─ rack 1 (2 tasks) ── n1, n2
//!                   └─ rack 2 (2 tasks) ── n3
//! zone b (3 tasks) ─── rack 3 (3 tasks) ── n4, n5      ◄── gets the next task
//! ```
//!
//! At each level the branch with fewest tasks comes first, and among equals the one whose best
//! node ranks first. Each step costs the logarithm of the number of branches, so that a label
//! with a value of its own on each of a thousand nodes is as cheap as one with three.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::rank::Rank;

/// A group of nodes.
#[derive(Debug, Default)]
pub(super) struct Tree<'a> {
    tasks: usize,
    /// On the lowest level: the nodes that may still have a task, the best first.
    nodes: BinaryHeap<Reverse<(Rank, usize)>>,
    /// On the levels above: the groups, and their order.
    names: BTreeMap<Cow<'a, str>, usize>,
    branches: Vec<Self>,
    order: BTreeSet<(usize, Rank, usize)>,
}

impl<'a> Tree<'a> {
    /// Adds a node with its tasks. `path` has the node's values of all preferences; a node that
    /// may not have a task comes without a rank, and counts nevertheless.
    pub(super) fn add(&mut self, path: &[Cow<'a, str>], tasks: usize, node: Option<(Rank, usize)>) {
        self.tasks += tasks;
        let Some((value, rest)) = path.split_first() else {
            self.nodes.extend(node.map(Reverse));
            return;
        };
        let index = *self.names.entry(value.clone()).or_insert_with(|| {
            self.branches.push(Self::default());
            self.branches.len() - 1
        });
        self.branches[index].add(rest, tasks, node);
    }

    /// Orders the branches once all nodes are there.
    pub(super) fn arrange(&mut self) {
        for (index, branch) in self.branches.iter_mut().enumerate() {
            branch.arrange();
            self.order
                .extend(branch.best().map(|rank| (branch.tasks, rank, index)));
        }
    }

    /// Finds a node for one more task. `place` says whether the node has room, and if so its
    /// rank with the task; one that has none is not asked again.
    pub(super) fn next(&mut self, place: &mut dyn FnMut(usize) -> Option<Rank>) -> Option<usize> {
        while let Some(Reverse((_, node))) = self.nodes.pop() {
            if let Some(rank) = place(node) {
                self.nodes.push(Reverse((rank, node)));
                self.tasks += 1;
                return Some(node);
            }
        }
        while let Some((_, _, index)) = self.order.pop_first() {
            let branch = &mut self.branches[index];
            let found = branch.next(place);
            self.order
                .extend(branch.best().map(|rank| (branch.tasks, rank, index)));
            if found.is_some() {
                self.tasks += 1;
                return found;
            }
        }
        None
    }

    fn best(&self) -> Option<Rank> {
        let here = self.nodes.peek().map(|Reverse((rank, _))| *rank);
        here.or_else(|| self.order.first().map(|&(_, rank, _)| rank))
    }
}
