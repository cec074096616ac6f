//! The model of a swarmlet cluster and every decision about it.
//!
//! Core decides, shell acts: each function here takes the state, the time and a seed as
//! arguments and returns commands. There is no clock, random source, lock, socket or thread
//! in this crate, and it knows neither protobuf nor Raft, so that every bug in a decision is
//! a unit test of a few lines.
//!
//! Start reading at [`model`] (the nouns), then [`command`] (the verbs), [`apply`] (what a
//! verb does to the [`state`]), and then the deciders: [`orchestrator`] (which tasks there
//! should be, and with its `updater` in which order they are replaced), [`scheduler`] (where they go), [`drain`] (when they may stop), [`rebalance`] (which of them move), [`liveness`]
//! (which nodes are there) and [`endpoints`] (who answers on a published port).
//! [`plan`](plan::plan) runs them all on a copy, for whoever wants to know before; [`reason`] says
//! why a decision about a task was taken, [`recovery`] what is left once most managers are lost, and [`logs`] whose logs there are to read and in which
//! order. [`next_deadline`] says when they are to be asked again although nothing has happened, and
//! [`invariants`] what must hold after every step.

// Fixtures that the tests outside share name the crate as those do.
#[cfg(test)]
extern crate self as swarmlet_core;

pub mod apply;
pub mod check;
pub mod command;
mod deadline;
pub mod diagnosis;
pub mod drain;
pub mod endpoints;
pub mod event;
pub mod invariants;
pub mod liveness;
pub mod logs;
pub mod model;
pub mod moment;
pub mod orchestrator;
pub mod plan;
pub mod random;
pub mod reason;
pub mod rebalance;
pub mod recovery;
pub mod scheduler;
pub mod schema;
pub mod state;
#[cfg(test)]
mod testing;
mod updater;

pub use deadline::next_deadline;
