//! Scenarios as text files: what happens, then `---`, then what is to be seen.
//!
//! `UPDATE_GOLDEN=1` writes what was seen into the files, for a look at the difference.
//!
//! ```text
//! node NAME CPUScpu MEMORYGiB [zone=Z] [rack=R] [arch=A] [KIND:N] [KIND:NAME,NAME]
//!                                        service NAME [replicas=N] [port=80:80] [host-port=53:53]
//! scale NAME N · rm NAME                    [cpus=N] [constraint=KEY==VALUE] [drain=SECONDSs]
//! run SECONDSs                              [image=IMAGE] [behaves=…]
//! kill NAME.SLOT                         behave NAME healthy|missing|crash=SECONDSs
//! lose NODE · return NODE · forget NODE  connections NAME.SLOT N
//! active|pause|drain NODE                label NODE KEY=VALUE
//! promote|demote NODE                    unlabel NODE KEY
//! leader-change · no-leader SECONDSs     show tasks|endpoints|nodes|updates|zones|generic|counts
//! update NAME [any option of service]    rollback NAME · rebalance NAME
//! ```
//!
//! Behaviours hold for a service or for an image. The options that say how a service is
//! updated are in [`crate::options`].

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use swarmlet_core::command::Command;
use swarmlet_core::endpoints::{self, EndpointState};
use swarmlet_core::model::{Availability, NodeId, Role, Task, TaskId, TaskState};

use crate::objects::node;
use crate::options;
use crate::simulation::Simulation;

#[test]
fn scenarios_go_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 10, "only {} scenarios", files.len());
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut differences = String::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let (script, expected) = text.split_once("---\n").unwrap_or((&text, ""));
        let found = play(script);
        if update {
            std::fs::write(&file, format!("{}\n---\n{found}", script.trim_end())).unwrap();
        } else if found != expected {
            let name = file.file_name().unwrap().display();
            write!(
                differences,
                "\n=== {name}\n{}",
                difference(expected, &found)
            )
            .unwrap();
        }
    }
    assert!(differences.is_empty(), "{differences}");
}

/// The lines from the first that differs, with `-` for expected and `+` for found.
fn difference(expected: &str, found: &str) -> String {
    let same = expected
        .lines()
        .zip(found.lines())
        .take_while(|(a, b)| a == b)
        .count();
    let mut text = String::new();
    for line in expected.lines().take(same).skip(same.saturating_sub(3)) {
        writeln!(text, "  {line}").unwrap();
    }
    for (sign, lines) in [('-', expected), ('+', found)] {
        for line in lines.lines().skip(same).take(12) {
            writeln!(text, "{sign} {line}").unwrap();
        }
    }
    text
}

fn play(script: &str) -> String {
    let mut player = Player::default();
    for line in script.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if !line.is_empty() {
            player.line(line);
        }
    }
    player.output
}

#[derive(Default)]
struct Player {
    simulation: Option<Simulation>,
    nodes: Vec<String>,
    output: String,
}

fn roll_back(simulation: &mut Simulation, name: &str) -> Result<(), String> {
    let service = simulation.service(name);
    let command = Command::RollbackService {
        id: service.id.clone(),
        expected: service.version,
        message: "manually requested rollback".to_owned(),
    };
    simulation
        .user(command)
        .map(drop)
        .map_err(|refusal| refusal.to_string())
}

fn update(simulation: &mut Simulation, name: &str, words: &[&str]) -> Result<(), String> {
    let mut spec = simulation.service(name).spec.clone();
    for option in words {
        options::set(simulation, &mut spec, option);
    }
    spec.validate().map_err(|invalid| invalid.to_string())?;
    simulation
        .update(name, |edited| *edited = spec)
        .map(drop)
        .map_err(|refusal| refusal.to_string())
}

impl Player {
    fn line(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["node", name, cpus, memory, ref words @ ..] = words[..] {
            return self.node(name, cpus, memory, words);
        }
        let simulation = self.simulation.as_mut().expect("a node comes first");
        match words[..] {
            ["service", name, ref words @ ..] => {
                let spec = options::service(simulation, name, words);
                let id = simulation.service_id();
                let spec = Box::new(spec);
                if let Err(refusal) = simulation.user(Command::CreateService { id, spec }) {
                    writeln!(self.output, "> {line}\nrefused: {refusal}").unwrap();
                }
            }
            ["scale", name, replicas] => {
                let replicas = replicas.parse().unwrap();
                simulation
                    .update(name, |spec| spec.mode = spec.mode.scaled(replicas).unwrap())
                    .unwrap();
            }
            ["update", name, ref words @ ..] => {
                if let Err(refusal) = update(simulation, name, words) {
                    writeln!(self.output, "> {line}\nrefused: {refusal}").unwrap();
                }
            }
            ["rollback", name] => {
                if let Err(refusal) = roll_back(simulation, name) {
                    writeln!(self.output, "> {line}\nrefused: {refusal}").unwrap();
                }
            }
            ["rebalance", name] => {
                let id = simulation.service(name).id.clone();
                let command = swarmlet_core::rebalance::start(&simulation.state, &id);
                let moves = command.as_ref().map_or(0, |(_, moves)| *moves);
                writeln!(self.output, "> {line}\n{moves} to move").unwrap();
                if let Some(Err(refusal)) = command.map(|(command, _)| simulation.user(command)) {
                    writeln!(self.output, "refused: {refusal}").unwrap();
                }
            }
            ["rm", name] => {
                let id = simulation.service(name).id.clone();
                simulation.user(Command::RemoveService { id }).unwrap();
            }
            ["run", time] => simulation.run(options::seconds(time)),
            ["behave", name, behaviour] => options::behave(simulation, name, behaviour),
            ["kill", task] => {
                let id = task_id(simulation, task);
                assert!(simulation.kill(&id), "{task} does not run");
            }
            ["connections", task, count] => {
                let id = task_id(simulation, task);
                simulation.connections.insert(id, count.parse().unwrap());
            }
            ["leader-change"] => simulation.change_leader(),
            ["no-leader", time] => simulation.run_without_leader(options::seconds(time)),
            ["show", what] => {
                let time = simulation.elapsed().as_secs_f64();
                writeln!(self.output, "> {what} at {time:.1}s").unwrap();
                self.output += &show(simulation, what);
            }
            [word, name, ref words @ ..] => {
                change_node(simulation, &node_id(&self.nodes, name), (word, words));
            }
            _ => panic!("what is {line:?}?"),
        }
    }

    fn node(&mut self, name: &str, cpus: &str, memory: &str, words: &[&str]) {
        self.nodes.push(name.to_owned());
        let number = u8::try_from(self.nodes.len()).unwrap();
        let cpus = cpus.strip_suffix("cpu").unwrap().parse().unwrap();
        let gibibytes: u64 = memory.strip_suffix("GiB").unwrap().parse().unwrap();
        let mut node = node(name, number, cpus, gibibytes << 30);
        for word in words {
            options::describe(&mut node, word);
        }
        match &mut self.simulation {
            Some(simulation) => simulation.join(node),
            None => self.simulation = Some(Simulation::new(1, node)),
        }
    }
}

/// What happens to a node, or what a user wants of it.
fn change_node(simulation: &mut Simulation, id: &NodeId, change: (&str, &[&str])) {
    match change {
        ("lose", []) => simulation.agents.get_mut(id).unwrap().connected = false,
        ("return", []) => simulation.agents.get_mut(id).unwrap().connected = true,
        ("forget", []) => {
            simulation
                .user(Command::RemoveNode { id: id.clone() })
                .unwrap();
            simulation.agents.remove(id);
        }
        ("label", [label]) => {
            let (key, value) = label.split_once('=').unwrap();
            simulation.update_node(id, |spec| {
                spec.labels.insert(key.to_owned(), value.to_owned());
            });
        }
        (word @ ("active" | "pause" | "drain"), []) => {
            let availability = match word {
                "active" => Availability::Active,
                "pause" => Availability::Pause,
                _ => Availability::Drain,
            };
            simulation.update_node(id, |spec| spec.availability = availability);
        }
        ("unlabel", [key]) => {
            simulation.update_node(id, |spec| {
                spec.labels.remove(*key);
            });
        }
        (word @ ("promote" | "demote"), []) => {
            simulation.update_node(id, |spec| {
                spec.role = match word {
                    "promote" => Role::Manager,
                    _ => Role::Worker,
                };
            });
        }
        _ => panic!("what is {change:?}?"),
    }
}

fn node_id(nodes: &[String], name: &str) -> NodeId {
    let position = nodes.iter().position(|node| node == name);
    let number = position.unwrap_or_else(|| panic!("no node {name}")) + 1;
    NodeId::from_random(number as u128)
}

/// `service.slot`, or `service.host` where the service has one task on each node.
fn name_of(simulation: &Simulation, task: &Task) -> String {
    match &task.home {
        Some(home) => {
            let node = simulation.state.node(home);
            let host = node.map_or(home.as_str(), |node| node.description.hostname.as_str());
            format!("{}.{host}", task.service_name)
        }
        None => task.name(),
    }
}

/// The newest task of `service.slot`.
fn task_id(simulation: &Simulation, name: &str) -> TaskId {
    let tasks = simulation
        .state
        .tasks()
        .filter(|task| name_of(simulation, task) == name);
    let newest = tasks.max_by_key(|task| (task.is_member(), task.is_live(), task.created_at));
    newest
        .unwrap_or_else(|| panic!("no task {name}"))
        .id
        .clone()
}

fn show(simulation: &Simulation, what: &str) -> String {
    match what {
        "tasks" => tasks(simulation),
        "endpoints" => table(simulation),
        "nodes" => nodes(simulation),
        "zones" => zones(simulation),
        "generic" => generic(simulation),
        "updates" => updates(simulation),
        "counts" => counts(simulation),
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
