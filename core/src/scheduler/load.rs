//! What a node carries already.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{NodeId, PortMode, Protocol, Resources, ServiceId, Task};
use crate::state::State;

/// The sum of a node's tasks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Load {
    /// Reserved by tasks that are not known to have ended; a task that is being stopped holds
    /// its share until it is gone.
    pub(crate) reserved: Resources,
    /// Published on the node itself.
    pub(crate) host_ports: BTreeSet<(u16, Protocol)>,
    /// Tasks that are to stay, of all services.
    pub(crate) tasks: usize,
    /// The same by service.
    pub(crate) by_service: BTreeMap<ServiceId, usize>,
}

impl Load {
    /// What the state says of a node.
    pub(crate) fn of(state: &State, node: &NodeId) -> Self {
        Self::sum(state.tasks_on(node).filter(|task| task.is_live()))
    }

    /// The sum of such tasks.
    pub(crate) fn sum<'a>(tasks: impl Iterator<Item = &'a Task>) -> Self {
        let mut load = Self::default();
        tasks.for_each(|task| load.add(task));
        load
    }

    /// Counts a task in.
    pub(crate) fn add(&mut self, task: &Task) {
        let wanted = task.spec.resources.reservations;
        self.reserved.nano_cpus = self.reserved.nano_cpus.saturating_add(wanted.nano_cpus);
        self.reserved.memory_bytes = self
            .reserved
            .memory_bytes
            .saturating_add(wanted.memory_bytes);
        self.host_ports.extend(host_ports(task));
        if task.is_member() {
            self.tasks += 1;
            *self.by_service.entry(task.service.clone()).or_insert(0) += 1;
        }
    }
}

/// The ports that a task takes of its node by number.
pub(crate) fn host_ports(task: &Task) -> impl Iterator<Item = (u16, Protocol)> {
    task.ports
        .iter()
        .filter(|port| port.mode == PortMode::Host && port.published != 0)
        .map(|port| (port.published, port.protocol))
}
