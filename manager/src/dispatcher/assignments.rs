//! What a node should have, as one complete set and then as differences to what it was sent.

use std::collections::BTreeMap;

use swarmlet_core::model::{Draining, NodeId, RestartHistory, Task, TaskId, TaskState};
use swarmlet_core::state::State;
use swarmlet_proto::v1;

/// Changes of one message at most, as Docker Swarm's.
const MAX_CHANGES: usize = 100;

/// What a node has been sent.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    tasks: BTreeMap<TaskId, Key>,
}

/// The part of a task that the managers write. The rest is fixed when the task is made or
/// comes from the agent itself, to whom it need not be sent back.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    desired: TaskState,
    restart: RestartHistory,
    draining: Option<Draining>,
}

impl Key {
    fn of(task: &Task) -> Self {
        Self {
            desired: task.desired,
            restart: task.restart,
            draining: task.draining,
        }
    }
}

impl Sent {
    /// Everything that a node should have; starts over.
    pub(crate) fn complete(&mut self, state: &State, node: &NodeId) -> v1::Assignments {
        self.tasks = assigned(state, node)
            .map(|task| (task.id.clone(), Key::of(task)))
            .collect();
        v1::Assignments {
            version: state.version().0,
            complete: true,
            update: assigned(state, node).map(v1::Task::from).collect(),
            remove: Vec::new(),
        }
    }

    /// What has changed since, in messages of a bounded size; none where nothing has.
    pub(crate) fn changes(&mut self, state: &State, node: &NodeId) -> Vec<v1::Assignments> {
        let mut changes = Vec::new();
        let mut now = BTreeMap::new();
        for task in assigned(state, node) {
            let key = Key::of(task);
            if self.tasks.get(&task.id) != Some(&key) {
                changes.push(Change::Update(Box::new(task.into())));
            }
            now.insert(task.id.clone(), key);
        }
        let gone = self.tasks.keys().filter(|id| !now.contains_key(*id));
        changes.extend(gone.map(|id| Change::Remove(id.to_string())));
        self.tasks = now;

        let mut messages = Vec::new();
        let mut changes = changes.into_iter().peekable();
        while changes.peek().is_some() {
            let mut message = v1::Assignments {
                version: state.version().0,
                ..v1::Assignments::default()
            };
            for change in changes.by_ref().take(MAX_CHANGES) {
                match change {
                    Change::Update(task) => message.update.push(*task),
                    Change::Remove(id) => message.remove.push(id),
                }
            }
            messages.push(message);
        }
        messages
    }
}

enum Change {
    Update(Box<v1::Task>),
    Remove(String),
}

fn assigned<'a>(state: &'a State, node: &NodeId) -> impl Iterator<Item = &'a Task> {
    state
        .tasks_on(node)
        .filter(|task| task.desired != TaskState::New)
}
