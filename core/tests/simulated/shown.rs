//! What scenarios show of a cluster.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use swarmlet_core::endpoints::{self, EndpointState};
use swarmlet_core::model::{NodeId, Task, TaskId, TaskState};

use crate::simulation::Simulation;

/// What `show` prints.
pub(crate) fn show(simulation: &Simulation, what: &str) -> String {
    match what {
        "tasks" => tasks(simulation),
        "endpoints" => table(simulation),
        "nodes" => nodes(simulation),
        "zones" => zones(simulation),
        "generic" => generic(simulation),
        "updates" => updates(simulation),
        "counts" => counts(simulation),
        "containers" => containers(simulation),
        _ => panic!("cannot show {what}"),
    }
}

fn hostname<'a>(simulation: &'a Simulation, id: Option<&NodeId>) -> &'a str {
    id.and_then(|id| simulation.state.node(id))
        .map_or("-", |node| &node.description.hostname)
}

/// As `service ps` shows them: by slot, the newest first.
fn tasks(simulation: &Simulation) -> String {
    let mut tasks: Vec<&Task> = simulation.state.tasks().collect();
    tasks.sort_by_key(|task| {
        let name = (task.service_name.clone(), task.slot);
        (name, std::cmp::Reverse(task.created_at), task.id.clone())
    });
    let mut text = String::new();
    for task in tasks {
        let host = hostname(simulation, task.node.as_ref());
        let (desired, state) = (task.desired, task.status.state);
        let draining = if task.draining.is_some() && task.is_live() {
            " draining"
        } else {
            ""
        };
        write!(
            text,
            "{:<6} {host:<3} {desired:<8} {state:<8}{draining}",
            name_of(simulation, task)
        )
        .unwrap();
        let waits = task.node.is_none() && task.is_live() && task.status.error.is_none();
        if waits {
            write!(text, " {}", task.status.message).unwrap();
        }
        if let Some(error) = &task.status.error {
            write!(text, " {error:?}").unwrap();
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

/// Each service: how many of its tasks are in which state, but for those kept to be looked at.
fn counts(simulation: &Simulation) -> String {
    let mut text = String::new();
    for service in simulation.state.services() {
        let mut states: BTreeMap<TaskState, usize> = BTreeMap::new();
        let counts = |task: &&Task| task.is_live() || task.is_member();
        for task in simulation.state.tasks_of(&service.id).filter(counts) {
            *states.entry(task.status.state).or_default() += 1;
        }
        write!(text, "{}:", service.spec.name).unwrap();
        for (state, count) in states {
            write!(text, " {count} {state}").unwrap();
        }
        text.push('\n');
    }
    text
}

/// What really runs on each node, whether its managers hear of it or not.
fn containers(simulation: &Simulation) -> String {
    let mut text = String::new();
    for (id, agent) in &simulation.agents {
        write!(text, "{}:", hostname(simulation, Some(id))).unwrap();
        let task = |id: &TaskId| simulation.state.task(id);
        let mut names: Vec<String> = agent
            .running()
            .map(|id| task(id).map_or("?".to_owned(), |task| name_of(simulation, task)))
            .collect();
        names.sort();
        for name in names {
            write!(text, " {name}").unwrap();
        }
        text.push('\n');
    }
    text
}

fn table(simulation: &Simulation) -> String {
    let mut text = String::new();
    for listener in endpoints::derive(&simulation.state).listeners {
        write!(text, "{} {}:", listener.port, listener.service_name).unwrap();
        let mut endpoints: Vec<String> = listener
            .endpoints
            .iter()
            .map(|endpoint| {
                let task = simulation.state.task(&endpoint.task).unwrap();
                let name = name_of(simulation, task);
                let host = hostname(simulation, Some(&endpoint.node));
                match endpoint.state {
                    EndpointState::Ready => format!(" {name}@{host}"),
                    EndpointState::Draining => format!(" {name}@{host}(draining)"),
                }
            })
            .collect();
        endpoints.sort();
        text.extend(endpoints);
        text.push('\n');
    }
    text
}

/// Each service: where its update stands, and its running tasks by image.
fn updates(simulation: &Simulation) -> String {
    let mut text = String::new();
    for service in simulation.state.services() {
        write!(text, "{}:", service.spec.name).unwrap();
        let mut running: BTreeMap<&str, usize> = BTreeMap::new();
        let serves = |task: &&Task| {
            task.status.state == TaskState::Running && task.desired <= TaskState::Running
        };
        for task in simulation.state.tasks_of(&service.id).filter(serves) {
            *running.entry(&task.spec.containers[0].image).or_default() += 1;
        }
        for (image, count) in running {
            write!(text, " {count} of {image}").unwrap();
        }
        if let Some(status) = &service.update_status {
            let id = status.failed_task.as_ref();
            let task = id.and_then(|id| simulation.state.task(id));
            let name = task.map(|task| name_of(simulation, task));
            let mut message = status.message.clone();
            if let (Some(id), Some(name)) = (id, name) {
                message = message.replace(id.as_str(), &name);
            }
            write!(text, ", {}: {message}", status.state).unwrap();
        }
        text.push('\n');
    }
    text
}

/// Members by zone, and of how many on each node.
fn zones(simulation: &Simulation) -> String {
    let mut zones: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for node in simulation.state.nodes() {
        let zone = node.spec.labels.get("zone").map_or("-", String::as_str);
        let rack = node.spec.labels.get("rack");
        let tasks = simulation.state.tasks_on(&node.id);
        let count = tasks.filter(|t| t.is_live() && t.is_member()).count();
        let rack = rack.map_or(String::new(), |rack| format!("({rack})"));
        let name = &node.description.hostname;
        let nodes = zones.entry(zone).or_default();
        nodes.push(format!("{name}{rack}={count}"));
    }
    let line = |(zone, nodes): (&str, Vec<String>)| format!("{zone}: {}\n", nodes.join(" "));
    zones.into_iter().map(line).collect()
}

/// Which generic resources each node's tasks have.
fn generic(simulation: &Simulation) -> String {
    let mut text = String::new();
    for node in simulation.state.nodes() {
        write!(text, "{}:", node.description.hostname).unwrap();
        let tasks = simulation.state.tasks_on(&node.id);
        for task in tasks.filter(|task| task.is_live()) {
            for (kind, amount) in &task.spec.resources.reservations.generic {
                let names = task.generic_names.get(kind);
                let names = names.map_or(String::new(), |names| format!("({})", names.join(",")));
                write!(text, " {}={amount} {kind}{names}", task.name()).unwrap();
            }
        }
        text.push('\n');
    }
    text
}

fn nodes(simulation: &Simulation) -> String {
    let mut text = String::new();
    for node in simulation.state.nodes() {
        let name = &node.description.hostname;
        let (state, message) = (node.status.state, &node.status.message);
        let tasks = simulation
            .state
            .tasks_on(&node.id)
            .filter(|task| task.is_live() && task.is_member())
            .count();
        write!(text, "{name} {state} {tasks} tasks {message}").unwrap();
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

/// `service.slot`, or `service.host` where the service has one task on each node.
pub(crate) fn name_of(simulation: &Simulation, task: &Task) -> String {
    match &task.home {
        Some(home) => {
            let node = simulation.state.node(home);
            let host = node.map_or(home.as_str(), |node| node.description.hostname.as_str());
            format!("{}.{host}", task.service_name)
        }
        None => task.name(),
    }
}
