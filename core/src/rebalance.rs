//! Moves tasks of a service to nodes that have fewer of them, because somebody asked for it:
//! most often after a node has joined.
//!
//! ```text
//! asked for ── marks a task ──► its replacement runs ──► it drains, stops ── marks the next …
//!                  │ no place for the replacement, or it failed
//!                  ▼
//!              the task stays, and the rebalance ends
//! ```
//!
//! A marked task is to its slot what one on a drained node is: it goes on until its replacement
//! runs, so the service never has fewer tasks than it should. So many are under way at a time
//! as an update would replace. Each move makes the service more even, and their number is
//! bounded from the beginning, so that it ends whatever happens meanwhile.

use crate::command::Command;
use crate::model::{Service, ServiceId, Task, TaskState};
use crate::orchestrator::slot::{self, Slot};
use crate::scheduler;
use crate::state::State;

/// So many times the expected number of tasks may be moved. Where a division leaves a rest, the
/// scheduler may give it to another zone than expected, and its nodes are made even after that.
const SLACK: u32 = 2;

/// What asks for a rebalance of a service, and how many of its tasks would move; `None` where
/// it is balanced as it is, or does not exist.
#[must_use]
pub fn start(state: &State, id: &ServiceId) -> Option<(Command, u32)> {
    let service = state.service(id).filter(|service| !service.removing)?;
    let moves = scheduler::moves(state, service, usize::MAX).len();
    let moves = u32::try_from(moves).unwrap_or(u32::MAX);
    let command = Command::StartRebalance {
        id: id.clone(),
        expected: service.version,
        moves: moves.saturating_mul(SLACK),
    };
    (moves > 0).then_some((command, moves))
}

/// Goes on with every rebalance that is under way.
#[must_use]
pub fn advance(state: &State) -> Vec<Command> {
    let services = state.services().filter(|service| !service.removing);
    services.flat_map(|service| one(state, service)).collect()
}

fn one(state: &State, service: &Service) -> Vec<Command> {
    let Some(rebalance) = service.rebalance else {
        return Vec::new();
    };
    let slots = slot::of(state, &service.id);
    let end = Command::EndRebalance {
        id: service.id.clone(),
    };
    if slots.values().any(is_stuck) {
        // The tasks that have not gone stay, and their replacements are withdrawn.
        return vec![end];
    }
    if slots.values().any(is_unplaced) {
        // Where its replacement goes decides what is to move next.
        return Vec::new();
    }
    let moving = state
        .tasks_of(&service.id)
        .filter(|task| task.moving && task.is_live())
        .count();
    let seats = match service.spec.update.parallelism {
        0 => usize::MAX,
        parallelism => parallelism as usize,
    };
    let most = seats
        .saturating_sub(moving)
        .min(rebalance.moves_left as usize);
    let moves = scheduler::moves(state, service, most);
    if moves.is_empty() && moving == 0 {
        return vec![end];
    }
    let mark = |task: &Task| Command::MoveTask {
        id: task.id.clone(),
        expected: task.version,
    };
    moves.into_iter().map(mark).collect()
}

/// Whether a task moves whose replacement found no node, or failed.
fn is_stuck(slot: &Slot<'_>) -> bool {
    let waits =
        |task: &&Task| task.status.state == TaskState::Pending && task.status.error.is_some();
    slot.displaced.iter().any(|task| task.moving)
        && (!slot.finished.is_empty() || slot.settled.iter().any(waits))
}

/// Whether a task moves whose replacement has no node yet.
fn is_unplaced(slot: &Slot<'_>) -> bool {
    slot.displaced.iter().any(|task| task.moving)
        && !slot.settled.iter().any(|task| task.node.is_some())
}

#[cfg(test)]
mod tests;
