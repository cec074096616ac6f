//! What must hold after every step, whatever happened before it.
//!
//! Tests check it after each apply, and so may a manager in a debug build. A violation is a
//! bug in this crate, never a user's mistake.

mod converged;
mod state;
mod step;
#[cfg(test)]
mod tests;
mod update;

use crate::state::State;

pub use converged::check_converged;

/// A rule that was broken, with the objects concerned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(pub String);

/// Checks a state by itself.
///
/// # Errors
/// The first rule found broken.
pub fn check(state: &State) -> Result<(), Violation> {
    state::cluster(state)?;
    state::services(state)?;
    state::tasks(state)?;
    state::slots(state)?;
    state::nodes(state)
}

/// Checks what one log entry did to the state.
///
/// # Errors
/// The first rule found broken.
pub fn check_step(before: &State, after: &State) -> Result<(), Violation> {
    step::versions(before, after)?;
    step::cluster(before, after)?;
    step::services(before, after)?;
    step::tasks(before, after)?;
    update::steps(before, after)?;
    step::capacity(before, after)?;
    step::per_node(before, after)
}

fn ensure(holds: bool, message: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds {
        Ok(())
    } else {
        Err(Violation(message()))
    }
}
