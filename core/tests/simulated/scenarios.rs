//! Scenarios as text files: what happens, then `---`, then what is to be seen.
//!
//! `UPDATE_GOLDEN=1` writes what was seen into the files, for a look at the difference.
//!
//! ```text
//! node NAME CPUScpu MEMORYGiB [zone=Z] [rack=R] [arch=A] [KIND:N] [KIND:NAME,NAME]
//!                                        service NAME [replicas=N] [port=80:80] [host-port=53:53]
//! scale NAME N · rm NAME                    [cpus=N] [constraint=KEY==VALUE] [drain=SECONDSs]
//! run SECONDSs                              [image=IMAGE] [behaves=…]
//! kill|ill|eject|well NAME.SLOT          behave NAME healthy|missing|crash=SECONDSs
//! lose NODE · return NODE · forget NODE  connections NAME.SLOT N
//! active|pause|drain NODE                label NODE KEY=VALUE
//! promote|demote NODE                    unlabel NODE KEY
//! leader-change · no-leader SECONDSs     show tasks|endpoints|nodes|updates|zones|generic|counts
//! update NAME [any option of service]         |containers
//! rollback NAME · rebalance NAME
//! ```
//!
//! A container that is killed ends, and so does one that is ill; one that is ejected is ill and
//! runs on, until it is well. Those that show one of Docker Swarm's behaviour checks say so.
//!
//! Behaviours hold for a service or for an image. The options that say how a service is
//! updated are in [`crate::options`].

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use swarmlet_core::apply::Outcome;
use swarmlet_core::command::Command;
use swarmlet_core::model::{Availability, NodeId, Role, TaskId};

use crate::objects::node;
use crate::options;
use crate::shown::{name_of, show};
use crate::simulation::Simulation;

#[test]
fn scenarios_go_as_written() {
    let files = files();
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

/// Docker Swarm's behaviours that swarmlet keeps are numbered from 1 to 25. Number 10 is about the
/// managers' log alone: a test of the command's shows it, on daemons (`forced.rs`).
#[test]
fn every_behaviour_check_has_a_scenario() {
    let mut shown = BTreeSet::from([10]);
    for file in files() {
        let text = std::fs::read_to_string(&file).unwrap();
        let first = text.lines().next().unwrap_or_default();
        let Some(numbers) = first.strip_prefix("# Behaviour check") else {
            continue;
        };
        let numbers = numbers.split(|c: char| !c.is_ascii_digit());
        shown.extend(numbers.filter_map(|number| number.parse::<u32>().ok()));
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("check-"), "{name} shows {first:?}");
    }
    assert_eq!(shown, (1..=25).collect());
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
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
            [word @ ("kill" | "ill" | "eject" | "well"), task] => {
                let id = task_id(simulation, task);
                let done = match word {
                    "kill" => simulation.fail(&id, "task: non-zero exit (137)"),
                    "ill" => simulation.fail(&id, "unhealthy container"),
                    _ => simulation.eject(&id, word == "eject"),
                };
                assert!(done, "{task} does not run");
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
                let changed = change_node(simulation, &node_id(&self.nodes, name), (word, words));
                if let Err(refusal) = changed {
                    writeln!(self.output, "> {line}\nrefused: {refusal}").unwrap();
                }
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
fn change_node(simulation: &mut Simulation, id: &NodeId, change: (&str, &[&str])) -> Outcome {
    match change {
        (word @ ("lose" | "return"), []) => {
            simulation.agents.get_mut(id).unwrap().connected = word == "return";
            Ok(Vec::new())
        }
        ("forget", []) => {
            let removed = simulation.user(Command::RemoveNode { id: id.clone() });
            simulation.agents.remove(id);
            removed
        }
        ("label", [label]) => {
            let (key, value) = label.split_once('=').unwrap();
            simulation.update_node(id, |spec| {
                spec.labels.insert(key.to_owned(), value.to_owned());
            })
        }
        (word @ ("active" | "pause" | "drain"), []) => {
            let availability = match word {
                "active" => Availability::Active,
                "pause" => Availability::Pause,
                _ => Availability::Drain,
            };
            simulation.update_node(id, |spec| spec.availability = availability)
        }
        ("unlabel", [key]) => simulation.update_node(id, |spec| {
            spec.labels.remove(*key);
        }),
        (word @ ("promote" | "demote"), []) => simulation.update_node(id, |spec| {
            spec.role = match word {
                "promote" => Role::Manager,
                _ => Role::Worker,
            };
        }),
        _ => panic!("what is {change:?}?"),
    }
}

fn node_id(nodes: &[String], name: &str) -> NodeId {
    let position = nodes.iter().position(|node| node == name);
    let number = position.unwrap_or_else(|| panic!("no node {name}")) + 1;
    NodeId::from_random(number as u128)
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
