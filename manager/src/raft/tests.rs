//! Managers in one process, over real gRPC and a network that can be cut.

mod cluster;
pub(super) mod commands;
mod elections;
mod faults;
mod network;
mod single;
mod voters;
