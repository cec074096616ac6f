//! Takes what nodes report into the leader's memory and, where it belongs there, into the log.

use std::sync::Arc;
use std::time::Instant;

use swarmlet_core::command::Command;
use swarmlet_core::model::NodeId;
use swarmlet_core::state::State;

use super::memory::Memory;
use crate::news::{Batch, NodeNews};
use crate::propose;
use crate::raft::{ProposeError, Raft};

/// The leader's ear.
#[derive(Clone)]
pub(crate) struct Intake {
    raft: Raft,
    memory: Arc<Memory>,
}

impl Intake {
    pub(crate) fn new(raft: Raft, memory: Arc<Memory>) -> Self {
        Self { raft, memory }
    }

    /// Takes a batch in; returns once all that belongs into the log has been committed.
    ///
    /// # Errors
    /// As a proposal's. The batch may then be handed in again: everything in it is idempotent.
    pub(crate) async fn accept(&self, batch: &Batch) -> Result<(), ProposeError> {
        let at_once = batch.iter().filter(|(_, news)| news.description.is_none());
        self.memory.take(at_once, Instant::now());
        let state = self.raft.state();
        let mut commands = Vec::new();
        for (node, news) in batch {
            commands_of(&state, node, news, &mut commands);
        }
        propose::in_order(&self.raft, commands, |_, result| {
            if let Err(reason) = result {
                // The task or the node went away in the meantime, or a later status is known.
                tracing::debug!(%reason, "report not taken");
            }
        })
        .await?;
        // A node that introduces itself counts as heard only now. Were it ready before its
        // description is in the state, a task might be placed by what was guessed of it.
        let introduced = batch.iter().filter(|(_, news)| news.description.is_some());
        self.memory.take(introduced, Instant::now());
        Ok(())
    }
}

/// The commands that bring the state up to what a node reports; what the state says already
/// is left out.
fn commands_of(state: &State, id: &NodeId, news: &NodeNews, commands: &mut Vec<Command>) {
    let Some(node) = state.node(id) else {
        return;
    };
    if let Some(description) = &news.description
        && *description != node.description
    {
        commands.push(Command::DescribeNode {
            id: id.clone(),
            description: Box::new(description.clone()),
        });
    }
    for (task_id, status) in &news.statuses {
        let Some(task) = state.task(task_id) else {
            continue;
        };
        if task.node.as_ref() != Some(id) {
            tracing::warn!(node = %id, task = %task_id, "node reports on a task that is not its own");
            continue;
        }
        if task.status != *status && status.state >= task.status.state {
            commands.push(Command::ReportTask {
                id: task_id.clone(),
                by: Some(id.clone()),
                status: Box::new(status.clone()),
            });
        }
    }
    if let Some(table) = &news.table
        && table.port_problems != node.port_problems
    {
        commands.push(Command::ReportPorts {
            id: id.clone(),
            problems: table.port_problems.clone(),
        });
    }
}
