//! Whose logs there are to read, and whose are missing and why.

use std::collections::BTreeSet;
use std::fmt;

use crate::model::{Node, NodeId, NodeState, ServiceId, Task, TaskId, TaskState};
use crate::state::State;

/// What a user wants to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Every task of a service, those of the history included.
    Service(ServiceId),
    /// One task.
    Task(TaskId),
}

/// A task whose log can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readable {
    /// The task.
    pub task: TaskId,
    /// Where its container is.
    pub node: NodeId,
    /// The container.
    pub container: String,
    /// Process id of what runs in it, zero where nothing does: a container that is started
    /// again has another one.
    pub pid: u32,
}

/// Why a part is missing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Missing {
    /// A node is away, and with it what its containers have written.
    Node {
        /// Its host name, or its identifier where it was removed.
        name: String,
        /// Why.
        reason: String,
    },
    /// A task runs nowhere yet.
    Task {
        /// `service.slot.id`.
        name: String,
        /// Why, where that was decided; otherwise it is about to be placed.
        reason: Option<String>,
    },
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node { name, reason } => write!(f, "node {name} is not available ({reason})"),
            Self::Task { name, reason } => {
                write!(f, "task {name} has not been scheduled")?;
                match reason {
                    Some(reason) => write!(f, " ({reason})"),
                    None => Ok(()),
                }
            }
        }
    }
}

/// What there is to read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Logs on nodes that are there.
    pub readable: Vec<Readable>,
    /// What is missing, each once.
    pub missing: BTreeSet<Missing>,
    /// Whether nothing can come any more: the service is gone, or the task has ended.
    pub over: bool,
}

/// Decides what there is to read.
#[must_use]
pub fn plan(state: &State, target: &Target) -> Plan {
    let mut plan = Plan::default();
    match target {
        Target::Service(id) => {
            plan.over = state.service(id).is_none();
            for task in state.tasks_of(id) {
                add(&mut plan, state, task);
            }
        }
        Target::Task(id) => match state.task(id) {
            Some(task) => {
                plan.over = task.status.state.is_terminal();
                add(&mut plan, state, task);
            }
            None => plan.over = true,
        },
    }
    plan
}

fn add(plan: &mut Plan, state: &State, task: &Task) {
    let Some(node) = &task.node else {
        // One that will never be placed any more has nothing to say either.
        if task.is_live() && task.desired <= TaskState::Complete {
            plan.missing.insert(Missing::Task {
                name: task.container_name(),
                reason: task.status.error.clone(),
            });
        }
        return;
    };
    // Without a container nothing was ever written: it is on its way, or was refused.
    let Some(container) = &task.status.container else {
        return;
    };
    match state.node(node) {
        Some(found) if found.status.state == NodeState::Ready => {
            plan.readable.push(Readable {
                task: task.id.clone(),
                node: node.clone(),
                container: container.id.clone(),
                pid: container.pid,
            });
        }
        Some(found) => {
            plan.missing.insert(Missing::Node {
                name: node_name(found),
                reason: found.status.state.to_string(),
            });
        }
        None => {
            plan.missing.insert(Missing::Node {
                name: node.to_string(),
                reason: "it was removed from the swarm".to_owned(),
            });
        }
    }
}

fn node_name(node: &Node) -> String {
    if node.description.hostname.is_empty() {
        node.id.to_string()
    } else {
        node.description.hostname.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use crate::model::{ContainerStatus, TaskStatus};
    use crate::testing::{World, observed, service_id, spec};

    /// What is missing, and who has a log on which node.
    fn lines(world: &World, target: &Target) -> Vec<String> {
        let plan = plan(&world.state, target);
        let mut lines: Vec<String> = plan.missing.iter().map(ToString::to_string).collect();
        for readable in plan.readable {
            let task = world.state.task(&readable.task).unwrap();
            let node = world.state.node(&readable.node).unwrap();
            lines.push(format!("{} {}", task.name(), node.description.hostname));
        }
        if plan.over {
            lines.push("over".to_owned());
        }
        lines.sort();
        lines
    }

    /// Tasks that have a node come to a state, and have a container.
    fn come_to(world: &mut World, state: TaskState) {
        let placed: Vec<Task> = world
            .state
            .tasks()
            .filter(|task| task.node.is_some() && task.is_live())
            .cloned()
            .collect();
        for task in placed {
            let status = TaskStatus {
                container: Some(ContainerStatus {
                    id: format!("c{}", task.id),
                    pid: 7,
                    ..ContainerStatus::default()
                }),
                ..observed(&task, state)
            };
            world.ok(Command::ReportTask {
                id: task.id.clone(),
                by: task.node.clone(),
                status: Box::new(status),
            });
        }
    }

    fn world() -> (World, Target) {
        let mut world = World::new(2);
        world.create(1, spec("ng", 2));
        (world, Target::Service(service_id(1)))
    }

    #[test]
    fn what_runs_nowhere_is_missing_and_what_is_on_its_way_is_not() {
        let (mut world, target) = world();
        assert!(lines(&world, &target).is_empty());
        for command in crate::orchestrator::reconcile(&world.state, world.now, 7) {
            world.ok(command);
        }
        let missing = lines(&world, &target);
        assert_eq!(missing.len(), 2, "{missing:?}");
        assert!(missing[0].starts_with("task ng.1."), "{missing:?}");
        assert!(
            missing[0].ends_with(" has not been scheduled"),
            "{missing:?}"
        );
        world.settle();
        assert!(lines(&world, &target).is_empty(), "nothing was started yet");
        come_to(&mut world, TaskState::Running);
        assert_eq!(lines(&world, &target).len(), 2);
    }

    #[test]
    fn a_node_that_is_away_is_named_once() {
        let (mut world, target) = world();
        world.scale(1, 4);
        world.settle();
        come_to(&mut world, TaskState::Running);
        world.node_is(2, NodeState::Unknown);
        let found = lines(&world, &target);
        assert_eq!(found.len(), 3, "{found:?}");
        assert_eq!(found[2], "node n2 is not available (unknown)");
        assert!(found[0].ends_with(" n1") && found[1].ends_with(" n1"));
    }

    #[test]
    fn history_belongs_to_a_service_and_an_end_to_a_task() {
        let (mut world, target) = world();
        world.settle();
        come_to(&mut world, TaskState::Running);
        let task = world.state.tasks().next().unwrap().id.clone();
        let one = Target::Task(task);
        assert_eq!(lines(&world, &one).len(), 1);
        come_to(&mut world, TaskState::Failed);
        world.settle();
        assert_eq!(lines(&world, &one).len(), 2, "its log, and that it is over");
        let found = lines(&world, &target);
        let with_log = found.iter().filter(|line| line.contains(" n")).count();
        assert_eq!(with_log, 2, "the failed ones are read as well: {found:?}");
        let nobody = Target::Service(service_id(9));
        assert_eq!(lines(&world, &nobody), ["over"]);
    }
}
