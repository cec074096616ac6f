//! Decisions about reading logs: whose, in which order, and what is missing.
//!
//! What containers have written stays on their nodes. A manager that is asked for it asks the
//! nodes ([`plan`]), and puts what they bring into the order of time ([`Merge`]); nodes do the
//! latter for their own containers.

mod merge;
mod plan;

pub use merge::{Merge, Next, Patience};
pub use plan::{Missing, Plan, Readable, Target, plan};
