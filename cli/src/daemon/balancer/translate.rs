//! Between the agent's tables and the balancer's: two crates that do not know each other.

use std::collections::BTreeMap;

use swarmlet_agent::{RoutedTable, SinkReport};
use swarmlet_core::model::{LbPolicy, PortProblem, Protocol, TaskId};
use swarmlet_lb::status::{EndpointCondition, PortError, Status};
use swarmlet_lb::table::{Endpoint, EndpointState, Listener, Policy, Table};

/// The table as the balancer takes it. It forwards TCP only; no other port gets here, because
/// none can be published through the mesh.
pub(super) fn table(table: &RoutedTable) -> Table {
    let listeners = table
        .listeners
        .iter()
        .filter(|listener| listener.protocol == Protocol::Tcp)
        .map(|listener| Listener {
            port: listener.port,
            service: listener.service.clone(),
            policy: match listener.policy {
                LbPolicy::RoundRobin => Policy::RoundRobin,
            },
            endpoints: listener
                .endpoints
                .iter()
                .map(|endpoint| Endpoint {
                    id: endpoint.task.to_string(),
                    address: endpoint.address,
                    weight: endpoint.weight,
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
    }
}

/// What the agent has to know: of the balancer that listens, which is the first, and of the
/// connections that those before it still have.
pub(super) fn report(generations: &[Status]) -> SinkReport {
    let mut draining: BTreeMap<TaskId, u64> = BTreeMap::new();
    // A task with several published ports is several endpoints.
    let mut add = |id: &str, active: u64| {
        if let Ok(task) = TaskId::parse(id) {
            *draining.entry(task).or_default() += active;
        }
    };
    for status in generations {
        let listeners = &status.listeners;
        for endpoint in listeners.iter().flat_map(|listener| &listener.endpoints) {
            if endpoint.condition == EndpointCondition::Draining {
                add(&endpoint.id, endpoint.traffic.active);
            }
        }
        for removed in &status.removed {
            add(&removed.id, removed.active);
        }
    }
    let current = generations.first();
    SinkReport {
        version: current.map_or(0, |status| status.table_version),
        draining,
        port_problems: current
            .map(port_errors)
            .unwrap_or_default()
            .into_iter()
            .map(|error| PortProblem {
                port: error.port,
                protocol: Protocol::Tcp,
                reason: error.reason,
            })
            .collect(),
    }
}

/// The published ports that the balancer does not answer on.
pub(super) fn port_errors(status: &Status) -> Vec<PortError> {
    status
        .listeners
        .iter()
        .filter_map(|listener| {
            Some(PortError {
                port: listener.port,
                reason: listener.error.clone()?,
            })
        })
        .collect()
}
