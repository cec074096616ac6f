//! The data plane: a layer-4 TCP balancer that answers on every published
//! port of a node and forwards each connection to one of the port's endpoints.
//!
//! It runs as a process of its own beside the daemon and goes on forwarding
//! while the daemon is restarted, upgraded or dead. The daemon tells it what to
//! do over a Unix socket, in whole versioned tables; the balancer acknowledges
//! a table once every new connection is chosen by it, and reports what it sees.
//!
//! What this crate must not know: services, tasks, nodes, Raft, Docker. A table
//! names ports and addresses and nothing else; the identifiers and service
//! names in it are labels that come back in reports. No other crate of
//! swarmlet is used here, so the balancer can be run by itself.
//!
//! Where to start reading:
//!
//! * [`table`]: what the balancer is told;
//! * `select` and `health`: pure decisions, which endpoint is next and which
//!   one is left out;
//! * `port`: one published port, where the decisions meet the counters;
//! * `balancer`: the one owner of tables and listeners;
//! * `connection`: one forwarded connection as a pure state machine;
//! * `engine`: the data path, threads that run these machines on real sockets;
//!   an engine can be replaced by another without touching the rest;
//! * `syscall`: the engine's system calls, which tests make fail;
//! * [`proxy`]: the PROXY protocol, which says whose connection it is;
//! * `budget` and `sources`: what all connections together, and those of one
//!   source, may take;
//! * [`access`]: the access log;
//! * `probe`: asks endpoints that did not answer whether they do again;
//! * `host`: asks the hosts of endpoints whether they are there;
//! * [`control`]: the socket, its wire format, and the client the daemon uses;
//! * [`settings`]: what can be changed of all this while it runs;
//! * [`metrics`] and [`pages`]: the page for Prometheus, and who serves it;
//! * [`run`]: how all of it starts and ends;
//! * [`standalone`]: the same without a daemon, by a configuration file.
//!
//! Invariants:
//!
//! * Bytes arrive equal to the last one, or the connection is reset: an
//!   abnormal end is never a FIN.
//! * No byte of a client but a PROXY header is consumed before an endpoint is connected, so a
//!   failed connect moves to another endpoint unseen.
//! * After an acknowledgement no connection begins towards an endpoint that
//!   the acknowledged table does not call ready.

// The tests in here share their means with those in `tests`.
#[cfg(test)]
extern crate self as swarmlet_lb;

pub mod access;
mod balancer;
mod bind;
mod budget;
mod clock;
mod connection;
pub mod control;
mod engine;
mod event;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod health;
mod host;
pub mod metrics;
pub mod network;
pub mod pages;
mod port;
mod probe;
pub mod proxy;
mod random;
pub mod run;
mod select;
pub mod settings;
mod shared;
mod socket;
mod sources;
pub mod standalone;
pub mod status;
mod syscall;
pub mod table;

pub use event::Event;
pub use run::{Config, Error, Timeouts, run};
pub use settings::Settings;
pub use sources::SourceLimits;
