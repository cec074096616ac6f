//! Clusters in one process: real managers over real TLS on loopback, with agents that only
//! pretend to run something.

// The harness is test code as much as the tests are.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod access;
mod agent;
mod expired;
mod failover;
mod harness;
mod joining;
mod logs;
mod problems;
mod services;
