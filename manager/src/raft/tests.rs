//! Managers in one process, over real gRPC and a network that can be cut.

pub(super) mod cluster;
pub(super) mod commands;
mod elections;
mod faults;
pub(super) mod network;
mod single;
pub(super) mod slow;
mod voters;
