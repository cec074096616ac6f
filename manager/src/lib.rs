//! The control plane of swarmlet: what runs on a node that is a manager.
//!
//! A [`Manager`] is put together of these parts, and its `routes` are served on the cluster
//! port by whoever runs it:
//!
//! - [`raft`], the replicated state;
//! - `leader`, the loop that turns the state into decisions, on one manager at a time;
//! - `dispatcher`, which brings assignments and endpoint tables to agents and takes their
//!   reports;
//! - `ca`, which lets nodes in and signs their certificates;
//! - `control`, what the command line asks;
//! - `logs`, what containers have written, brought together from the agents;
//! - `peer`, what managers tell each other;
//! - `access`, who may call what, and `forward`, which sends calls on to the leader once `request`
//!   has read them. They lie in front of all services.
//!
//! Start reading at [`Manager`] (`manager.rs`), then `access.rs`, then `leader/mod.rs`.
//!
//! This crate must not know how containers run, how connections are balanced or what a
//! command line looks like, and it decides nothing by itself: decisions are functions of
//! `swarmlet-core`, called with the state and the time.

mod access;
mod ca;
mod control;
mod dialer;
mod dispatcher;
mod error;
mod forward;
mod leader;
mod logs;
mod manager;
mod managers;
mod membership;
mod news;
mod peer;
mod propose;
pub mod raft;
mod random;
mod recovery;
mod request;
mod revocation;
mod roles;
mod status;

pub use ca::CaError;
pub use error::ManagerError;
pub use manager::{Manager, ManagerConfig};
pub use membership::BootstrapRequest;
pub use random::NoRandomness;
pub use recovery::NotAlone;

use swarmlet_proto::clock;
