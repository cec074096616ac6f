//! Random commands and log entries.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use swarmlet_core::command::{Command, Proposal};

use super::*;

/// One strategy for each variant of [`Command`].
pub(crate) fn commands() -> Vec<BoxedStrategy<Command>> {
    let mut all = cluster_commands();
    all.extend(node_commands());
    all.extend(service_commands());
    all.extend(task_commands());
    all
}

fn cluster_commands() -> Vec<BoxedStrategy<Command>> {
    vec![
        (cluster(), node())
            .prop_map(|(cluster, node)| Command::InitCluster {
                cluster: Box::new(cluster),
                node: Box::new(node),
            })
            .boxed(),
        (version(), cluster_spec())
            .prop_map(|(expected, spec)| Command::UpdateCluster { expected, spec })
            .boxed(),
        (role(), join_secret())
            .prop_map(|(role, secret)| Command::RotateJoinSecret { role, secret })
            .boxed(),
        any::<u32>()
            .prop_map(|schema| Command::RaiseSchema { schema })
            .boxed(),
    ]
}

fn node_commands() -> Vec<BoxedStrategy<Command>> {
    vec![
        node()
            .prop_map(|node| Command::AddNode {
                node: Box::new(node),
            })
            .boxed(),
        (node_id(), version(), node_spec())
            .prop_map(|(id, expected, spec)| Command::UpdateNode { id, expected, spec })
            .boxed(),
        (node_id(), description())
            .prop_map(|(id, description)| Command::DescribeNode {
                id,
                description: Box::new(description),
            })
            .boxed(),
        (node_id(), node_state(), text())
            .prop_map(|(id, state, message)| Command::ReportNode { id, state, message })
            .boxed(),
        (node_id(), vec(port_problem(), 0..3))
            .prop_map(|(id, problems)| Command::ReportPorts { id, problems })
            .boxed(),
        (node_id(), vec(problem(), 0..3))
            .prop_map(|(id, problems)| Command::ReportProblems { id, problems })
            .boxed(),
        (node_id(), option::of(manager()))
            .prop_map(|(id, manager)| Command::SetManager { id, manager })
            .boxed(),
        node_id().prop_map(|id| Command::RemoveNode { id }).boxed(),
    ]
}

fn service_commands() -> Vec<BoxedStrategy<Command>> {
    vec![
        (service_id(), service_spec())
            .prop_map(|(id, spec)| Command::CreateService {
                id,
                spec: Box::new(spec),
            })
            .boxed(),
        (service_id(), version(), service_spec())
            .prop_map(|(id, expected, spec)| Command::UpdateService {
                id,
                expected,
                spec: Box::new(spec),
            })
            .boxed(),
        service_id()
            .prop_map(|id| Command::RemoveService { id })
            .boxed(),
        service_id()
            .prop_map(|id| Command::DeleteService { id })
            .boxed(),
        (service_id(), version(), any::<u32>())
            .prop_map(|(id, expected, moves)| Command::StartRebalance {
                id,
                expected,
                moves,
            })
            .boxed(),
        service_id()
            .prop_map(|id| Command::EndRebalance { id })
            .boxed(),
        (service_id(), version(), text())
            .prop_map(|(id, expected, message)| Command::RollbackService {
                id,
                expected,
                message,
            })
            .boxed(),
        (service_id(), version(), update_state(), text())
            .prop_map(|(id, expected, state, message)| Command::SetUpdateStatus {
                id,
                expected,
                state,
                message,
            })
            .boxed(),
    ]
}

fn task_commands() -> Vec<BoxedStrategy<Command>> {
    vec![
        task()
            .prop_map(|task| Command::CreateTask {
                task: Box::new(task),
            })
            .boxed(),
        (task_id(), version(), node_id())
            .prop_map(|(id, expected, node)| Command::AssignTask { id, expected, node })
            .boxed(),
        (task_id(), version(), text())
            .prop_map(|(id, expected, reason)| Command::ExplainTask {
                id,
                expected,
                reason,
            })
            .boxed(),
        task_id().prop_map(|id| Command::DrainTask { id }).boxed(),
        (task_id(), task_state())
            .prop_map(|(id, desired)| Command::SetDesired { id, desired })
            .boxed(),
        (task_id(), option::of(node_id()), task_status())
            .prop_map(|(id, by, status)| Command::ReportTask {
                id,
                by,
                status: Box::new(status),
            })
            .boxed(),
        task_id().prop_map(|id| Command::DeleteTask { id }).boxed(),
        (task_id(), version())
            .prop_map(|(id, expected)| Command::MoveTask { id, expected })
            .boxed(),
        task_id().prop_map(|id| Command::KeepTask { id }).boxed(),
    ]
}

pub(crate) fn proposal() -> impl Strategy<Value = Proposal> {
    let command = prop::strategy::Union::new(commands());
    (timestamp(), vec(command, 0..4)).prop_map(|(at, commands)| Proposal { at, commands })
}
