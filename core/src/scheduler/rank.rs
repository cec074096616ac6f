//! Which of the nodes that may have a task gets it.

use std::cmp::Reverse;

use super::load::Load;
use crate::model::{Node, ServiceId};
use crate::random;

/// The order of preference; the least is the best. Fields compare from the first to the last.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// Nodes on which the service keeps failing come last.
    faulty: bool,
    /// Fewest tasks of this service: a lost node takes as few of them as possible along.
    of_service: usize,
    /// Then the largest free share of CPU and memory, so that a small and a large host are not
    /// treated alike.
    free: Reverse<u64>,
    /// Then fewest tasks of all services.
    tasks: usize,
    /// Then chance.
    tie: u64,
}

impl Rank {
    pub(super) fn new(
        node: &Node,
        load: &Load,
        service: &ServiceId,
        faulty: bool,
        seed: u64,
    ) -> Self {
        let capacity = node.description.resources;
        let free = free_share(capacity.nano_cpus, load.reserved.nano_cpus)
            + free_share(capacity.memory_bytes, load.reserved.memory_bytes);
        Self {
            faulty,
            of_service: load.by_service.get(service).copied().unwrap_or(0),
            free: Reverse(free),
            tasks: load.tasks,
            tie: random::tie(seed, node.id.as_str().as_bytes()),
        }
    }
}

/// Free part of a capacity in thousandths: finer differences than that are noise, and task
/// counts decide better.
fn free_share(capacity: u64, reserved: u64) -> u64 {
    let free = u128::from(capacity.saturating_sub(reserved)) * 1000;
    let share = free.checked_div(u128::from(capacity)).unwrap_or(0);
    u64::try_from(share).unwrap_or(u64::MAX)
}
