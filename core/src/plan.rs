//! What would happen, without anything happening.
//!
//! A change is applied to a copy of the state, and orchestrator, updater and scheduler work on
//! the copy as they work on the original, while imagined agents do at once what they are told:
//! images are there, containers start and stay healthy. So the answer is that of the deciders
//! themselves, and only the failures of the real world are missing from it. Which of several
//! nodes that are otherwise equal gets a task is left to chance there as well as here.
//!
//! What was under way before is let to finish first: a plan shows what the change does, and
//! not what would have happened anyway.

mod compare;
mod projection;
#[cfg(test)]
mod tests;

use crate::apply::Rejection;
use crate::command::Command;
use crate::model::{NodeId, NodeSpec, ServiceId, ServiceSpec, Timestamp, Version};
use crate::random::Random;
use crate::state::State;

use projection::Projection;

/// What somebody thinks of doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Creating a service.
    CreateService(Box<ServiceSpec>),
    /// Giving a service another specification.
    UpdateService {
        /// Which.
        id: ServiceId,
        /// The version that was seen of it.
        expected: Version,
        /// The new specification, whole.
        spec: Box<ServiceSpec>,
    },
    /// Going back to the last specification whose deployment completed.
    RollbackService {
        /// Which.
        id: ServiceId,
        /// The version that was seen of it.
        expected: Version,
    },
    /// Changing what is wanted of a node.
    UpdateNode {
        /// Which.
        id: NodeId,
        /// The version that was seen of it.
        expected: Version,
        /// The new wish.
        spec: NodeSpec,
    },
}

/// What the changes would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The changes themselves, then tasks by service and slot. Empty where all is as asked for
    /// already.
    pub steps: Vec<Step>,
    /// Whether it was seen to its end; if not, more would follow than is listed.
    pub is_complete: bool,
}

/// One thing that would happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What.
    pub action: Action,
    /// With what.
    pub object: Object,
    /// Where a task is before.
    pub from: Option<NodeId>,
    /// Where a task is afterwards.
    pub to: Option<NodeId>,
    /// Why a task would wait.
    pub reason: Option<String>,
}

/// What would happen to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It comes into being.
    Create,
    /// It gets another specification.
    Update,
    /// A task makes room for one of another version in its slot.
    Replace,
    /// A task makes room for an equal one on another node.
    Move,
    /// A task stops and is not replaced.
    Stop,
    /// A task finds no node.
    Wait,
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Replace => "replace",
            Self::Move => "move",
            Self::Stop => "stop",
            Self::Wait => "wait",
        })
    }
}

/// What something would happen to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// A service, by name.
    Service(String),
    /// A node.
    Node(NodeId),
    /// A task, as tables name it: `service.slot`.
    Task(String),
}

/// Works out what changes would do, one after the other.
///
/// # Errors
/// One of them would be refused, for this reason.
pub fn plan(
    state: &State,
    changes: &[Change],
    now: Timestamp,
    seed: u64,
) -> Result<Plan, Rejection> {
    // Whether they would be taken is asked of the state as it is.
    let mut asked = Projection::new(state, now, seed);
    for command in commands(state, changes, seed) {
        asked.submit(command)?;
    }
    let mut before = Projection::new(state, now, seed);
    let calm = before.settle();
    let mut after = Projection::new(&before.state, before.now, seed);
    for mut command in commands(state, changes, seed) {
        see_latest(&after.state, &mut command);
        after.submit(command)?;
    }
    let steps_of_changes = compare::objects(&before.state, &after.state);
    let is_complete = after.settle() && calm;
    let mut steps = steps_of_changes;
    steps.extend(compare::tasks(&before.state, &after));
    Ok(Plan { steps, is_complete })
}

fn commands(state: &State, changes: &[Change], seed: u64) -> Vec<Command> {
    let mut random = Random::for_version(seed, state.version().0);
    let command = |change: &Change| match change.clone() {
        Change::CreateService(spec) => Command::CreateService {
            id: ServiceId::from_random(random.next_u128()),
            spec,
        },
        Change::UpdateService { id, expected, spec } => {
            Command::UpdateService { id, expected, spec }
        }
        Change::RollbackService { id, expected } => Command::RollbackService {
            id,
            expected,
            message: "planned".to_owned(),
        },
        Change::UpdateNode { id, expected, spec } => Command::UpdateNode { id, expected, spec },
    };
    changes.iter().map(command).collect()
}

/// What was under way may have changed an object since; that is no reason to refuse.
fn see_latest(state: &State, command: &mut Command) {
    match command {
        Command::UpdateService { id, expected, .. }
        | Command::RollbackService { id, expected, .. } => {
            if let Some(service) = state.service(id) {
                *expected = service.version;
            }
        }
        Command::UpdateNode { id, expected, .. } => {
            if let Some(node) = state.node(id) {
                *expected = node.version;
            }
        }
        _ => {}
    }
}
