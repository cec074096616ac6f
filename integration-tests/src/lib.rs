//! Hosts for tests: several Linux hosts on one machine, each with a network
//! of its own, a containerd, a dockerd and, once a test starts it, a swarmlet.
//!
//! A host is a set of kernel namespaces that a process holds open
//! ([`Namespace`]); hosts hang on a bridge in a namespace of its own and have
//! the addresses 10.99.0.1, .2, .3 … Nothing of it has a name that is visible
//! outside, so any number of test runs can be at work on one machine.
//! Whatever happens to the test, nothing stays behind: see [`cleanup`].
//!
//! This crate must not know how swarmlet works inside. It starts the binary,
//! types what a user types, and looks at what a client sees.
//!
//! Start reading at [`Hosts`], then [`Host`]; `tests/harness.rs` shows all of
//! it in use without swarmlet.

pub mod bench;
mod binary;
pub mod cleanup;
mod command;
mod contention;
mod dns;
mod engine;
mod host;
mod hosts;
mod image;
mod load;
mod load_report;
mod loopback;
pub mod measured;
mod namespace;
mod process;
mod registry;
mod request;
mod run;
mod wait;

pub use binary::{sibling_binary, swarmlet_binary};
pub use command::Output;
pub use dns::NameServer;
pub use engine::Engine;
pub use host::Host;
pub use hosts::{Hosts, SharedHosts};
pub use image::{Image, WHOAMI_CHECK};
pub use load::{Load, RunningLoad};
pub use load_report::LoadReport;
pub use loopback::Loopback;
pub use namespace::Namespace;
pub use process::{Process, processes};
pub use registry::{Asked, Registry};
pub use rustix::process::{Pid, Signal};
pub use wait::wait_until;
