//! Published ports.

use std::fmt;

use serde::Serialize;

/// Transport protocol of a port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Transmission Control Protocol.
    #[default]
    Tcp,
    /// User Datagram Protocol; published on the task's own host only (`mode=host`).
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// Where a port is published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PortMode {
    /// On every node, balanced over all tasks of the service.
    #[default]
    Ingress,
    /// On the task's own node, without the balancer.
    Host,
}

/// A port that a service publishes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PortSpec {
    /// The port inside the container.
    #[serde(rename = "TargetPort")]
    pub target: u16,
    /// The port that clients use. Zero means: ingress, a free one of 30000-32767 (filled in
    /// when the service is created, and never zero in the state); host, one of the agent's
    /// own range.
    #[serde(rename = "PublishedPort")]
    pub published: u16,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Where it is published.
    #[serde(rename = "PublishMode")]
    pub mode: PortMode,
}
