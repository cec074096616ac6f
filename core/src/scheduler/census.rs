//! Where the tasks of one service are.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{NodeId, Task, TaskState, Timestamp, Version};
use crate::orchestrator::slot;
use crate::state::State;

/// Failures count against a node for this long (swarmkit's numbers, as the next one).
const FAULT_WINDOW: Duration = Duration::from_secs(5 * 60);

/// With this many failures of a service and specification a node is chosen last.
pub(crate) const FAULTY: usize = 5;

/// The tasks of a service on one node.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Count {
    /// Those that have not ended.
    pub(super) live: usize,
    /// Those of them that are there to stay. What an update or a drain will replace does not
    /// count: the tasks that come in its place would otherwise avoid a node which is empty a
    /// moment later.
    pub(super) stays: usize,
    /// Those made from the same specification that failed lately.
    pub(super) failures: usize,
}

/// Counts the tasks of the service that `like` belongs to, by node.
pub(super) fn census<'a>(
    state: &'a State,
    now: Timestamp,
    like: &Task,
) -> BTreeMap<&'a NodeId, Count> {
    let service = state.service(&like.service);
    let mut counts: BTreeMap<&NodeId, Count> = BTreeMap::new();
    for task in state.tasks_of(&like.service) {
        let Some(node) = &task.node else { continue };
        let failed = is_recent_failure(task, like.spec_version, now);
        if !task.is_live() && !failed {
            continue;
        }
        let outdated = service.is_some_and(|service| service.is_outdated(task));
        let stays =
            task.is_live() && task.is_member() && !outdated && !slot::is_displaced(state, task);
        let count = counts.entry(node).or_default();
        count.live += usize::from(task.is_live());
        count.stays += usize::from(stays);
        count.failures += usize::from(failed);
    }
    counts
}

/// Whether a task counts against its node: it failed lately, and was made from the specification
/// of that version.
pub(crate) fn is_recent_failure(task: &Task, version: Version, now: Timestamp) -> bool {
    matches!(task.status.state, TaskState::Failed | TaskState::Rejected)
        && task.spec_version == version
        && now.since(task.status.at) < FAULT_WINDOW
}
