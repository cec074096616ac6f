//! What a node carries already.

use std::collections::BTreeMap;

use crate::model::{PortMode, Protocol, Resources, ServiceId, Task};

/// The sum of a node's live tasks. One that has ended weighs nothing; one that is being stopped
/// holds its share until it is gone.
///
/// The state keeps one for each node and changes it with each task, because counting anew for
/// every placement would cost the square of what a node has. Sums are wider than what is summed
/// up, so that taking away what was added leads back to exactly the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Load {
    nano_cpus: u128,
    memory_bytes: u128,
    generic: BTreeMap<String, u128>,
    /// Ports published on the node itself, with the number of tasks that have them.
    host_ports: BTreeMap<(u16, Protocol), usize>,
    /// Tasks of each service.
    services: BTreeMap<ServiceId, usize>,
    /// Tasks that are to stay, of all services.
    members: usize,
}

impl Load {
    /// Counts a task in.
    pub(crate) fn add(&mut self, task: &Task) {
        if !task.is_live() {
            return;
        }
        let wanted = &task.spec.resources.reservations;
        self.nano_cpus += u128::from(wanted.nano_cpus);
        self.memory_bytes += u128::from(wanted.memory_bytes);
        for (kind, &amount) in wanted.generic.iter().filter(|(_, amount)| **amount != 0) {
            *self.generic.entry(kind.clone()).or_default() += u128::from(amount);
        }
        for port in host_ports(task) {
            *self.host_ports.entry(port).or_default() += 1;
        }
        *self.services.entry(task.service.clone()).or_default() += 1;
        self.members += usize::from(task.is_member());
    }

    /// Takes out a task that was counted in.
    pub(crate) fn remove(&mut self, task: &Task) {
        if !task.is_live() {
            return;
        }
        let wanted = &task.spec.resources.reservations;
        self.nano_cpus -= u128::from(wanted.nano_cpus);
        self.memory_bytes -= u128::from(wanted.memory_bytes);
        for (kind, &amount) in wanted.generic.iter().filter(|(_, amount)| **amount != 0) {
            take(&mut self.generic, kind, u128::from(amount));
        }
        for port in host_ports(task) {
            take(&mut self.host_ports, &port, 1);
        }
        take(&mut self.services, &task.service, 1);
        self.members -= usize::from(task.is_member());
    }

    /// What is reserved; a sum beyond what can be written down is the largest that can.
    pub(crate) fn reserved(&self) -> Resources {
        let most = |sum: u128| u64::try_from(sum).unwrap_or(u64::MAX);
        let generic = self.generic.iter();
        Resources {
            nano_cpus: most(self.nano_cpus),
            memory_bytes: most(self.memory_bytes),
            generic: generic
                .map(|(kind, &sum)| (kind.clone(), most(sum)))
                .collect(),
            ..Resources::default()
        }
    }

    /// Reserved processor time in billionths of a core.
    pub(super) fn nano_cpus(&self) -> u128 {
        self.nano_cpus
    }

    /// Reserved memory.
    pub(super) fn memory_bytes(&self) -> u128 {
        self.memory_bytes
    }

    /// What is reserved of a generic resource.
    pub(super) fn generic(&self, kind: &str) -> u128 {
        self.generic.get(kind).copied().unwrap_or(0)
    }

    /// Whether a task has a port of the node.
    pub(super) fn has_port(&self, port: (u16, Protocol)) -> bool {
        self.host_ports.contains_key(&port)
    }

    /// Tasks of a service.
    pub(super) fn of_service(&self, service: &ServiceId) -> usize {
        self.services.get(service).copied().unwrap_or(0)
    }

    /// Tasks that are to stay, of all services.
    pub(super) fn members(&self) -> usize {
        self.members
    }
}

/// The ports that a task takes of its node by number.
pub(crate) fn host_ports(task: &Task) -> impl Iterator<Item = (u16, Protocol)> {
    task.ports
        .iter()
        .filter(|port| port.mode == PortMode::Host && port.published != 0)
        .map(|port| (port.published, port.protocol))
}

/// Lowers a sum, and forgets it once nothing is left of it.
fn take<K, N>(sums: &mut BTreeMap<K, N>, key: &K, amount: N)
where
    K: Ord,
    N: Copy + Default + PartialEq + std::ops::Sub<Output = N>,
{
    if let Some(sum) = sums.get_mut(key) {
        *sum = *sum - amount;
        if *sum == N::default() {
            sums.remove(key);
        }
    }
}
