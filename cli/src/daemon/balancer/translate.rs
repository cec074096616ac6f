//! Between the agent's tables and the balancer's: two crates that do not know each other.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use swarmlet_agent::{RoutedTable, SinkReport};
use swarmlet_core::model::{LbPolicy, Network, PortProblem, Protocol, ProxyProtocol, TaskId};
use swarmlet_lb::proxy;
use swarmlet_lb::status::Summary;
use swarmlet_lb::table::{Endpoint, EndpointState, Host, Listener, Policy, Table};

/// The table as the balancer takes it. It forwards TCP only; no other port gets here, because
/// none can be published through the mesh.
///
/// Other nodes are asked whether they are there at the port of their health page, by the number
/// that it has on this node. Where it is another one they refuse, which is an answer as well.
pub(super) fn table(table: &RoutedTable, http_port: u16) -> Table {
    let mut hosts = BTreeMap::new();
    let listeners = table
        .listeners
        .iter()
        .filter(|listener| listener.protocol == Protocol::Tcp)
        .map(|listener| Listener {
            port: listener.port,
            service: listener.service.clone(),
            policy: match listener.policy {
                LbPolicy::RoundRobin => Policy::RoundRobin,
                LbPolicy::LeastConn => Policy::LeastConn,
                LbPolicy::SourceHash => Policy::SourceHash,
            },
            prefer_local: listener.prefer_local,
            accept_proxy: listener.accept_proxy.iter().map(network).collect(),
            endpoints: listener
                .endpoints
                .iter()
                .map(|endpoint| Endpoint {
                    id: endpoint.task.to_string(),
                    address: endpoint.address,
                    weight: endpoint.weight,
                    host: endpoint.node.as_ref().map(|node| {
                        let probe = SocketAddr::new(endpoint.address.ip(), http_port);
                        hosts.insert(node.to_string(), probe);
                        node.to_string()
                    }),
                    local: endpoint.local,
                    proxy_protocol: endpoint.proxy_protocol.map(|version| match version {
                        ProxyProtocol::V1 => proxy::Version::V1,
                        ProxyProtocol::V2 => proxy::Version::V2,
                    }),
                    state: if endpoint.draining {
                        EndpointState::Draining
                    } else {
                        EndpointState::Ready
                    },
                })
                .collect(),
        })
        .collect();
    Table {
        version: table.version,
        listeners,
        hosts: hosts
            .into_iter()
            .map(|(id, probe)| Host { id, probe })
            .collect(),
    }
}

fn network(network: &Network) -> swarmlet_lb::network::Network {
    swarmlet_lb::network::Network::new(network.address(), network.prefix())
        .expect("a network of the model has no more bits than its address")
}

/// What the agent has to know: of the balancer that listens, which is the first, and of the
/// connections that those before it still have.
pub(super) fn report(generations: &[Summary]) -> SinkReport {
    let mut draining: BTreeMap<TaskId, u64> = BTreeMap::new();
    for leaving in generations.iter().flat_map(|summary| &summary.leaving) {
        // A task with several published ports is several endpoints.
        if let Ok(task) = TaskId::parse(&leaving.id) {
            *draining.entry(task).or_default() += leaving.active;
        }
    }
    let current = generations.first();
    let errors = current.map(|summary| summary.port_errors.iter());
    SinkReport {
        version: current.map_or(0, |summary| summary.table_version),
        draining,
        port_problems: errors
            .into_iter()
            .flatten()
            .map(|error| PortProblem {
                port: error.port,
                protocol: Protocol::Tcp,
                reason: error.reason.clone(),
            })
            .collect(),
    }
}
