//! The replicated state: every object of the cluster, by identifier.

mod tasks;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{Cluster, Node, NodeId, Role, Service, ServiceId, Task, TaskId, Version};
use crate::scheduler::Load;

use tasks::Tasks;

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
    tasks: Tasks,
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
        self.tasks.get(id)
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
        self.tasks.iter()
    }

    /// Whether a node other than this one is to be a manager.
    #[must_use]
    pub fn has_other_manager(&self, node: &NodeId) -> bool {
        self.nodes()
            .any(|other| other.id != *node && other.spec.role == Role::Manager)
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
        self.tasks.of_service(service)
    }

    /// The tasks of one slot of a service, by identifier.
    pub fn tasks_in(&self, service: &ServiceId, slot: u32) -> impl Iterator<Item = &Task> {
        self.tasks.in_slot(service, slot)
    }

    /// The tasks bound to a node, by identifier.
    pub fn tasks_on(&self, node: &NodeId) -> impl Iterator<Item = &Task> {
        self.tasks.on_node(node)
    }

    /// The tasks that are bound to no node, those that have ended included, by identifier.
    pub fn unplaced_tasks(&self) -> impl Iterator<Item = &Task> {
        self.tasks.unplaced()
    }

    /// What a node carries.
    pub(crate) fn load(&self, node: &NodeId) -> Cow<'_, Load> {
        match self.tasks.load(node) {
            Some(load) => Cow::Borrowed(load),
            None => Cow::Owned(Load::default()),
        }
    }

    /// Where what is kept of tasks besides themselves does not follow from them: a bug.
    pub(crate) fn disagreement(&self) -> Option<String> {
        self.tasks.disagreement()
    }

    /// A service, to be changed in place.
    pub(crate) fn service_mut(&mut self, id: &ServiceId) -> Option<&mut Service> {
        self.services.get_mut(id).map(Arc::make_mut)
    }

    /// Changes a task, where there is one of that name, and returns what `edit` does.
    pub(crate) fn edit_task<T>(
        &mut self,
        id: &TaskId,
        edit: impl FnOnce(&mut Task) -> T,
    ) -> Option<T> {
        let mut task = self.task(id)?.clone();
        let result = edit(&mut task);
        self.tasks.put(Arc::new(task));
        Some(result)
    }

    /// Adds or replaces a task.
    pub(crate) fn put_task(&mut self, task: Arc<Task>) {
        self.tasks.put(task);
    }

    /// Removes a task.
    pub(crate) fn remove_task(&mut self, id: &TaskId) {
        self.tasks.remove(id);
    }
}
