//! Nodes.

use swarmlet_core::model::{
    Availability, ManagerInfo, Node, NodeDescription, NodeId, NodeSpec, NodeState, NodeStatus,
    Platform, PortProblem, Role, RuntimeKind, Timestamp, Version,
};

use super::field::{address, enumeration, id, list, messages, mirrored, optional, port, required};
use super::{Malformed, placement};
use crate::v1;

mirrored!(Role { Worker, Manager });
mirrored!(Availability {
    Active,
    Pause,
    Drain,
});
mirrored!(RuntimeKind { Docker, Process });
mirrored!(NodeState {
    Ready,
    Unknown,
    Down,
});

impl From<&Node> for v1::Node {
    fn from(node: &Node) -> Self {
        Self {
            id: node.id.to_string(),
            version: node.version.0,
            created_at_ms: node.created_at.0,
            spec: Some((&node.spec).into()),
            description: Some((&node.description).into()),
            status: Some((&node.status).into()),
            manager: node.manager.as_ref().map(Into::into),
            port_problems: messages(&node.port_problems),
            problems: messages(&node.problems),
            superseded: node.superseded,
        }
    }
}

impl TryFrom<v1::Node> for Node {
    type Error = Malformed;

    fn try_from(message: v1::Node) -> Result<Self, Malformed> {
        Ok(Self {
            id: id("id", &message.id, NodeId::parse)?,
            version: Version(message.version),
            created_at: Timestamp(message.created_at_ms),
            spec: required("spec", message.spec)?,
            description: required("description", message.description)?,
            status: required("status", message.status)?,
            manager: optional("manager", message.manager)?,
            port_problems: list("port_problems", message.port_problems)?,
            problems: list("problems", message.problems)?,
            superseded: message.superseded,
        })
    }
}

impl From<&NodeSpec> for v1::NodeSpec {
    fn from(spec: &NodeSpec) -> Self {
        Self {
            role: v1::Role::from(spec.role).into(),
            availability: v1::Availability::from(spec.availability).into(),
            labels: spec.labels.clone(),
        }
    }
}

impl TryFrom<v1::NodeSpec> for NodeSpec {
    type Error = Malformed;

    fn try_from(message: v1::NodeSpec) -> Result<Self, Malformed> {
        Ok(Self {
            role: enumeration::<v1::Role, _>("role", message.role)?,
            availability: enumeration::<v1::Availability, _>("availability", message.availability)?,
            labels: message.labels,
        })
    }
}

impl From<&NodeDescription> for v1::NodeDescription {
    fn from(description: &NodeDescription) -> Self {
        Self {
            hostname: description.hostname.clone(),
            address: description.address.to_string(),
            platform: Some((&description.platform).into()),
            resources: Some((&description.resources).into()),
            runtime: v1::RuntimeKind::from(description.runtime).into(),
            engine_version: description.engine_version.clone(),
            engine_labels: description.engine_labels.clone(),
            first_task_port: description.task_ports.0.into(),
            last_task_port: description.task_ports.1.into(),
            schema: description.schema,
            program_version: description.program_version.clone(),
            generic_names: placement::named(&description.generic_names),
            probe_port: description.probe_port.into(),
        }
    }
}

impl TryFrom<v1::NodeDescription> for NodeDescription {
    type Error = Malformed;

    fn try_from(message: v1::NodeDescription) -> Result<Self, Malformed> {
        Ok(Self {
            hostname: message.hostname,
            address: address("address", &message.address)?,
            platform: required("platform", message.platform)?,
            resources: required("resources", message.resources)?,
            runtime: enumeration::<v1::RuntimeKind, _>("runtime", message.runtime)?,
            engine_version: message.engine_version,
            engine_labels: message.engine_labels,
            task_ports: (
                port("first_task_port", message.first_task_port)?,
                port("last_task_port", message.last_task_port)?,
            ),
            schema: message.schema,
            program_version: message.program_version,
            generic_names: placement::names("generic_names", message.generic_names)?,
            probe_port: port("probe_port", message.probe_port)?,
        })
    }
}

impl From<&Platform> for v1::Platform {
    fn from(platform: &Platform) -> Self {
        Self {
            os: platform.os.clone(),
            arch: platform.arch.clone(),
        }
    }
}

impl TryFrom<v1::Platform> for Platform {
    type Error = Malformed;

    fn try_from(message: v1::Platform) -> Result<Self, Malformed> {
        Ok(Self {
            os: message.os,
            arch: message.arch,
        })
    }
}

impl From<&NodeStatus> for v1::NodeStatus {
    fn from(status: &NodeStatus) -> Self {
        Self {
            state: v1::NodeState::from(status.state).into(),
            message: status.message.clone(),
            since_ms: status.since.0,
        }
    }
}

impl TryFrom<v1::NodeStatus> for NodeStatus {
    type Error = Malformed;

    fn try_from(message: v1::NodeStatus) -> Result<Self, Malformed> {
        Ok(Self {
            state: enumeration::<v1::NodeState, _>("state", message.state)?,
            message: message.message,
            since: Timestamp(message.since_ms),
        })
    }
}

impl From<&ManagerInfo> for v1::ManagerInfo {
    fn from(manager: &ManagerInfo) -> Self {
        Self {
            raft_id: manager.raft_id,
            address: manager.address.to_string(),
        }
    }
}

impl TryFrom<v1::ManagerInfo> for ManagerInfo {
    type Error = Malformed;

    fn try_from(message: v1::ManagerInfo) -> Result<Self, Malformed> {
        Ok(Self {
            raft_id: message.raft_id,
            address: address("address", &message.address)?,
        })
    }
}

impl From<&PortProblem> for v1::PortProblem {
    fn from(problem: &PortProblem) -> Self {
        Self {
            port: problem.port.into(),
            protocol: v1::Protocol::from(problem.protocol).into(),
            reason: problem.reason.clone(),
        }
    }
}

impl TryFrom<v1::PortProblem> for PortProblem {
    type Error = Malformed;

    fn try_from(message: v1::PortProblem) -> Result<Self, Malformed> {
        Ok(Self {
            port: port("port", message.port)?,
            protocol: enumeration::<v1::Protocol, _>("protocol", message.protocol)?,
            reason: message.reason,
        })
    }
}
