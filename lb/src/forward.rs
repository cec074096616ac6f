//! The data path: accept, connect, relay, and the probes of what did not
//! connect. It asks `port` for choices and tells it outcomes; of tables,
//! versions and the control socket it knows nothing, so another engine can take
//! its place.
//!
//! Sockets are made so that closing one without further ado resets it. Only the
//! one path on which both directions have ended in order asks for a clean
//! close. A panic, a cancelled task, a killed process: all of them reset, and
//! none can pass for the end of the data.

mod accept;
mod connect;
mod probe;
mod relay;
pub(crate) mod socket;

pub(crate) use accept::AcceptLoop;
