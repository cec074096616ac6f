//! What the balancer is told: published ports and the endpoints behind them.
//!
//! A table is always complete. Differences are found here, on the receiving
//! side, so that a lost or repeated message can never leave half a change.

use std::{collections::HashSet, net::SocketAddr};

use serde::{Deserialize, Serialize};

use crate::{network::Network, proxy};

/// A complete description of what to forward.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Grows with every change; a table older than the one in force is refused.
    /// The same version may come again with other contents: addresses that only
    /// this node knows can change without the cluster's state changing.
    pub version: u64,
    /// One entry for each published port.
    pub listeners: Vec<Listener>,
    /// Hosts that several endpoints may share. Each is asked whether it is there,
    /// and takes its endpoints with it when it is not.
    #[serde(default)]
    pub hosts: Vec<Host>,
}

/// A host that endpoints are on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// What endpoints name it by.
    pub id: String,
    /// Where it is asked whether it is there: by a connect, about twice a second.
    /// A refusal is an answer, too.
    pub probe: SocketAddr,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// TCP port on which this node answers; never 0.
    pub port: u16,
    /// Label for reports: whose port it is.
    pub service: String,
    /// How an endpoint is chosen for each connection.
    #[serde(default)]
    pub policy: Policy,
    /// Whether local endpoints come first, as long as they do not have clearly
    /// more connections than the others.
    #[serde(default)]
    pub prefer_local: bool,
    /// Clients from these networks must say, by a PROXY header, whose connection
    /// it is. A header from anybody else is a part of what the client sends.
    #[serde(default)]
    pub accept_proxy: Vec<Network>,
    /// Where connections go. An empty list keeps the port open and resets
    /// every connection.
    pub endpoints: Vec<Endpoint>,
}

/// How an endpoint is chosen for each connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Policy {
    /// Each in turn, exactly, across all threads and in proportion to weight.
    #[default]
    RoundRobin,
    /// Of two at random the one with fewer connections, in proportion to weight.
    LeastConn,
    /// The same endpoint for the same source address, on every node, while the
    /// endpoint is there.
    SourceHash,
}

/// One place that connections can be forwarded to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Label for reports, unique within its listener: the task's id.
    pub id: String,
    /// Where to connect.
    pub address: SocketAddr,
    /// Share of the connections relative to the others; at least 1.
    #[serde(default = "one")]
    pub weight: u32,
    /// It is on this machine.
    #[serde(default)]
    pub local: bool,
    /// It is told whose connection it is, by a PROXY header of this version.
    #[serde(default)]
    pub proxy_protocol: Option<proxy::Version>,
    /// Whether new connections may go there.
    pub state: EndpointState,
    /// Which of the table's hosts it is on, where that is to be watched.
    #[serde(default)]
    pub host: Option<String>,
}

/// Whether new connections may go to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointState {
    /// It takes new connections.
    Ready,
    /// It keeps those it has and is never chosen again.
    Draining,
}

/// Why a table cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Port 0 would mean any port.
    #[error("service {service}: port 0 cannot be published, choose one from 1 to 65535")]
    PortZero {
        /// The listener's service.
        service: String,
    },
    /// Two listeners want one port.
    #[error("port {port} is listed twice, for service {first} and for service {second}")]
    DuplicatePort {
        /// The port.
        port: u16,
        /// Service of the earlier listener.
        first: String,
        /// Service of the later listener.
        second: String,
    },
    /// An endpoint of weight 0 would never be chosen.
    #[error(
        "port {port}: endpoint {id} has weight 0, give it 1 or more, or leave it out or drain it"
    )]
    WeightZero {
        /// The listener's port.
        port: u16,
        /// The endpoint.
        id: String,
    },
    /// Nothing can be connected to on port 0.
    #[error("port {port}: endpoint {id} has address {address}, whose port is 0")]
    AddressWithoutPort {
        /// The listener's port.
        port: u16,
        /// The endpoint.
        id: String,
        /// Its address.
        address: SocketAddr,
    },
    /// Nothing is known of the host that an endpoint names.
    #[error("port {port}: endpoint {id} is on host {host}, which the table does not list")]
    UnknownHost {
        /// The listener's port.
        port: u16,
        /// The endpoint.
        id: String,
        /// Its host.
        host: String,
    },
    /// Two hosts have the same id.
    #[error("host {id} is listed twice")]
    DuplicateHost {
        /// The host.
        id: String,
    },
    /// Two endpoints of one listener have the same id.
    #[error("port {port}: endpoint {id} is listed twice")]
    DuplicateEndpoint {
        /// The listener's port.
        port: u16,
        /// The endpoint.
        id: String,
    },
}

impl Table {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    ///
    /// The first flaw found; see [`TableError`].
    pub fn validate(&self) -> Result<(), TableError> {
        let mut hosts = HashSet::new();
        for host in &self.hosts {
            if !hosts.insert(host.id.as_str()) {
                let id = host.id.clone();
                return Err(TableError::DuplicateHost { id });
            }
        }
        let mut ports = std::collections::HashMap::new();
        for listener in &self.listeners {
            if listener.port == 0 {
                return Err(TableError::PortZero {
                    service: listener.service.clone(),
                });
            }
            if let Some(first) = ports.insert(listener.port, &listener.service) {
                return Err(TableError::DuplicatePort {
                    port: listener.port,
                    first: first.clone(),
                    second: listener.service.clone(),
                });
            }
            listener.validate(&hosts)?;
        }
        Ok(())
    }
}

impl Listener {
    fn validate(&self, hosts: &HashSet<&str>) -> Result<(), TableError> {
        let port = self.port;
        let mut ids = HashSet::new();
        for endpoint in &self.endpoints {
            let id = endpoint.id.clone();
            if endpoint.weight == 0 {
                return Err(TableError::WeightZero { port, id });
            }
            if endpoint.address.port() == 0 {
                return Err(TableError::AddressWithoutPort {
                    port,
                    id,
                    address: endpoint.address,
                });
            }
            if let Some(host) = &endpoint.host
                && !hosts.contains(host.as_str())
            {
                let host = host.clone();
                return Err(TableError::UnknownHost { port, id, host });
            }
            if !ids.insert(&endpoint.id) {
                return Err(TableError::DuplicateEndpoint { port, id });
            }
        }
        Ok(())
    }
}

fn one() -> u32 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(id: &str, address: &str, weight: u32) -> Endpoint {
        Endpoint {
            id: id.to_owned(),
            address: address.parse().unwrap(),
            weight,
            local: false,
            proxy_protocol: None,
            state: EndpointState::Ready,
            host: None,
        }
    }

    fn host(id: &str) -> Host {
        Host {
            id: id.to_owned(),
            probe: "10.0.0.1:2378".parse().unwrap(),
        }
    }

    fn on(host: &str, id: &str) -> Endpoint {
        Endpoint {
            host: Some(host.to_owned()),
            ..endpoint(id, "[::1]:20000", 3)
        }
    }

    fn listener(port: u16, service: &str, endpoints: Vec<Endpoint>) -> Listener {
        Listener {
            port,
            service: service.to_owned(),
            policy: Policy::RoundRobin,
            prefer_local: false,
            accept_proxy: Vec::new(),
            endpoints,
        }
    }

    #[track_caller]
    fn check(listeners: Vec<Listener>, expected: Result<(), &str>) {
        let table = Table {
            version: 1,
            listeners,
            hosts: vec![host("h")],
        };
        let found = table.validate().map_err(|error| error.to_string());
        assert_eq!(
            found.as_ref().map_err(String::as_str),
            expected.as_ref().map_err(|text| *text)
        );
    }

    #[test]
    fn flaws_are_named() {
        let good = || endpoint("a", "10.0.0.1:20000", 1);
        check(vec![], Ok(()));
        check(
            vec![listener(80, "ng", vec![]), listener(81, "ng", vec![good()])],
            Ok(()),
        );
        check(
            vec![listener(0, "ng", vec![])],
            Err("service ng: port 0 cannot be published, choose one from 1 to 65535"),
        );
        check(
            vec![listener(80, "ng", vec![]), listener(80, "api", vec![])],
            Err("port 80 is listed twice, for service ng and for service api"),
        );
        check(
            vec![listener(80, "ng", vec![endpoint("a", "10.0.0.1:1", 0)])],
            Err("port 80: endpoint a has weight 0, give it 1 or more, or leave it out or drain it"),
        );
        check(
            vec![listener(80, "ng", vec![endpoint("a", "10.0.0.1:0", 1)])],
            Err("port 80: endpoint a has address 10.0.0.1:0, whose port is 0"),
        );
        check(
            vec![listener(80, "ng", vec![good(), good()])],
            Err("port 80: endpoint a is listed twice"),
        );
        check(vec![listener(80, "ng", vec![on("h", "a")])], Ok(()));
        check(
            vec![listener(80, "ng", vec![on("x", "a")])],
            Err("port 80: endpoint a is on host x, which the table does not list"),
        );
        let twice = Table {
            hosts: vec![host("h"), host("h")],
            ..Table::default()
        };
        let error = twice.validate().unwrap_err();
        assert_eq!(error.to_string(), "host h is listed twice");
    }

    #[test]
    fn a_table_survives_its_wire_format() {
        let table = Table {
            version: u64::MAX,
            listeners: vec![listener(80, "ng", vec![on("h", "a")])],
            hosts: vec![host("h")],
        };
        let json = serde_json::to_string(&table).unwrap();
        assert_eq!(serde_json::from_str::<Table>(&json).unwrap(), table);
    }
}
