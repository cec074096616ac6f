//! What the balancer reports: acknowledgements and the state of everything.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Every new connection is chosen by this table now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// Version of the table in force.
    pub version: u64,
    /// Ports that this node does not answer on, and why. They are tried again
    /// about once a second.
    pub port_errors: Vec<PortError>,
}

/// A published port that is not, or not on every address, bound.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortError {
    /// The port.
    pub port: u16,
    /// Which address failed, and with which error.
    pub reason: String,
}

/// The state of the whole balancer. Counters start at 0 with the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the table in force, 0 before the first.
    pub table_version: u64,
    /// Process id of the balancer.
    pub pid: u32,
    /// When it started, in milliseconds since the Unix epoch.
    pub started_at_ms: u64,
    /// It no longer listens and ends once its connections have.
    pub shutting_down: bool,
    /// Published ports, in ascending order.
    pub listeners: Vec<ListenerStatus>,
    /// Endpoints that are in no table any more but still have connections.
    pub removed: Vec<RemovedEndpoint>,
}

/// One published port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// The port.
    pub port: u16,
    /// Label from the table.
    pub service: String,
    /// Addresses on which it answers.
    pub bound: Vec<SocketAddr>,
    /// Why it does not answer on the others.
    pub error: Option<String>,
    /// Connections accepted so far.
    pub accepted: u64,
    /// Of those, reset because no endpoint could be connected to.
    pub unserved: u64,
    /// What went through, endpoints that are gone included.
    pub traffic: Traffic,
    /// Endpoints of the table in force.
    pub endpoints: Vec<EndpointStatus>,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// Label from the table.
    pub id: String,
    /// Where connections go.
    pub address: SocketAddr,
    /// Share of the connections.
    pub weight: u32,
    /// What the table and this balancer's own experience come to.
    pub condition: EndpointCondition,
    /// What went through.
    pub traffic: Traffic,
}

/// Whether an endpoint gets connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointCondition {
    /// It does.
    Ready,
    /// The table says that it gets no new ones.
    Draining,
    /// Ready in the table, but it did not answer; probed until it does.
    Ejected,
}

/// Counters of a port or an endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Connections now, those still being connected included.
    pub active: u64,
    /// Connections made so far.
    pub connections: u64,
    /// Connects that failed so far; each may have been made good elsewhere.
    pub connect_failures: u64,
    /// Bytes forwarded from clients to endpoints.
    pub bytes_to_endpoint: u64,
    /// Bytes forwarded from endpoints to clients.
    pub bytes_to_client: u64,
}

/// An endpoint that is in no table any more but still has connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedEndpoint {
    /// The port through which its connections came.
    pub port: u16,
    /// Label from its last table.
    pub id: String,
    /// Where its connections go.
    pub address: SocketAddr,
    /// Connections it still has.
    pub active: u64,
}
