//! The table of endpoints.

use swarmlet_core::endpoints::{Endpoint, EndpointState, Listener, Table};
use swarmlet_core::model::{NodeId, ServiceId, TaskId, Version};

use super::Malformed;
use super::field::{address, enumeration, id, list, messages, mirrored, port};
use super::ports::{networks_from, networks_to, proxy_protocol_from, proxy_protocol_to};
use crate::v1;

mirrored!(EndpointState { Ready, Draining });

impl From<&Table> for v1::EndpointTable {
    fn from(table: &Table) -> Self {
        Self {
            version: table.version.0,
            listeners: messages(&table.listeners),
        }
    }
}

impl TryFrom<v1::EndpointTable> for Table {
    type Error = Malformed;

    fn try_from(message: v1::EndpointTable) -> Result<Self, Malformed> {
        Ok(Self {
            version: Version(message.version),
            listeners: list("listeners", message.listeners)?,
        })
    }
}

impl From<&Listener> for v1::Listener {
    fn from(listener: &Listener) -> Self {
        Self {
            port: listener.port.into(),
            protocol: v1::Protocol::from(listener.protocol).into(),
            service_id: listener.service.to_string(),
            service_name: listener.service_name.clone(),
            policy: v1::LbPolicy::from(listener.policy).into(),
            prefer_local: listener.prefer_local,
            accept_proxy: networks_to(&listener.accept_proxy),
            endpoints: messages(&listener.endpoints),
        }
    }
}

impl TryFrom<v1::Listener> for Listener {
    type Error = Malformed;

    fn try_from(message: v1::Listener) -> Result<Self, Malformed> {
        Ok(Self {
            port: port("port", message.port)?,
            protocol: enumeration::<v1::Protocol, _>("protocol", message.protocol)?,
            service: id("service_id", &message.service_id, ServiceId::parse)?,
            service_name: message.service_name,
            policy: enumeration::<v1::LbPolicy, _>("policy", message.policy)?,
            prefer_local: message.prefer_local,
            accept_proxy: networks_from("accept_proxy", &message.accept_proxy)?,
            endpoints: list("endpoints", message.endpoints)?,
        })
    }
}

impl From<&Endpoint> for v1::Endpoint {
    fn from(endpoint: &Endpoint) -> Self {
        Self {
            task_id: endpoint.task.to_string(),
            node_id: endpoint.node.to_string(),
            address: endpoint.address.to_string(),
            local: endpoint.local.map(|address| address.to_string()),
            weight: endpoint.weight,
            proxy_protocol: proxy_protocol_to(endpoint.proxy_protocol),
            state: v1::EndpointState::from(endpoint.state).into(),
        }
    }
}

impl TryFrom<v1::Endpoint> for Endpoint {
    type Error = Malformed;

    fn try_from(message: v1::Endpoint) -> Result<Self, Malformed> {
        let local = message.local.as_deref();
        Ok(Self {
            task: id("task_id", &message.task_id, TaskId::parse)?,
            node: id("node_id", &message.node_id, NodeId::parse)?,
            address: address("address", &message.address)?,
            local: local.map(|text| address("local", text)).transpose()?,
            weight: message.weight,
            proxy_protocol: proxy_protocol_from(message.proxy_protocol)?,
            state: enumeration::<v1::EndpointState, _>("state", message.state)?,
        })
    }
}
