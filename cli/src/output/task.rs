//! Tasks: `service ps` and `node ps`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use swarmlet_core::model::{
    Node, NodeId, PortMode, PortSpec, ServiceId, Task, TaskState, Timestamp,
};

use super::{Row, ago, natural, title, without_digest};

/// Whether identifiers and errors are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdLength {
    /// Cut to what fits a table.
    Short,
    /// Whole (`--no-trunc`).
    Full,
}

/// One line of `service ps`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct TaskRow {
    #[serde(rename = "ID")]
    id: String,
    name: String,
    image: String,
    node: String,
    desired_state: String,
    current_state: String,
    error: String,
    ports: String,
    #[serde(skip)]
    length: Option<IdLength>,
    /// Whether a newer task has taken its slot.
    #[serde(skip)]
    history: bool,
}

/// The most characters of an error in a table, as Docker's.
const ERROR_WIDTH: usize = 30;

impl Row for TaskRow {
    const HEADERS: &'static [&'static str] = &[
        "ID",
        "NAME",
        "IMAGE",
        "NODE",
        "DESIRED STATE",
        "CURRENT STATE",
        "ERROR",
        "PORTS",
    ];

    fn cells(&self) -> Vec<String> {
        let short = self.length != Some(IdLength::Full);
        let id = if short {
            self.id.get(..12).unwrap_or(&self.id)
        } else {
            &self.id
        };
        let branch = if self.history { " \\_ " } else { "" };
        let error = match self.error.as_str() {
            "" => String::new(),
            error if short => format!("\"{}\"", cut(error)),
            error => format!("\"{error}\""),
        };
        vec![
            id.to_owned(),
            format!("{branch}{}", self.name),
            if short {
                without_digest(&self.image)
            } else {
                self.image.clone()
            },
            self.node.clone(),
            self.desired_state.clone(),
            self.current_state.clone(),
            error,
            self.ports.clone(),
        ]
    }

    fn id(&self) -> &str {
        &self.id
    }
}

fn cut(text: &str) -> String {
    if text.chars().count() <= ERROR_WIDTH {
        return text.to_owned();
    }
    text.chars().take(ERROR_WIDTH - 1).chain(['…']).collect()
}

/// The lines of `service ps`: by slot, the newest task of a slot first, those that it replaced
/// below it. `jobs` are the services whose tasks are to end.
pub(crate) fn tasks_by_slot(
    mut tasks: Vec<Task>,
    nodes: &BTreeMap<NodeId, Node>,
    jobs: &BTreeSet<ServiceId>,
    now: Timestamp,
    length: IdLength,
) -> Vec<TaskRow> {
    tasks.sort_by(|a, b| {
        natural(&a.name(), &b.name())
            .then_with(|| a.service.cmp(&b.service))
            // A task that is on its way out comes below the one that replaces it.
            .then_with(|| (a.desired > TaskState::Running).cmp(&(b.desired > TaskState::Running)))
            .then_with(|| b.created_at.cmp(&a.created_at))
            .then_with(|| b.version.cmp(&a.version))
    });
    let mut slots = BTreeSet::new();
    tasks
        .iter()
        .map(|task| {
            let history = !slots.insert((task.service.clone(), task.slot));
            let mut row = row(task, nodes, now, length, history);
            if task.desired == TaskState::Running && jobs.contains(&task.service) {
                // It is to run, but not to go on running.
                row.desired_state = title(&TaskState::Complete.to_string());
            }
            row
        })
        .collect()
}

fn row(
    task: &Task,
    nodes: &BTreeMap<NodeId, Node>,
    now: Timestamp,
    length: IdLength,
    history: bool,
) -> TaskRow {
    let node = task.node.as_ref().map(|id| (id, nodes.get(id)));
    let node_name = match node {
        Some((_, Some(node))) if !node.description.hostname.is_empty() => {
            node.description.hostname.clone()
        }
        // A node that was removed has no name any more.
        Some((id, _)) => id.to_string(),
        None => String::new(),
    };
    let problem = || node.and_then(|(_, node)| port_problem(task, node?));
    let state = title(&task.status.state.to_string());
    TaskRow {
        id: task.id.to_string(),
        name: task.name(),
        image: task
            .spec
            .container()
            .map(|c| c.image.clone())
            .unwrap_or_default(),
        node: node_name,
        desired_state: title(&task.desired.to_string()),
        current_state: format!(
            "{state} {} ago",
            ago(now.since(task.status.at)).to_lowercase()
        ),
        error: task
            .status
            .error
            .clone()
            .or_else(problem)
            .or_else(|| back_off(task, now))
            .unwrap_or_default(),
        ports: ports(task),
        length: Some(length),
        history,
    }
}

/// How long a task that follows failed ones still waits for its start.
fn back_off(task: &Task, now: Timestamp) -> Option<String> {
    let start = task.restart.not_before;
    if task.node.is_some() || !task.is_live() || start <= now {
        return None;
    }
    let seconds = start.since(now).as_secs_f64().ceil();
    Some(format!("back-off, starts in {seconds} s"))
}

/// Why the task's node does not answer on a port of the task's service, where it does not.
fn port_problem(task: &Task, node: &Node) -> Option<String> {
    if !task.is_live() {
        return None;
    }
    let is_ours = |port: u16, ports: &[PortSpec]| {
        ports
            .iter()
            .any(|spec| spec.published == port && spec.mode == PortMode::Ingress)
    };
    node.port_problems
        .iter()
        .find(|problem| is_ours(problem.port, &task.ports))
        .map(|problem| {
            format!(
                "port {}/{}: {}",
                problem.port, problem.protocol, problem.reason
            )
        })
}

/// Ports of the task's own host; those of the mesh belong to the service.
fn ports(task: &Task) -> String {
    let list: Vec<String> = task
        .status
        .ports
        .iter()
        .filter(|port| port.mode == PortMode::Host)
        .map(|port| format!("*:{}->{}/{}", port.host, port.target, port.protocol))
        .collect();
    list.join(",")
}
