//! When decisions are to be made again although nothing has happened.

use crate::model::{TaskState, Timestamp};
use crate::state::State;
use crate::{drain, liveness, updater};

/// The next moment after `now` at which a decision may change by time alone: the end of a
/// back-off, of a drain, of the wait for a node that is unknown, of a step of an update. `None` where only an event
/// can change anything.
///
/// Ages of heartbeats are not in the state, so the shell asks
/// [`liveness::judge`] by a timer of its own, too.
#[must_use]
pub fn next_deadline(state: &State, now: Timestamp) -> Option<Timestamp> {
    let starts = state
        .tasks()
        .filter(|task| task.desired < TaskState::Running && task.is_live())
        .map(|task| task.restart.not_before);
    starts
        .chain(drain::deadlines(state))
        .chain(liveness::deadlines(state))
        .chain(updater::deadlines(state))
        .filter(|&deadline| deadline > now)
        .min()
}

#[cfg(test)]
mod tests;
