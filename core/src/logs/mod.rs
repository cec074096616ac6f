//! Decisions about reading logs: whose, in which order, and what is missing.
//!
//! What containers have written stays on their nodes. A manager that is asked for it asks the
//! nodes ([`plan`]), and puts what they bring into the order of time ([`Merge`]); nodes do the
//! latter for their own containers. [`nanoseconds`] and [`rfc3339`] are the form in which
//! engines, files and people write moments.

mod merge;
mod moment;
mod plan;

pub use merge::{Merge, Next, Patience};
pub use moment::{nanoseconds, rfc3339};
pub use plan::{Missing, Plan, Readable, Target, plan};
