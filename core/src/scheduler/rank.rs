//! Which of the nodes that may have a task gets it.

use super::load::Load;
use crate::model::{Node, Strategy};
use crate::random;

/// The order of preference; the least is the best. Fields compare from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// Nodes on which the service keeps failing come last.
    faulty: bool,
    /// What the strategy looks at.
    ///
    /// To spread: fewest tasks of this service, so that a lost node takes as few of them as
    /// possible along; then the largest free share of CPU and memory, so that a small and a
    /// large host are not treated alike; then fewest tasks of all services.
    ///
    /// To pack: the smallest free share, then most tasks of this service, then most of all.
    keys: [u64; 3],
    /// Then chance.
    tie: u64,
}

impl Rank {
    /// `stays` is the number of the service's tasks that are on the node and to stay there.
    pub(super) fn new(
        strategy: Strategy,
        (node, load): (&Node, &Load),
        stays: usize,
        faulty: bool,
        seed: u64,
    ) -> Self {
        let capacity = &node.description.resources;
        let free = free_share(capacity.nano_cpus, load.nano_cpus())
            + free_share(capacity.memory_bytes, load.memory_bytes());
        let (stays, tasks) = (stays as u64, load.members() as u64);
        let most = |number: u64| u64::MAX - number;
        Self {
            faulty,
            keys: match strategy {
                Strategy::Spread => [stays, most(free), tasks],
                Strategy::Binpack => [free, most(stays), most(tasks)],
            },
            tie: random::tie(seed, node.id.as_str().as_bytes()),
        }
    }
}

/// Free part of a capacity in thousandths: finer differences than that are noise, and task
/// counts decide better.
fn free_share(capacity: u64, reserved: u128) -> u64 {
    let capacity = u128::from(capacity);
    let free = capacity.saturating_sub(reserved) * 1000;
    let share = free.checked_div(capacity).unwrap_or(0);
    u64::try_from(share).unwrap_or(u64::MAX)
}
