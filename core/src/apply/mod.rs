//! What each command does to the state.
//!
//! Deterministic: ids and times ride inside the proposal, so that every replica comes to the
//! same state. What the proposer assumed is checked again (the version it saw, that the task
//! still waits, that it still fits), because the state may have changed between the decision
//! and its turn in the log; what is stale is refused and decided anew. Whether a
//! specification is well-formed is not checked here but before it is proposed: two versions
//! of the program may disagree about that, and their replicas would diverge.
//!
//! A command that changes nothing succeeds without an event and without a new version, so that
//! repeated reports cost nothing.

mod cluster;
mod node;
mod rebalance;
mod rejection;
mod service;
mod task;
#[cfg(test)]
mod tests;
pub(crate) mod update;

pub use rejection::{NothingBefore, Rejection, RejectionKind};

use crate::command::{Command, Proposal};
use crate::event::Event;
use crate::model::{Timestamp, Version};
use crate::state::State;

/// What became of one command.
pub type Outcome = Result<Vec<Event>, Rejection>;

/// Where and when a change happens.
#[derive(Debug, Clone, Copy)]
struct Change {
    index: Version,
    at: Timestamp,
}

/// Applies a log entry. The results are in the order of the commands; one that is refused
/// leaves the state alone and does not hinder the others.
pub fn apply(state: &mut State, index: Version, proposal: &Proposal) -> Vec<Outcome> {
    state.version = index;
    let change = Change {
        index,
        at: proposal.at,
    };
    proposal
        .commands
        .iter()
        .map(|command| one(state, change, command))
        .collect()
}

fn one(state: &mut State, change: Change, command: &Command) -> Outcome {
    if let Command::InitCluster { cluster, node } = command {
        return cluster::init(state, change, cluster, node);
    }
    if state.cluster.is_none() {
        return Err(Rejection::NoCluster);
    }
    match command {
        Command::InitCluster { .. } => Err(Rejection::ClusterExists),
        Command::UpdateCluster { expected, spec } => {
            cluster::update(state, change, *expected, spec)
        }
        Command::RotateJoinSecret { role, secret } => {
            cluster::rotate_secret(state, change, *role, secret)
        }
        Command::RaiseSchema { schema } => cluster::raise_schema(state, change, *schema),

        Command::AddNode { node } => node::add(state, change, node),
        Command::UpdateNode { id, expected, spec } => {
            node::update(state, change, id, *expected, spec)
        }
        Command::DescribeNode { id, description } => node::describe(state, change, id, description),
        Command::ReportNode {
            id,
            state: reported,
            message,
        } => node::report(state, change, id, *reported, message),
        Command::ReportPorts { id, problems } => node::report_ports(state, change, id, problems),
        Command::ReportProblems { id, problems } => {
            node::report_problems(state, change, id, problems)
        }
        Command::SetManager { id, manager } => {
            node::set_manager(state, change, id, manager.as_ref())
        }
        Command::RemoveNode { id } => node::remove(state, change, id),

        Command::CreateService { id, spec } => service::create(state, change, id, spec),
        Command::UpdateService { id, expected, spec } => {
            service::update(state, change, id, *expected, spec)
        }
        Command::RollbackService {
            id,
            expected,
            message,
        } => update::roll_back(state, change, id, *expected, message),
        Command::SetUpdateStatus {
            id,
            expected,
            state: reached,
            message,
        } => update::end(state, change, id, *expected, *reached, message),
        Command::StartRebalance {
            id,
            expected,
            moves,
        } => rebalance::start(state, change, id, *expected, *moves),
        Command::EndRebalance { id } => rebalance::end(state, change, id),
        Command::RemoveService { id } => service::remove(state, change, id),
        Command::DeleteService { id } => service::delete(state, id),

        Command::CreateTask { task } => task::create(state, change, task),
        Command::AssignTask { id, expected, node } => {
            task::assign(state, change, id, *expected, node)
        }
        Command::ExplainTask {
            id,
            expected,
            reason,
        } => task::explain(state, change, id, *expected, reason),
        Command::DrainTask { id } => task::drain(state, change, id),
        Command::MoveTask { id, expected } => rebalance::move_task(state, change, id, *expected),
        Command::KeepTask { id } => rebalance::keep_task(state, change, id),
        Command::SetDesired { id, desired } => task::set_desired(state, change, id, *desired),
        Command::ReportTask { id, by, status } => {
            task::report(state, change, id, by.as_ref(), status)
        }
        Command::DeleteTask { id } => task::delete(state, id),
    }
}
