//! Log entries.

use bytes::Bytes;
use prost::Message;
use swarmlet_core::command::{Command, Proposal};
use swarmlet_core::model::{NodeId, ServiceId, TaskId, Timestamp, Version};

use super::Malformed;
use super::field::{Result, enumeration, id, list, messages, optional, required};
use crate::v1;
use crate::v1::command::Kind;

/// Encodes a log entry.
#[must_use]
pub fn encode_proposal(proposal: &Proposal) -> Bytes {
    let message = v1::Proposal {
        at_ms: proposal.at.0,
        commands: messages(&proposal.commands),
    };
    message.encode_to_vec().into()
}

/// Reads a log entry.
///
/// # Errors
/// [`Malformed::UnknownCommand`] where a newer program wrote it, otherwise as said there.
pub fn decode_proposal(bytes: &[u8]) -> Result<Proposal> {
    let message = v1::Proposal::decode(bytes).map_err(|source| Malformed::Bytes {
        what: "log entry",
        source,
    })?;
    // A kind that is not in the .proto file decodes as none at all.
    let kind = |(position, command): (usize, v1::Command)| {
        command.kind.ok_or(Malformed::UnknownCommand { position })
    };
    let kinds: Vec<Kind> = message
        .commands
        .into_iter()
        .enumerate()
        .map(kind)
        .collect::<Result<_>>()?;
    Ok(Proposal {
        at: Timestamp(message.at_ms),
        commands: list("commands", kinds)?,
    })
}

impl From<&Command> for v1::Command {
    // One arm for each variant: split up, the compiler would no longer see that none is missing.
    #[allow(clippy::too_many_lines)]
    fn from(command: &Command) -> Self {
        let kind = match command {
            Command::InitCluster { cluster, node } => Kind::InitCluster(v1::InitCluster {
                cluster: Some(cluster.as_ref().into()),
                node: Some(node.as_ref().into()),
            }),
            Command::UpdateCluster { expected, spec } => Kind::UpdateCluster(v1::UpdateCluster {
                expected: expected.0,
                spec: Some(spec.into()),
            }),
            Command::RotateJoinSecret { role, secret } => {
                Kind::RotateJoinSecret(v1::RotateJoinSecret {
                    role: v1::Role::from(*role).into(),
                    secret: Some(secret.into()),
                })
            }
            &Command::RaiseSchema { schema } => Kind::RaiseSchema(v1::RaiseSchema { schema }),
            Command::AddNode { node } => Kind::AddNode(v1::AddNode {
                node: Some(node.as_ref().into()),
            }),
            Command::UpdateNode { id, expected, spec } => Kind::UpdateNode(v1::UpdateNode {
                id: id.to_string(),
                expected: expected.0,
                spec: Some(spec.into()),
            }),
            Command::DescribeNode { id, description } => Kind::DescribeNode(v1::DescribeNode {
                id: id.to_string(),
                description: Some(description.as_ref().into()),
            }),
            Command::ReportNode { id, state, message } => Kind::ReportNode(v1::ReportNode {
                id: id.to_string(),
                state: v1::NodeState::from(*state).into(),
                message: message.clone(),
            }),
            Command::ReportPorts { id, problems } => Kind::ReportPorts(v1::ReportPorts {
                id: id.to_string(),
                problems: messages(problems),
            }),
            Command::ReportProblems { id, problems } => Kind::ReportProblems(v1::ReportProblems {
                id: id.to_string(),
                problems: messages(problems),
            }),
            Command::SetManager { id, manager } => Kind::SetManager(v1::SetManager {
                id: id.to_string(),
                manager: manager.as_ref().map(Into::into),
            }),
            Command::RemoveNode { id } => Kind::RemoveNode(v1::RemoveNode { id: id.to_string() }),
            Command::CreateService { id, spec } => Kind::CreateService(v1::CreateService {
                id: id.to_string(),
                spec: Some(spec.as_ref().into()),
            }),
            Command::UpdateService { id, expected, spec } => {
                Kind::UpdateService(v1::UpdateService {
                    id: id.to_string(),
                    expected: expected.0,
                    spec: Some(spec.as_ref().into()),
                })
            }
            Command::RemoveService { id } => {
                Kind::RemoveService(v1::RemoveService { id: id.to_string() })
            }
            Command::DeleteService { id } => {
                Kind::DeleteService(v1::DeleteService { id: id.to_string() })
            }
            Command::RollbackService {
                id,
                expected,
                message,
            } => Kind::RollbackService(v1::RollbackService {
                id: id.to_string(),
                expected: expected.0,
                message: message.clone(),
            }),
            Command::SetUpdateStatus {
                id,
                expected,
                state,
                message,
            } => Kind::SetUpdateStatus(v1::SetUpdateStatus {
                id: id.to_string(),
                expected: expected.0,
                state: v1::UpdateState::from(*state).into(),
                message: message.clone(),
            }),
            Command::CreateTask { task } => Kind::CreateTask(v1::CreateTask {
                task: Some(task.as_ref().into()),
            }),
            Command::AssignTask { id, expected, node } => Kind::AssignTask(v1::AssignTask {
                id: id.to_string(),
                expected: expected.0,
                node_id: node.to_string(),
            }),
            Command::ExplainTask {
                id,
                expected,
                reason,
            } => Kind::ExplainTask(v1::ExplainTask {
                id: id.to_string(),
                expected: expected.0,
                reason: reason.clone(),
            }),
            Command::DrainTask { id } => Kind::DrainTask(v1::DrainTask { id: id.to_string() }),
            Command::SetDesired { id, desired } => Kind::SetDesired(v1::SetDesired {
                id: id.to_string(),
                desired: v1::TaskState::from(*desired).into(),
            }),
            Command::ReportTask { id, by, status } => Kind::ReportTask(v1::ReportTask {
                id: id.to_string(),
                by: by.as_ref().map(ToString::to_string),
                status: Some(status.as_ref().into()),
            }),
            Command::DeleteTask { id } => Kind::DeleteTask(v1::DeleteTask { id: id.to_string() }),
            Command::StartRebalance {
                id,
                expected,
                moves,
            } => Kind::StartRebalance(v1::StartRebalance {
                id: id.to_string(),
                expected: expected.0,
                moves: *moves,
            }),
            Command::EndRebalance { id } => {
                Kind::EndRebalance(v1::EndRebalance { id: id.to_string() })
            }
            Command::MoveTask { id, expected } => Kind::MoveTask(v1::MoveTask {
                id: id.to_string(),
                expected: expected.0,
            }),
            Command::KeepTask { id } => Kind::KeepTask(v1::KeepTask { id: id.to_string() }),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<Kind> for Command {
    type Error = Malformed;

    // As above.
    #[allow(clippy::too_many_lines)]
    fn try_from(kind: Kind) -> Result<Self> {
        Ok(match kind {
            Kind::InitCluster(m) => Self::InitCluster {
                cluster: Box::new(required("cluster", m.cluster)?),
                node: Box::new(required("node", m.node)?),
            },
            Kind::UpdateCluster(m) => Self::UpdateCluster {
                expected: Version(m.expected),
                spec: required("spec", m.spec)?,
            },
            Kind::RotateJoinSecret(m) => Self::RotateJoinSecret {
                role: enumeration::<v1::Role, _>("role", m.role)?,
                secret: required("secret", m.secret)?,
            },
            Kind::RaiseSchema(m) => Self::RaiseSchema { schema: m.schema },
            Kind::AddNode(m) => Self::AddNode {
                node: Box::new(required("node", m.node)?),
            },
            Kind::UpdateNode(m) => Self::UpdateNode {
                id: node(&m.id)?,
                expected: Version(m.expected),
                spec: required("spec", m.spec)?,
            },
            Kind::DescribeNode(m) => Self::DescribeNode {
                id: node(&m.id)?,
                description: Box::new(required("description", m.description)?),
            },
            Kind::ReportNode(m) => Self::ReportNode {
                id: node(&m.id)?,
                state: enumeration::<v1::NodeState, _>("state", m.state)?,
                message: m.message,
            },
            Kind::ReportPorts(m) => Self::ReportPorts {
                id: node(&m.id)?,
                problems: list("problems", m.problems)?,
            },
            Kind::ReportProblems(m) => Self::ReportProblems {
                id: node(&m.id)?,
                problems: list("problems", m.problems)?,
            },
            Kind::SetManager(m) => Self::SetManager {
                id: node(&m.id)?,
                manager: optional("manager", m.manager)?,
            },
            Kind::RemoveNode(m) => Self::RemoveNode { id: node(&m.id)? },
            Kind::CreateService(m) => Self::CreateService {
                id: service(&m.id)?,
                spec: Box::new(required("spec", m.spec)?),
            },
            Kind::UpdateService(m) => Self::UpdateService {
                id: service(&m.id)?,
                expected: Version(m.expected),
                spec: Box::new(required("spec", m.spec)?),
            },
            Kind::RemoveService(m) => Self::RemoveService {
                id: service(&m.id)?,
            },
            Kind::DeleteService(m) => Self::DeleteService {
                id: service(&m.id)?,
            },
            Kind::RollbackService(m) => Self::RollbackService {
                id: service(&m.id)?,
                expected: Version(m.expected),
                message: m.message,
            },
            Kind::SetUpdateStatus(m) => Self::SetUpdateStatus {
                id: service(&m.id)?,
                expected: Version(m.expected),
                state: enumeration::<v1::UpdateState, _>("state", m.state)?,
                message: m.message,
            },
            Kind::CreateTask(m) => Self::CreateTask {
                task: Box::new(required("task", m.task)?),
            },
            Kind::AssignTask(m) => Self::AssignTask {
                id: task(&m.id)?,
                expected: Version(m.expected),
                node: id("node_id", &m.node_id, NodeId::parse)?,
            },
            Kind::ExplainTask(m) => Self::ExplainTask {
                id: task(&m.id)?,
                expected: Version(m.expected),
                reason: m.reason,
            },
            Kind::DrainTask(m) => Self::DrainTask { id: task(&m.id)? },
            Kind::SetDesired(m) => Self::SetDesired {
                id: task(&m.id)?,
                desired: enumeration::<v1::TaskState, _>("desired", m.desired)?,
            },
            Kind::ReportTask(m) => Self::ReportTask {
                id: task(&m.id)?,
                by: m
                    .by
                    .as_deref()
                    .map(|text| id("by", text, NodeId::parse))
                    .transpose()?,
                status: Box::new(required("status", m.status)?),
            },
            Kind::DeleteTask(m) => Self::DeleteTask { id: task(&m.id)? },
            Kind::StartRebalance(m) => Self::StartRebalance {
                id: service(&m.id)?,
                expected: Version(m.expected),
                moves: m.moves,
            },
            Kind::EndRebalance(m) => Self::EndRebalance {
                id: service(&m.id)?,
            },
            Kind::MoveTask(m) => Self::MoveTask {
                id: task(&m.id)?,
                expected: Version(m.expected),
            },
            Kind::KeepTask(m) => Self::KeepTask { id: task(&m.id)? },
        })
    }
}

fn node(text: &str) -> Result<NodeId> {
    id("id", text, NodeId::parse)
}

fn service(text: &str) -> Result<ServiceId> {
    id("id", text, ServiceId::parse)
}

fn task(text: &str) -> Result<TaskId> {
    id("id", text, TaskId::parse)
}
