//! Lists of tasks, as `service ps` and `node ps` show them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use swarmlet_core::model::{Node, NodeId, Service, ServiceId, Task, TaskState};

use super::{now, passes};
use crate::args::Filter;
use crate::output::{IdLength, Style, list, print, tasks_by_slot};

/// How a list of tasks is to be printed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listing {
    pub(super) no_trunc: bool,
    pub(super) style: Style,
}

impl Listing {
    /// Prints tasks; `services` are those that they belong to.
    pub(super) fn print(
        self,
        tasks: Vec<Task>,
        nodes: &BTreeMap<NodeId, Node>,
        services: &[Service],
    ) -> Result<()> {
        let jobs: BTreeSet<ServiceId> = services
            .iter()
            .filter(|service| service.spec.mode.is_job())
            .map(|service| service.id.clone())
            .collect();
        let length = if self.no_trunc {
            IdLength::Full
        } else {
            IdLength::Short
        };
        print(&list(
            &tasks_by_slot(tasks, nodes, &jobs, now(), length),
            self.style,
        )?)?;
        Ok(())
    }
}

/// Leaves the tasks that pass the filters `id`, `name`, `node` and `desired-state`.
pub(super) fn filter_tasks(
    tasks: &mut Vec<Task>,
    filters: &[Filter],
    nodes: &BTreeMap<NodeId, Node>,
) {
    tasks.retain(|task| {
        passes(filters, |key, value| match key {
            "id" => task.id.as_str().starts_with(value),
            "name" => task.name().starts_with(value),
            "node" => task.node.as_ref().is_some_and(|id| {
                let hostname = nodes.get(id).map(|node| node.description.hostname.as_str());
                id.as_str().starts_with(value) || hostname == Some(value)
            }),
            // Docker knows three: everything that is to run, what is to be prepared for later,
            // and everything that is to end.
            _ => match value {
                "running" => task.desired == TaskState::Running,
                "accepted" | "ready" => task.desired < TaskState::Running,
                "shutdown" => task.desired > TaskState::Running,
                other => task.desired.to_string() == other,
            },
        })
    });
}
