//! Published ports.

use std::fmt;

use serde::Serialize;

use super::network::Network;

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

/// How the balancer tells a task whose connection it is: the PROXY protocol, a header ahead of
/// the client's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyProtocol {
    /// Version 1, a line of text.
    V1,
    /// Version 2, binary.
    V2,
}

impl fmt::Display for ProxyProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        })
    }
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
    /// Whether and how the balancer tells tasks whose connection it is. A task is told what was
    /// asked for when it was made, so that an update can change this and the image together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Clients from these networks must say whose connection it is, by the PROXY protocol; a
    /// header from anybody else is what the client sends.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub accept_proxy: Vec<Network>,
}

impl PortSpec {
    /// Whether a task that has this port need not be replaced by one that has the other: all but
    /// what the balancer believes of clients is the same.
    #[must_use]
    pub fn is_same_to_tasks(&self, other: &Self) -> bool {
        let Self {
            target,
            published,
            protocol,
            mode,
            proxy_protocol,
            accept_proxy: _,
        } = self;
        (target, published, protocol, mode, proxy_protocol)
            == (
                &other.target,
                &other.published,
                &other.protocol,
                &other.mode,
                &other.proxy_protocol,
            )
    }
}
