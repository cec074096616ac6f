//! The control plane of swarmlet.

pub mod raft;
