//! Which slots go when a service is scaled down.
//!
//! First those that do not serve. Then one after the other from the fullest group of each
//! placement preference, and within it from the node that has most of the service's tasks; among
//! equals the highest number. So what was spread evenly stays so. A service that is packed gives
//! up the node that has fewest of them instead.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::slot::Slot;
use crate::model::{Placement, Strategy};
use crate::scheduler;
use crate::state::State;

/// Chooses `count` of the occupied slots.
pub(super) fn slots(
    state: &State,
    placement: &Placement,
    slots: &BTreeMap<u32, Slot<'_>>,
    count: usize,
) -> BTreeSet<u32> {
    let mut gone = BTreeSet::new();
    if count == 0 {
        return gone;
    }
    let mut root = Group::default();
    for (&number, slot) in slots.iter().filter(|(_, slot)| slot.is_occupied()) {
        let node = slot.serving(state).and_then(|task| task.node.as_ref());
        match node.and_then(|id| state.node(id)) {
            Some(node) => {
                let mut path = scheduler::path(placement, node);
                path.push(node.id.as_str().into());
                root.add(&path, number);
            }
            None => {
                gone.insert(number);
            }
        }
    }
    while gone.len() > count {
        // The lowest numbers stay longest.
        gone.pop_first();
    }
    root.arrange(placement.strategy);
    while gone.len() < count {
        let Some(number) = root.take(placement.strategy) else {
            break;
        };
        gone.insert(number);
    }
    gone
}

/// Slots by group, the last level being the nodes.
#[derive(Debug, Default)]
struct Group<'a> {
    size: usize,
    /// On the lowest level: the slots in ascending order.
    numbers: Vec<u32>,
    /// On the levels above: the groups, and their order.
    names: BTreeMap<Cow<'a, str>, usize>,
    groups: Vec<Self>,
    order: BTreeSet<(usize, u32, usize)>,
}

impl<'a> Group<'a> {
    fn add(&mut self, path: &[Cow<'a, str>], number: u32) {
        self.size += 1;
        let Some((value, rest)) = path.split_first() else {
            self.numbers.push(number);
            return;
        };
        let index = *self.names.entry(value.clone()).or_insert_with(|| {
            self.groups.push(Self::default());
            self.groups.len() - 1
        });
        self.groups[index].add(rest, number);
    }

    fn arrange(&mut self, strategy: Strategy) {
        for (index, group) in self.groups.iter_mut().enumerate() {
            group.arrange(strategy);
            self.order.extend(group.key(strategy, index));
        }
    }

    /// The group from which the next one is taken has the greatest key.
    fn key(&self, strategy: Strategy, index: usize) -> Option<(usize, u32, usize)> {
        let highest = self.highest()?;
        let is_node = self.groups.is_empty();
        let size = match strategy {
            Strategy::Binpack if is_node => usize::MAX - self.size,
            Strategy::Spread | Strategy::Binpack => self.size,
        };
        Some((size, highest, index))
    }

    /// The slot that is taken next.
    fn highest(&self) -> Option<u32> {
        let here = self.numbers.last().copied();
        here.or_else(|| self.order.last().map(|&(_, highest, _)| highest))
    }

    fn take(&mut self, strategy: Strategy) -> Option<u32> {
        let taken = match self.order.pop_last() {
            Some((_, _, index)) => {
                let group = &mut self.groups[index];
                let taken = group.take(strategy);
                self.order.extend(group.key(strategy, index));
                taken
            }
            None => self.numbers.pop(),
        };
        self.size -= usize::from(taken.is_some());
        taken
    }
}
