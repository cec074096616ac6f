//! 100,000 tasks placed on 1,000 nodes in one run: the time of each step, and the memory.
//!
//! With `SWARMLET_BENCH_OUT` in the environment the result is also written there, to
//! `placement.md`.

mod large;

use std::collections::BTreeMap;
use std::{fs, io};

use large::World;
use large::report::{Machine, ProcessorTime, publish};

const NODES: u16 = 1000;
const SERVICES: u16 = 100;
const REPLICAS: u32 = 1000;

fn main() -> anyhow::Result<()> {
    let machine = Machine::look()?;
    let mut world = World::new(NODES);
    world.create(SERVICES, REPLICAS);
    let mut lines = vec![
        "| step | processor time |".to_owned(),
        "|---|---|".to_owned(),
    ];
    let begun = ProcessorTime::now();
    let mut step = |name: &str, work: &mut dyn FnMut()| {
        let begun = ProcessorTime::now();
        work();
        let spent = (ProcessorTime::now() - begun).as_millis();
        lines.push(format!("| {name} | {spent} ms |"));
    };
    let mut commands = Vec::new();
    step("the orchestrator makes the tasks", &mut || {
        commands = world.orchestrate();
    });
    step("apply", &mut || world.apply(std::mem::take(&mut commands)));
    step("the scheduler places them", &mut || {
        commands = world.schedule();
    });
    step("apply", &mut || world.apply(std::mem::take(&mut commands)));
    let all = (ProcessorTime::now() - begun).as_millis();
    lines.push(format!("| all | {all} ms |"));
    check(&world);
    lines.push(String::new());
    lines.push(format!(
        "Each node has {} of them. The process has {} MB at the end and had {} MB at most.",
        u32::from(SERVICES) * REPLICAS / u32::from(NODES),
        memory("VmRSS:")?,
        memory("VmHWM:")?
    ));
    let explanation = format!(
        "{} tasks of {SERVICES} services on {NODES} nodes, all at once and on one thread:",
        u32::from(SERVICES) * REPLICAS
    );
    publish(
        ("placement.md", "Placement of many tasks"),
        &machine,
        &explanation,
        &(lines.join("\n") + "\n"),
    )
}

/// Every task has a node, and every node as many as any other.
fn check(world: &World) {
    let mut on_node: BTreeMap<_, u32> = BTreeMap::new();
    for task in world.state.tasks() {
        let node = task.node.as_ref().expect("there is room for every task");
        *on_node.entry(node).or_default() += 1;
    }
    assert_eq!(on_node.len(), usize::from(NODES));
    let fair = u32::from(SERVICES) * REPLICAS / u32::from(NODES);
    assert!(on_node.values().all(|count| *count == fair), "{on_node:?}");
}

/// A line of the kernel's account of this process, in megabytes.
fn memory(name: &str) -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let kibibytes = status
        .lines()
        .find_map(|line| {
            line.strip_prefix(name)?
                .split_whitespace()
                .next()?
                .parse::<u64>()
                .ok()
        })
        .ok_or_else(|| io::Error::other(format!("no {name} in /proc/self/status")))?;
    Ok(kibibytes * 1024 / 1_000_000)
}
