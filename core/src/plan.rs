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
use crate::rebalance;
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
    /// Moving tasks of a service to nodes that have fewer of them.
    Rebalance(ServiceId),
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
    let mut random = Random::for_version(seed, state.version().0);
    // Whether they would be taken is asked of the state as it is.
    let mut asked = Projection::new(state, now, seed);
    for change in changes {
        if let Some(command) = command(&asked.state, change, &mut random) {
            asked.submit(command)?;
        }
    }
    let mut before = Projection::new(state, now, seed);
    let calm = before.settle();
    let mut after = Projection::new(&before.state, before.now, seed);
    for change in changes {
        if let Some(mut command) = command(&after.state, change, &mut random) {
            see_latest(&after.state, &mut command);
            after.submit(command)?;
        }
    }
    let mut steps = compare::objects(&before.state, &after.state);
    let is_complete = after.settle() && calm;
    steps.extend(compare::tasks(&before.state, &after));
    Ok(Plan { steps, is_complete })
}

/// What makes a change; `None` where it would do nothing.
fn command(state: &State, change: &Change, random: &mut Random) -> Option<Command> {
    Some(match change.clone() {
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
        Change::Rebalance(id) => rebalance::start(state, &id)?.0,
        Change::UpdateNode { id, expected, spec } => Command::UpdateNode { id, expected, spec },
    })
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
