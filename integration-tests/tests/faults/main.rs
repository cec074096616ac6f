//! Faults and their bounds, on three hosts with real engines. Needs root.
//!
//! Each test breaks one thing under load, measures how long its effect lasts, prints it, and
//! fails where the bound is missed. All share three hosts, one test at a time.

// Helpers of tests are no tests by clippy's rules; a panic here is a failed test all the same.
#![allow(clippy::unwrap_used)]

#[expect(dead_code, reason = "another binary's tests use the rest of it")]
#[path = "../cluster/cluster.rs"]
mod cluster;

mod alone;
mod balancer;
mod clocks;
mod closed_port;
mod containers;
mod daemon;
mod disks;
mod engine;
mod explained;
mod headless;
mod history;
mod hosts;
mod limits;
mod loss;
mod networks;
mod one_way;
mod paused;
mod probe;
mod quorum;
mod registry;
mod siege;
mod workers;
mod writes;
