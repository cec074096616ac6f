//! Who answers on a published port: the table that every balancer works by.
//!
//! It is derived from the tasks and stored nowhere, so it can never disagree with them. Its
//! version is the Raft index of the state that it was derived from.

use std::net::SocketAddr;

use crate::model::{LbPolicy, NodeId, Protocol, ServiceId, TaskId, Version};

/// All published ports of the cluster with their endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// Index of the state that it was derived from.
    pub version: Version,
    /// One for each published port, by port.
    pub listeners: Vec<Listener>,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The port that clients use.
    pub port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
    /// The service behind it.
    pub service: ServiceId,
    /// Its name.
    pub service_name: String,
    /// How an endpoint is chosen.
    pub policy: LbPolicy,
    /// The tasks behind it, by task.
    pub endpoints: Vec<Endpoint>,
}

/// A task behind a published port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The task.
    pub task: TaskId,
    /// Its node.
    pub node: NodeId,
    /// The node's address and the task's port there: the way from other nodes.
    pub address: SocketAddr,
    /// The container's own address and port: the way on its own node, where there is one.
    /// There the engine's port proxy would accept even if nothing listened behind it.
    pub local: Option<SocketAddr>,
    /// Its share of connections relative to the others'.
    pub weight: u32,
    /// Whether it gets new connections.
    pub state: EndpointState,
}

/// Whether an endpoint gets new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointState {
    /// It does.
    Ready,
    /// It finishes those it has.
    Draining,
}
