//! What a node carries already.

use std::collections::BTreeSet;

use crate::model::{NodeId, PortMode, Protocol, Resources, Task};
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
        let wanted = &task.spec.resources.reservations;
        let sum = &mut self.reserved;
        sum.nano_cpus = sum.nano_cpus.saturating_add(wanted.nano_cpus);
        sum.memory_bytes = sum.memory_bytes.saturating_add(wanted.memory_bytes);
        for (kind, &amount) in &wanted.generic {
            let reserved = sum.generic.entry(kind.clone()).or_insert(0);
            *reserved = reserved.saturating_add(amount);
        }
        self.host_ports.extend(host_ports(task));
        self.tasks += usize::from(task.is_member());
    }
}

/// The ports that a task takes of its node by number.
pub(crate) fn host_ports(task: &Task) -> impl Iterator<Item = (u16, Protocol)> {
    task.ports
        .iter()
        .filter(|port| port.mode == PortMode::Host && port.published != 0)
        .map(|port| (port.published, port.protocol))
}
