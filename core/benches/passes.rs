//! One pass of each decider over a large cluster, and how its time grows with the cluster: ten
//! times the nodes and tasks should take about ten times as long, not a hundred times.
//!
//! With `SWARMLET_BENCH_OUT` in the environment the result is also written there, to `passes.md`.

mod large;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use criterion::{BatchSize, Criterion, SamplingMode};
use large::report::{Machine, ProcessorTime, publish};
use large::{SEED, World};
use swarmlet_core::command::Command;
use swarmlet_core::endpoints;
use swarmlet_core::model::{Task, TaskPort, TaskState, TaskStatus};
use swarmlet_core::plan::{self, Change};

/// A cluster: nodes, services, replicas of each.
#[derive(Clone, Copy)]
struct Size {
    name: &'static str,
    nodes: u16,
    services: u16,
    replicas: u32,
}

/// The same twice, ten times as large; and once with all tasks in one service.
const SIZES: [Size; 4] = [
    Size {
        name: "small",
        nodes: 100,
        services: 10,
        replicas: 100,
    },
    Size {
        name: "large",
        nodes: 1000,
        services: 100,
        replicas: 100,
    },
    Size {
        name: "small, one service",
        nodes: 100,
        services: 1,
        replicas: 1000,
    },
    Size {
        name: "large, one service",
        nodes: 1000,
        services: 1,
        replicas: 10_000,
    },
];

/// What is measured, in the order of the report.
const PASSES: [&str; 8] = [
    "orchestrator: all tasks to create",
    "orchestrator: nothing to do",
    "scheduler: all tasks to place",
    "scheduler: one task in a hundred to place",
    "scheduler: nothing to do",
    "endpoints: the whole table",
    "apply: all placements",
    "dry run: a service is updated",
];

impl Size {
    fn tasks(self) -> u32 {
        u32::from(self.services) * self.replicas
    }

    /// Services without tasks.
    fn empty(self) -> World {
        let mut world = World::new(self.nodes);
        world.create(self.services, self.replicas);
        world
    }

    /// Tasks without nodes.
    fn pending(self) -> World {
        let mut world = self.empty();
        world.apply(world.orchestrate());
        assert_eq!(world.state.tasks().count(), self.tasks() as usize);
        world
    }

    /// All tasks run.
    fn running(self) -> World {
        let mut world = self.pending();
        world.apply(world.schedule());
        run_all(&mut world);
        assert!(world.orchestrate().is_empty() && world.schedule().is_empty());
        world
    }

    /// One task in a hundred has failed, and another one is to take its place.
    fn wounded(self) -> World {
        let mut world = self.running();
        let failed = world.state.tasks().step_by(100).map(|task| {
            let mut status = task.status.clone();
            status.state = TaskState::Failed;
            Command::ReportTask {
                id: task.id.clone(),
                by: task.node.clone(),
                status: Box::new(status),
            }
        });
        world.apply(failed.collect());
        world.apply(world.orchestrate());
        world.now = world.now.after(Duration::from_secs(60));
        world
    }
}

fn main() -> anyhow::Result<()> {
    let machine = Machine::look()?;
    let output = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("passes");
    let mut criterion = Criterion::default()
        .output_directory(&output)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .sample_size(20)
        .with_measurement(ProcessorTime)
        .configure_from_args();
    for size in SIZES {
        passes(&mut criterion, size);
    }
    criterion.final_summary();
    publish(
        ("passes.md", "Decisions over large clusters"),
        &machine,
        EXPLANATION,
        &table(&output),
    )
}

fn passes(criterion: &mut Criterion<ProcessorTime>, size: Size) {
    let (empty, pending, running) = (size.empty(), size.pending(), size.running());
    let wounded = size.wounded();
    let placements = pending.schedule();
    assert_eq!(placements.len(), size.tasks() as usize);
    assert_eq!(wounded.schedule().len(), size.tasks() as usize / 100);
    let mut group = criterion.benchmark_group(size.name);
    let mut pass = |name: usize, run: &dyn Fn() -> usize| {
        group.bench_function(PASSES[name], |bencher| bencher.iter(run));
    };
    pass(0, &|| empty.orchestrate().len());
    pass(1, &|| running.orchestrate().len());
    pass(2, &|| pending.schedule().len());
    pass(3, &|| wounded.schedule().len());
    pass(4, &|| running.schedule().len());
    pass(5, &|| endpoints::derive(&running.state).listeners.len());
    group.bench_function(PASSES[6], |bencher| {
        let before = || World {
            state: pending.state.clone(),
            now: pending.now,
        };
        bencher.iter_batched(
            || (before(), placements.clone()),
            |(mut world, placements)| {
                world.apply(placements);
                world
            },
            BatchSize::LargeInput,
        );
    });
    // Minutes would go by otherwise: one of them is a hundred passes and more.
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    let update = update(&running);
    group.bench_function(PASSES[7], |bencher| {
        bencher.iter(|| {
            let plan = plan::plan(&running.state, &update, running.now, SEED);
            let plan = plan.expect("a change of a service that exists is accepted");
            assert_eq!(plan.steps.len(), 1 + size.replicas as usize);
        });
    });
    group.finish();
}

/// A change that makes every task of the first service anew.
fn update(world: &World) -> Vec<Change> {
    let service = world.state.services().next();
    let service = service.expect("there is a service to update");
    let mut spec = service.spec.clone();
    spec.task.force_update += 1;
    vec![Change::UpdateService {
        id: service.id.clone(),
        expected: service.version,
        spec: Box::new(spec),
    }]
}

/// Every task that has a node runs there, and has done so for a while.
fn run_all(world: &mut World) {
    let running = |task: &Task| {
        let ports = task.ports.iter().map(|port| TaskPort {
            target: port.target,
            host: 20_000 + u16::try_from(task.slot % 10_000).unwrap_or_default(),
            protocol: port.protocol,
            mode: port.mode,
        });
        Command::ReportTask {
            id: task.id.clone(),
            by: task.node.clone(),
            status: Box::new(TaskStatus {
                state: TaskState::Running,
                ports: ports.collect(),
                ..task.status.clone()
            }),
        }
    };
    let placed = world.state.tasks().filter(|task| task.node.is_some());
    world.apply(placed.map(running).collect());
    world.now = world.now.after(Duration::from_secs(60));
}

/// What criterion found, with the growth from small to large.
fn table(output: &Path) -> String {
    let mut medians: BTreeMap<(usize, usize), f64> = BTreeMap::new();
    for (pass, name) in PASSES.iter().enumerate() {
        for (size, of) in SIZES.iter().enumerate() {
            if let Some(median) = median_ns(output, name, of.name) {
                medians.insert((pass, size), median);
            }
        }
    }
    let mut text = String::from(
        "| pass | 100 nodes, 1,000 tasks | 1,000 nodes, 10,000 tasks | growth | all in one service | growth |\n\
         |---|---|---|---|---|---|\n",
    );
    for (pass, name) in PASSES.iter().enumerate() {
        let time = |size| {
            let median = medians.get(&(pass, size));
            median.map_or_else(|| "–".into(), |ns| format!("{:.2} ms", ns / 1e6))
        };
        let growth = |small, large| {
            let (small, large) = (medians.get(&(pass, small))?, medians.get(&(pass, large))?);
            Some(format!("× {:.1}", large / small))
        };
        text.push_str(&format!(
            "| {name} | {} | {} | {} | {} | {} |\n",
            time(0),
            time(1),
            growth(0, 1).unwrap_or_default(),
            time(3),
            growth(2, 3).unwrap_or_default(),
        ));
    }
    text
}

/// The median that criterion wrote for a benchmark.
fn median_ns(output: &Path, pass: &str, size: &str) -> Option<f64> {
    // Criterion names directories like its benchmarks, but for what file systems dislike.
    let name = |text: &str| text.replace(':', "_");
    let directory = output.join(name(size)).join(name(pass));
    let text = fs::read_to_string(directory.join("new/estimates.json")).ok()?;
    let (_, median) = text.split_once("\"median\"")?;
    let (_, estimate) = median.split_once("\"point_estimate\":")?;
    let end = estimate.find([',', '}'])?;
    estimate[..end].trim().parse().ok()
}

const EXPLANATION: &str = "\
Each figure is the median processor time of one pass, measured by criterion on one thread. Growth is the factor for
ten times the nodes and tasks: 10 is proportional, and what no longer fits the processor's caches costs more. The
services have 100 replicas each, or there is only one with all of them. A scheduler pass looks at every node once
for each service that has tasks to place, so ten times the services on ten times the nodes are a hundred times the
looks. The dry run plans an update of one service that replaces all of its tasks.";
