//! One task on each node that is there, is not drained, and meets the constraints.
//!
//! ```text
//! node joins, comes back, is made active, is labelled → a task is made for it
//! node is down, drained, leaves, is relabelled        → its task ends, and none takes its place
//! node is paused                                      → its task stays as it is
//! ```
//!
//! A node is a slot: its number means nothing, but that all tasks of it are for the same node.
//! A paused node takes no new task, so an update passes it by, and catches up with it once it is
//! active again.

use std::collections::{BTreeMap, BTreeSet};

use super::Pass;
use super::keep::{self, Aim};
use super::slot::{self, Slot};
use crate::model::{Availability, Node, NodeId, NodeState, Service, Task};
use crate::scheduler;
use crate::state::State;
use crate::updater;

pub(super) fn reconcile(pass: &mut Pass<'_>, service: &Service) {
    let slots = slot::of(pass.state, &service.id);
    let homes = Homes::of(pass.state, service, &slots);
    let open: Vec<(u32, &Slot<'_>)> = homes
        .slots
        .iter()
        .filter(|(home, _)| is_open(pass.state, service, home))
        .filter_map(|(_, number)| Some((*number, slots.get(number)?)))
        .collect();
    let missing = homes.missing(pass.state, service, &slots);
    let wanted = open.len() + missing.len();
    let aim = Aim {
        rollout: updater::rollout(pass.state, pass.now, service, &open, wanted),
        surplus: homes.surplus,
        missing: missing
            .into_iter()
            .map(|(number, home)| (number, Some(home.clone())))
            .collect(),
    };
    keep::pursue(pass, service, &slots, aim);
}

/// How many nodes are to have a task of a service with one task on each.
pub(super) fn wanted(state: &State, service: &Service) -> usize {
    state.nodes().filter(|node| takes(node, service)).count()
}

/// Whether an update may change a task: not where its node takes no new one.
pub(crate) fn takes_part(state: &State, service: &Service, task: &Task) -> bool {
    let mut home = task.home.iter();
    home.all(|home| is_open(state, service, home))
}

/// Which slot is whose.
pub(super) struct Homes<'a> {
    /// The slot of each node that keeps its task.
    pub(super) slots: BTreeMap<&'a NodeId, u32>,
    /// Slots of nodes that do not, or that have another slot already.
    pub(super) surplus: BTreeSet<u32>,
}

impl<'a> Homes<'a> {
    pub(super) fn of(state: &'a State, service: &Service, slots: &BTreeMap<u32, Slot<'a>>) -> Self {
        let mut homes = Self {
            slots: BTreeMap::new(),
            surplus: BTreeSet::new(),
        };
        for (&number, slot) in slots.iter().filter(|(_, slot)| slot.is_occupied()) {
            let home = slot
                .home
                .filter(|id| state.node(id).is_some_and(|node| keeps(node, service)));
            match home {
                Some(home) if !homes.slots.contains_key(home) => {
                    homes.slots.insert(home, number);
                }
                _ => {
                    homes.surplus.insert(number);
                }
            }
        }
        homes
    }

    /// The nodes that lack a task, each with the slot that it gets: the one that it had, where
    /// tasks of it are left, or else the lowest that nobody has.
    pub(super) fn missing(
        &self,
        state: &'a State,
        service: &Service,
        slots: &BTreeMap<u32, Slot<'a>>,
    ) -> Vec<(u32, &'a NodeId)> {
        let former: BTreeMap<&NodeId, u32> = slots
            .iter()
            .filter(|(number, slot)| !slot.is_occupied() && !self.surplus.contains(number))
            .filter_map(|(&number, slot)| Some((slot.home?, number)))
            .collect();
        let mut free = (1..).filter(|number| !slots.contains_key(number));
        state
            .nodes()
            .filter(|node| takes(node, service) && !self.slots.contains_key(&node.id))
            .filter_map(|node| {
                let number = former.get(&node.id).copied().or_else(|| free.next())?;
                Some((number, &node.id))
            })
            .collect()
    }
}

/// Whether a node's task may be replaced by another one there.
fn is_open(state: &State, service: &Service, home: &NodeId) -> bool {
    state.node(home).is_some_and(|node| takes(node, service))
}

/// Whether a node that has no task of a service gets one.
fn takes(node: &Node, service: &Service) -> bool {
    node.spec.availability == Availability::Active
        && node.status.state == NodeState::Ready
        && scheduler::suits(node, &service.spec.task)
}

/// Whether a node's task of a service stays.
fn keeps(node: &Node, service: &Service) -> bool {
    node.spec.availability != Availability::Drain
        && node.status.state != NodeState::Down
        && scheduler::suits(node, &service.spec.task)
}
