//! Values of flags, from text: each parser says in Docker's words what it did not like.

mod amount;
mod environment;
mod moment;
mod mount;
mod placement;
mod port;
mod span;

pub(crate) use amount::{memory, nano_cpus};
pub(crate) use environment::{env_file, env_variable, key_value};
pub(crate) use moment::{Tail, moment, tail};
pub(crate) use mount::mount;
pub(crate) use placement::{generic_resource, platform};
pub(crate) use port::port;
pub(crate) use span::{duration, shown_duration};
