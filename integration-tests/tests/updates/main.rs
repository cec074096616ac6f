//! Updates, placement and health as Docker Swarm's users know them, on three hosts with real
//! engines, and that none of it loses a connection. Needs root.
//!
//! The behaviour checks that a test cites are those of Docker Swarm that swarmlet keeps; the others
//! of them are in `tests/cluster`, `tests/faults` and `tests/six_nodes.rs`, and as scenarios without
//! hosts in core.

// Helpers of tests are no tests by clippy's rules; a panic here is a failed test all the same.
#![allow(clippy::unwrap_used)]

#[path = "../cluster/checked.rs"]
mod checked;
#[expect(dead_code, reason = "another binary's tests use the rest of it")]
#[path = "../cluster/cluster.rs"]
mod cluster;

mod failures;
mod grace;
mod health;
mod images;
mod no_connection_lost;
mod placement;
mod ports;
mod restart;
mod traffic;
