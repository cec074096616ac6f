//! All tasks, found by identifier, by slot and by node, with what those of each node add up to.
//!
//! What is looked for is found without a search per task, and the sums of nodes are changed with
//! each task: deciders go through everything again and again, and apply asks for a node's load at
//! every placement.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{NodeId, ServiceId, Task, TaskId};
use crate::scheduler::Load;

/// The tasks of the cluster. Everything follows from `by_id`.
#[derive(Debug, Clone, Default)]
pub(super) struct Tasks {
    by_id: BTreeMap<TaskId, Arc<Task>>,
    by_service: BTreeMap<ServiceId, BTreeMap<(u32, TaskId), Arc<Task>>>,
    by_node: BTreeMap<NodeId, OnNode>,
    unplaced: BTreeMap<TaskId, Arc<Task>>,
}

/// The tasks that are bound to one node.
#[derive(Debug, Clone, Default)]
struct OnNode {
    tasks: BTreeMap<TaskId, Arc<Task>>,
    load: Load,
}

impl Tasks {
    pub(super) fn get(&self, id: &TaskId) -> Option<&Task> {
        self.by_id.get(id).map(AsRef::as_ref)
    }

    /// By identifier.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Task> {
        self.by_id.values().map(AsRef::as_ref)
    }

    /// By slot and identifier.
    pub(super) fn of_service(&self, service: &ServiceId) -> impl Iterator<Item = &Task> {
        let tasks = self.by_service.get(service).into_iter();
        tasks.flat_map(BTreeMap::values).map(AsRef::as_ref)
    }

    /// By identifier.
    pub(super) fn in_slot(&self, service: &ServiceId, slot: u32) -> impl Iterator<Item = &Task> {
        let first = (slot, TaskId::from_random(0));
        let tasks = self.by_service.get(service).into_iter();
        tasks
            .flat_map(move |tasks| tasks.range(&first..))
            .take_while(move |((number, _), _)| *number == slot)
            .map(|(_, task)| task.as_ref())
    }

    /// By identifier.
    pub(super) fn on_node(&self, node: &NodeId) -> impl Iterator<Item = &Task> {
        let node = self.by_node.get(node).into_iter();
        node.flat_map(|node| node.tasks.values()).map(AsRef::as_ref)
    }

    /// By identifier.
    pub(super) fn unplaced(&self) -> impl Iterator<Item = &Task> {
        self.unplaced.values().map(AsRef::as_ref)
    }

    /// `None` where no task ever was.
    pub(super) fn load(&self, node: &NodeId) -> Option<&Load> {
        self.by_node.get(node).map(|node| &node.load)
    }

    /// Adds or replaces a task.
    pub(super) fn put(&mut self, task: Arc<Task>) {
        let old = self.by_id.insert(task.id.clone(), Arc::clone(&task));
        let in_place = |old: &Task| {
            (&old.service, old.slot, &old.node) == (&task.service, task.slot, &task.node)
        };
        let replaced = old.as_deref().filter(|old| in_place(old));
        if let Some(old) = old.as_deref().filter(|old| !in_place(old)) {
            self.forget(old);
        }
        match &task.node {
            Some(node) => {
                let node = self.by_node.entry(node.clone()).or_default();
                if let Some(old) = replaced {
                    node.load.remove(old);
                }
                node.load.add(&task);
                node.tasks.insert(task.id.clone(), Arc::clone(&task));
            }
            None => {
                self.unplaced.insert(task.id.clone(), Arc::clone(&task));
            }
        }
        let of_service = self.by_service.entry(task.service.clone()).or_default();
        of_service.insert((task.slot, task.id.clone()), task);
    }

    pub(super) fn remove(&mut self, id: &TaskId) {
        if let Some(task) = self.by_id.remove(id) {
            self.forget(&task);
        }
    }

    /// Takes a task out of everything that follows from `by_id`.
    fn forget(&mut self, task: &Task) {
        if let Some(of_service) = self.by_service.get_mut(&task.service) {
            of_service.remove(&(task.slot, task.id.clone()));
            if of_service.is_empty() {
                self.by_service.remove(&task.service);
            }
        }
        let Some(id) = &task.node else {
            self.unplaced.remove(&task.id);
            return;
        };
        if let Some(node) = self.by_node.get_mut(id) {
            node.load.remove(task);
            node.tasks.remove(&task.id);
            if node.tasks.is_empty() {
                self.by_node.remove(id);
            }
        }
    }

    /// The first thing in which what was kept differs from what follows from the tasks.
    pub(super) fn disagreement(&self) -> Option<String> {
        let mut anew = Self::default();
        for task in self.by_id.values() {
            anew.put(Arc::clone(task));
        }
        if !self.by_node.keys().eq(anew.by_node.keys()) {
            return Some("the nodes that have tasks are others".to_owned());
        }
        for (id, node) in &self.by_node {
            let found = anew.by_node.get(id);
            if found.is_none_or(|found| found.tasks != node.tasks) {
                return Some(format!("the tasks of node {id} are others"));
            }
            if found.is_none_or(|found| found.load != node.load) {
                return Some(format!("the load of node {id} is another"));
            }
        }
        if self.by_service != anew.by_service {
            return Some("the tasks of a service are others".to_owned());
        }
        (self.unplaced != anew.unplaced).then(|| "the tasks without a node are others".to_owned())
    }
}

impl PartialEq for Tasks {
    fn eq(&self, other: &Self) -> bool {
        self.by_id == other.by_id
    }
}

impl Eq for Tasks {}

#[cfg(test)]
mod tests;
