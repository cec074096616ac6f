//! Why a decision about a task was taken, in words for a log.
//!
//! The deciders return commands, and the state that they decided by says why: so the reason is
//! read off the two, and need not travel with every command through the log of the managers.

use std::fmt;

use crate::command::Command;
use crate::model::{Availability, NodeId, NodeState, ServiceId, Task, TaskId, TaskState};
use crate::scheduler;
use crate::state::State;

/// What a decision did to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// It was made.
    Made,
    /// It was made to take the place of one whose node is not to have it any more.
    Moved,
    /// It got a node.
    Placed,
    /// It got none.
    Refused,
    /// It leaves the balancers, and is stopped after that.
    Drained,
    /// It is stopped.
    Stopped,
    /// It had ended, and is succeeded.
    Succeeded,
    /// Nobody knows what became of it.
    Orphaned,
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Made => "task made",
            Self::Moved => "task moved",
            Self::Placed => "task placed",
            Self::Refused => "task refused by every node",
            Self::Drained => "task leaves the balancers",
            Self::Stopped => "task is to stop",
            Self::Succeeded => "ended task is succeeded",
            Self::Orphaned => "task orphaned",
        })
    }
}

/// A decision about a task, with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What was done.
    pub deed: Deed,
    /// The task.
    pub task: TaskId,
    /// Its service.
    pub service: ServiceId,
    /// `service.slot`.
    pub name: String,
    /// Its node, where it has one.
    pub node: Option<NodeId>,
    /// Why.
    pub reason: String,
}

/// What a command means for a task, by the state that it was decided on; `None` for commands
/// that are about no task, or change nothing that a user would ask about.
#[must_use]
pub fn explain(state: &State, command: &Command) -> Option<Decision> {
    match command {
        Command::CreateTask { task } => {
            let (deed, reason) = made(state, task);
            Some(decision(task, deed, task.node.clone(), reason))
        }
        Command::AssignTask { id, node, .. } => {
            let task = state.task(id)?;
            let reason = placed(state, task, node);
            Some(decision(task, Deed::Placed, Some(node.clone()), reason))
        }
        Command::ExplainTask { id, reason, .. } => {
            let task = state.task(id)?;
            Some(decision(task, Deed::Refused, None, reason.clone()))
        }
        Command::MoveTask { id, .. } => {
            let task = state.task(id)?;
            let reason = "the service is rebalanced, and another node has fewer of its tasks";
            Some(of(task, Deed::Moved, reason.to_owned()))
        }
        Command::DrainTask { id } => {
            let task = state.task(id)?;
            Some(of(task, Deed::Drained, stopped(state, task)))
        }
        Command::SetDesired { id, desired } if *desired > TaskState::Running => {
            let task = state.task(id)?;
            if !task.is_live() {
                return Some(of(task, Deed::Succeeded, ended(task)));
            }
            let mut reason = stopped(state, task);
            if task.draining.is_some() {
                reason.push_str("; no balancer chooses it any more");
            }
            Some(of(task, Deed::Stopped, reason))
        }
        Command::ReportTask {
            id,
            by: None,
            status,
        } if status.state == TaskState::Orphaned => {
            let task = state.task(id)?;
            Some(of(task, Deed::Orphaned, status.message.clone()))
        }
        _ => None,
    }
}

fn of(task: &Task, deed: Deed, reason: String) -> Decision {
    decision(task, deed, task.node.clone(), reason)
}

fn decision(task: &Task, deed: Deed, node: Option<NodeId>, reason: String) -> Decision {
    Decision {
        deed,
        task: task.id.clone(),
        service: task.service.clone(),
        name: task.name(),
        node,
        reason,
    }
}

fn made(state: &State, new: &Task) -> (Deed, String) {
    let others = || {
        state
            .tasks_in(&new.service, new.slot)
            .filter(|t| t.is_member())
    };
    let away = others().find_map(|task| Some((task, displaced(state, task)?)));
    if let Some((task, why)) = away {
        return (Deed::Moved, format!("in place of task {}: {why}", task.id));
    }
    let finished = others()
        .filter(|task| !task.is_live())
        .max_by_key(|task| (task.status.at, task.created_at));
    if let Some(task) = finished {
        let mut reason = format!("task {} of its slot {}", task.id, ended(task));
        if new.restart.failures > 0 {
            let times = new.restart.failures;
            reason = format!("{reason}; {times} failures in a row");
        }
        return (Deed::Made, reason);
    }
    let outdated = state.service(&new.service).and_then(|service| {
        let mut outdated = others().filter(|task| service.is_outdated(task));
        outdated.next()
    });
    match outdated {
        Some(task) => (
            Deed::Made,
            format!("task {} is of another version of the service", task.id),
        ),
        None => (
            Deed::Made,
            "the service has fewer tasks than it should".to_owned(),
        ),
    }
}

/// Tasks that are placed in the same round are not in the state yet.
fn placed(state: &State, task: &Task, node: &NodeId) -> String {
    let tasks = state
        .tasks_on(node)
        .filter(|other| other.service == task.service && other.is_live())
        .count();
    let ready = state
        .nodes()
        .filter(|node| node.status.state == NodeState::Ready)
        .count();
    format!(
        "it fits and ranks first of {ready} ready nodes; {tasks} tasks of the service were there"
    )
}

/// Why a task that goes on is not to.
fn stopped(state: &State, task: &Task) -> String {
    let Some(service) = state.service(&task.service).filter(|s| !s.removing) else {
        return "the service was removed".to_owned();
    };
    if let Some(why) = displaced(state, task) {
        return why;
    }
    if service.is_outdated(task) {
        return "it is of another version of the service".to_owned();
    }
    let mut others = state.tasks_in(&task.service, task.slot);
    let sibling = others.find(|other| other.id != task.id && other.is_member() && other.is_live());
    if let Some(other) = sibling {
        return format!("task {} has its slot", other.id);
    }
    let node = task.node.as_ref().and_then(|id| state.node(id));
    match node.map(|node| scheduler::admit(state, node, task)) {
        Some(Err(refusal @ scheduler::Refusal::Constraint)) => refusal.to_string(),
        _ => "the service has more tasks than it should".to_owned(),
    }
}

/// Why a task's node is not to have it any more.
fn displaced(state: &State, task: &Task) -> Option<String> {
    let id = task.node.as_ref()?;
    let Some(node) = state.node(id) else {
        return Some("its node was removed".to_owned());
    };
    let name = &node.description.hostname;
    match (node.status.state, node.spec.availability) {
        (NodeState::Down, _) => Some(format!("its node {name} is down")),
        (_, Availability::Drain) => Some(format!("its node {name} is drained")),
        _ => None,
    }
}

/// How a task ended.
fn ended(task: &Task) -> String {
    let state = task.status.state;
    match &task.status.error {
        Some(error) => format!("ended ({state}: {error})"),
        None => format!("ended ({state})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, spec};
    use crate::{orchestrator, scheduler};

    /// What the deciders do now, without identifiers.
    fn decisions(world: &World) -> Vec<String> {
        let mut commands = orchestrator::reconcile(&world.state, world.now, 7);
        commands.extend(scheduler::schedule(&world.state, world.now, 7));
        let mut lines: Vec<String> = commands
            .iter()
            .filter_map(|command| explain(&world.state, command))
            .map(|decision| {
                let node = decision.node.as_ref().and_then(|id| world.state.node(id));
                let node = node.map_or("-", |node| node.description.hostname.as_str());
                let mut reason = decision.reason;
                for task in world.state.tasks() {
                    reason = reason.replace(task.id.as_str(), "T");
                }
                format!("{} {node} {}: {reason}", decision.name, decision.deed)
            })
            .collect();
        lines.sort();
        lines
    }

    fn running(nodes: u8, replicas: u32) -> World {
        let mut world = World::new(nodes);
        world.create(1, spec("ng", replicas));
        world.settle();
        world.run_all();
        world
    }

    #[test]
    fn a_new_service() {
        let mut world = World::new(2);
        world.create(1, spec("ng", 1));
        assert_eq!(
            decisions(&world),
            ["ng.1 - task made: the service has fewer tasks than it should"]
        );
        for command in orchestrator::reconcile(&world.state, world.now, 7) {
            world.ok(command);
        }
        let placed = decisions(&world).remove(0);
        let reason = "task placed: it fits and ranks first of 2 ready nodes; 0 tasks of the service were there";
        assert!(placed.ends_with(reason), "{placed}");
        assert!(placed.starts_with("ng.1 n"), "{placed}");
    }

    #[test]
    fn a_scale_down_and_a_removal() {
        let mut world = running(1, 2);
        world.scale(1, 1);
        assert_eq!(
            decisions(&world),
            ["ng.2 n1 task is to stop: the service has more tasks than it should"]
        );
        let id = crate::testing::service_id(1);
        world.ok(Command::RemoveService { id });
        assert_eq!(
            decisions(&world),
            [
                "ng.1 n1 task is to stop: the service was removed",
                "ng.2 n1 task is to stop: the service was removed"
            ]
        );
    }

    #[test]
    fn a_lost_node_moves_its_tasks() {
        let mut world = running(2, 2);
        world.node_is(2, NodeState::Down);
        let found = decisions(&world);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].ends_with("- task moved: in place of task T: its node n2 is down"),
            "{found:?}"
        );
    }

    #[test]
    fn a_drained_node_moves_its_tasks() {
        let mut world = running(2, 2);
        world.availability(1, Availability::Drain);
        let found = decisions(&world);
        assert!(
            found[0].ends_with("- task moved: in place of task T: its node n1 is drained"),
            "{found:?}"
        );
    }

    #[test]
    fn a_failure_is_succeeded() {
        let mut world = running(1, 1);
        let id = world.members()[0].id.clone();
        world.report(&id, TaskState::Failed);
        let found = decisions(&world);
        assert!(
            found[0].starts_with("ng.1 - task made: task T of its slot ended (failed)"),
            "{found:?}"
        );
    }

    #[test]
    fn an_update_replaces() {
        let mut world = running(1, 1);
        world.update(1, |spec| spec.task.force_update += 1);
        assert_eq!(
            decisions(&world),
            ["ng.1 - task made: task T is of another version of the service"]
        );
    }

    #[test]
    fn nobody_can_have_it() {
        let mut world = World::new(1);
        world.availability(1, Availability::Pause);
        world.create(1, spec("ng", 1));
        for command in orchestrator::reconcile(&world.state, world.now, 7) {
            world.ok(command);
        }
        assert_eq!(
            decisions(&world),
            [
                "ng.1 - task refused by every node: no suitable node (1 node not available for new tasks)"
            ]
        );
    }
}
