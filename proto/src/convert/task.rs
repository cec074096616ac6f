//! Tasks.

use swarmlet_core::model::{
    ContainerStatus, Draining, NodeId, RestartHistory, ServiceId, Task, TaskId, TaskPort,
    TaskState, TaskStatus, Timestamp, Version,
};

use super::field::{address, enumeration, id, list, messages, mirrored, optional, port, required};
use super::{Malformed, placement};
use crate::v1;

mirrored!(TaskState {
    New,
    Pending,
    Assigned,
    Accepted,
    Preparing,
    Ready,
    Starting,
    Running,
    Complete,
    Shutdown,
    Failed,
    Rejected,
    Remove,
    Orphaned,
});

impl From<&Task> for v1::Task {
    fn from(task: &Task) -> Self {
        Self {
            id: task.id.to_string(),
            version: task.version.0,
            service_id: task.service.to_string(),
            service_name: task.service_name.clone(),
            slot: task.slot,
            node_id: task.node.as_ref().map(ToString::to_string),
            spec: Some((&task.spec).into()),
            ports: messages(&task.ports),
            spec_version: task.spec_version.0,
            created_at_ms: task.created_at.0,
            desired: v1::TaskState::from(task.desired).into(),
            status: Some((&task.status).into()),
            restart: Some((&task.restart).into()),
            draining: task.draining.as_ref().map(Into::into),
            generic_names: placement::named(&task.generic_names),
            moving: task.moving,
            home_node_id: task.home.as_ref().map(ToString::to_string),
        }
    }
}

impl TryFrom<v1::Task> for Task {
    type Error = Malformed;

    fn try_from(message: v1::Task) -> Result<Self, Malformed> {
        let node = message.node_id.as_deref();
        let home = message.home_node_id.as_deref();
        Ok(Self {
            id: id("id", &message.id, TaskId::parse)?,
            version: Version(message.version),
            service: id("service_id", &message.service_id, ServiceId::parse)?,
            service_name: message.service_name,
            slot: message.slot,
            home: home
                .map(|text| id("home_node_id", text, NodeId::parse))
                .transpose()?,
            node: node
                .map(|text| id("node_id", text, NodeId::parse))
                .transpose()?,
            spec: required("spec", message.spec)?,
            ports: list("ports", message.ports)?,
            spec_version: Version(message.spec_version),
            created_at: Timestamp(message.created_at_ms),
            desired: enumeration::<v1::TaskState, _>("desired", message.desired)?,
            status: required("status", message.status)?,
            restart: required("restart", message.restart)?,
            draining: optional("draining", message.draining)?,
            generic_names: placement::names("generic_names", message.generic_names)?,
            moving: message.moving,
        })
    }
}

impl From<&TaskStatus> for v1::TaskStatus {
    fn from(status: &TaskStatus) -> Self {
        Self {
            state: v1::TaskState::from(status.state).into(),
            at_ms: status.at.0,
            message: status.message.clone(),
            error: status.error.clone(),
            container: status.container.as_ref().map(Into::into),
            ports: messages(&status.ports),
        }
    }
}

impl TryFrom<v1::TaskStatus> for TaskStatus {
    type Error = Malformed;

    fn try_from(message: v1::TaskStatus) -> Result<Self, Malformed> {
        Ok(Self {
            state: enumeration::<v1::TaskState, _>("state", message.state)?,
            at: Timestamp(message.at_ms),
            message: message.message,
            error: message.error,
            container: optional("container", message.container)?,
            ports: list("ports", message.ports)?,
        })
    }
}

impl From<&ContainerStatus> for v1::ContainerStatus {
    fn from(status: &ContainerStatus) -> Self {
        Self {
            id: status.id.clone(),
            pid: status.pid,
            exit_code: status.exit_code,
            address: status.address.map(|address| address.to_string()),
            ejected: status.ejected,
        }
    }
}

impl TryFrom<v1::ContainerStatus> for ContainerStatus {
    type Error = Malformed;

    fn try_from(message: v1::ContainerStatus) -> Result<Self, Malformed> {
        let text = message.address.as_deref();
        Ok(Self {
            id: message.id,
            pid: message.pid,
            exit_code: message.exit_code,
            address: text.map(|text| address("address", text)).transpose()?,
            ejected: message.ejected,
        })
    }
}

impl From<&TaskPort> for v1::TaskPort {
    fn from(port: &TaskPort) -> Self {
        Self {
            target: port.target.into(),
            host: port.host.into(),
            protocol: v1::Protocol::from(port.protocol).into(),
            mode: v1::PortMode::from(port.mode).into(),
        }
    }
}

impl TryFrom<v1::TaskPort> for TaskPort {
    type Error = Malformed;

    fn try_from(message: v1::TaskPort) -> Result<Self, Malformed> {
        Ok(Self {
            target: port("target", message.target)?,
            host: port("host", message.host)?,
            protocol: enumeration::<v1::Protocol, _>("protocol", message.protocol)?,
            mode: enumeration::<v1::PortMode, _>("mode", message.mode)?,
        })
    }
}

impl From<&Draining> for v1::Draining {
    fn from(draining: &Draining) -> Self {
        Self {
            since_ms: draining.since.0,
            version: draining.version.0,
        }
    }
}

impl TryFrom<v1::Draining> for Draining {
    type Error = Malformed;

    fn try_from(message: v1::Draining) -> Result<Self, Malformed> {
        Ok(Self {
            since: Timestamp(message.since_ms),
            version: Version(message.version),
        })
    }
}

impl From<&RestartHistory> for v1::RestartHistory {
    fn from(history: &RestartHistory) -> Self {
        Self {
            failures: history.failures,
            attempts: history.attempts,
            window_start_ms: history.window_start.0,
            not_before_ms: history.not_before.0,
        }
    }
}

impl TryFrom<v1::RestartHistory> for RestartHistory {
    type Error = Malformed;

    fn try_from(message: v1::RestartHistory) -> Result<Self, Malformed> {
        Ok(Self {
            failures: message.failures,
            attempts: message.attempts,
            window_start: Timestamp(message.window_start_ms),
            not_before: Timestamp(message.not_before_ms),
        })
    }
}
