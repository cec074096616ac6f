//! The replicated state: every object of the cluster, by identifier.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{Cluster, Node, NodeId, Service, ServiceId, Task, TaskId, Version};

/// Everything that the managers agree on.
///
/// Objects are shared, so that a clone costs pointers and a snapshot can be written while the
/// original goes on changing. Only [`apply`](crate::apply) changes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    pub(crate) version: Version,
    pub(crate) cluster: Option<Arc<Cluster>>,
    pub(crate) nodes: BTreeMap<NodeId, Arc<Node>>,
    pub(crate) services: BTreeMap<ServiceId, Arc<Service>>,
    pub(crate) tasks: BTreeMap<TaskId, Arc<Task>>,
    by_service: BTreeMap<ServiceId, BTreeMap<u32, BTreeSet<TaskId>>>,
    by_node: BTreeMap<NodeId, BTreeSet<TaskId>>,
}

impl State {
    /// Puts a state together from a snapshot.
    #[must_use]
    pub fn restore(
        version: Version,
        cluster: Option<Cluster>,
        nodes: Vec<Node>,
        services: Vec<Service>,
        tasks: Vec<Task>,
    ) -> Self {
        let mut state = Self {
            version,
            cluster: cluster.map(Arc::new),
            nodes: nodes
                .into_iter()
                .map(|node| (node.id.clone(), Arc::new(node)))
                .collect(),
            services: services
                .into_iter()
                .map(|s| (s.id.clone(), Arc::new(s)))
                .collect(),
            ..Self::default()
        };
        for task in tasks {
            state.put_task(Arc::new(task));
        }
        state
    }

    /// Raft index of the last entry applied.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The cluster, once there is one.
    #[must_use]
    pub fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_deref()
    }

    /// A node.
    #[must_use]
    pub fn node(&self, id: &NodeId) -> Option<&Node> {
        self.nodes.get(id).map(AsRef::as_ref)
    }

    /// A service.
    #[must_use]
    pub fn service(&self, id: &ServiceId) -> Option<&Service> {
        self.services.get(id).map(AsRef::as_ref)
    }

    /// A task.
    #[must_use]
    pub fn task(&self, id: &TaskId) -> Option<&Task> {
        self.tasks.get(id).map(AsRef::as_ref)
    }

    /// All nodes, by identifier.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values().map(AsRef::as_ref)
    }

    /// All services, by identifier.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values().map(AsRef::as_ref)
    }

    /// All tasks, by identifier.
    pub fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.tasks.values().map(AsRef::as_ref)
    }

    /// The service of that name. One that is being removed has given its name back already,
    /// and is not found.
    #[must_use]
    pub fn service_named(&self, name: &str) -> Option<&Service> {
        self.services()
            .find(|service| service.spec.name == name && !service.removing)
    }

    /// The tasks of a service, by slot and identifier.
    pub fn tasks_of(&self, service: &ServiceId) -> impl Iterator<Item = &Task> {
        self.by_service
            .get(service)
            .into_iter()
            .flat_map(BTreeMap::values)
            .flatten()
            .filter_map(|id| self.task(id))
    }

    /// The tasks of one slot of a service, by identifier.
    pub fn tasks_in(&self, service: &ServiceId, slot: u32) -> impl Iterator<Item = &Task> {
        self.by_service
            .get(service)
            .and_then(|slots| slots.get(&slot))
            .into_iter()
            .flatten()
            .filter_map(|id| self.task(id))
    }

    /// The tasks bound to a node, by identifier.
    pub fn tasks_on(&self, node: &NodeId) -> impl Iterator<Item = &Task> {
        self.by_node
            .get(node)
            .into_iter()
            .flatten()
            .filter_map(|id| self.task(id))
    }

    /// A service, to be changed in place.
    pub(crate) fn service_mut(&mut self, id: &ServiceId) -> Option<&mut Service> {
        self.services.get_mut(id).map(Arc::make_mut)
    }

    /// A task, to be changed in place. Its node must be changed by [`State::put_task`] instead,
    /// which keeps the indexes in step.
    pub(crate) fn task_mut(&mut self, id: &TaskId) -> Option<&mut Task> {
        self.tasks.get_mut(id).map(Arc::make_mut)
    }

    /// Adds or replaces a task, and keeps the indexes in step.
    pub(crate) fn put_task(&mut self, task: Arc<Task>) {
        self.by_service
            .entry(task.service.clone())
            .or_default()
            .entry(task.slot)
            .or_default()
            .insert(task.id.clone());
        if let Some(node) = &task.node {
            self.by_node
                .entry(node.clone())
                .or_default()
                .insert(task.id.clone());
        }
        self.tasks.insert(task.id.clone(), task);
    }

    /// Removes a task, and keeps the indexes in step.
    pub(crate) fn remove_task(&mut self, id: &TaskId) {
        let Some(task) = self.tasks.remove(id) else {
            return;
        };
        if let Some(slots) = self.by_service.get_mut(&task.service) {
            remove_from(slots, &task.slot, id);
            if slots.is_empty() {
                self.by_service.remove(&task.service);
            }
        }
        if let Some(node) = &task.node {
            remove_from(&mut self.by_node, node, id);
        }
    }
}

fn remove_from<K: Ord>(index: &mut BTreeMap<K, BTreeSet<TaskId>>, key: &K, id: &TaskId) {
    if let Some(ids) = index.get_mut(key) {
        ids.remove(id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}
