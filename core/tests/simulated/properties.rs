//! Whatever happens, the invariants hold; and once it stops, what is, is what was asked for.
//!
//! The simulation checks the invariants after each proposal. proptest prints the smallest
//! failing sequence and keeps its seed in `proptest-regressions`.

use std::time::Duration;

use proptest::prelude::*;
use swarmlet_core::command::Command;
use swarmlet_core::model::{
    Availability, FailureAction, FailureRatio, NodeId, PortMode, PortSpec, Protocol,
    RestartCondition, ServiceMode, ServiceSpec, TaskId, UpdateConfig, UpdateOrder,
};

use crate::agent::Behaviour;
use crate::cases;
use crate::objects::{self, node};
use crate::simulation::Simulation;

const NODES: u8 = 4;
const SERVICES: u8 = 3;

/// The longest back-off that a test of this length grows, and what follows on it.
const CONVERGES_WITHIN: Duration = Duration::from_secs(400);

/// A new image, and how the service comes to it.
#[derive(Debug, Clone)]
struct Update {
    config: UpdateConfig,
    /// Of a few, so that a service also comes back to one that it had.
    image: u8,
    broken: Option<Behaviour>,
}

fn update() -> impl Strategy<Value = Update> {
    let action = prop_oneof![
        Just(FailureAction::Pause),
        Just(FailureAction::Continue),
        Just(FailureAction::Rollback),
    ];
    let order = prop_oneof![Just(UpdateOrder::StopFirst), Just(UpdateOrder::StartFirst)];
    let percents = prop_oneof![
        2 => Just((None, None)),
        1 => (0..100u32, 100..250u32).prop_map(|(min, max)| (Some(min), Some(max))),
    ];
    let broken = prop_oneof![
        3 => Just(None),
        1 => Just(Some(Behaviour::Missing)),
        1 => Just(Some(Behaviour::NeverHealthy)),
        1 => (0..3000u64).prop_map(|ms| Some(Behaviour::CrashesAfter(ms))),
    ];
    let numbers = (0..4u32, 0..3u64, 0..=1_000_000u32);
    (numbers, action, order, percents, 0..4u8, broken).prop_map(
        |((parallelism, delay, ratio), failure_action, order, (min, max), image, broken)| Update {
            config: UpdateConfig {
                parallelism,
                delay: Duration::from_secs(delay),
                monitor: Duration::from_secs(2),
                max_failure_ratio: FailureRatio::from_millionths(ratio).expect("at most one"),
                failure_action,
                order,
                min_healthy_percent: min,
                max_percent: max,
                progress_deadline: Duration::from_secs(30),
            },
            image,
            broken,
        },
    )
}

/// Something that happens to a cluster.
#[derive(Debug, Clone)]
enum Incident {
    Create(u8, ServiceMode),
    Scale(u8, u32),
    Update(u8, Update),
    Rollback(u8),
    Rebalance(u8),
    Remove(u8),
    Lose(u8),
    Leave(u8),
    Return(u8),
    Forget(u8),
    Availability(u8, Availability),
    Label(u8, bool),
    Behave(u8, Behaviour),
    Kill(usize),
    Eject(usize, bool),
    Connect(usize, u64),
    ChangeLeader,
    Replay(usize),
    Run(u64),
}

fn incident() -> impl Strategy<Value = Incident> {
    let service = || 0..SERVICES;
    let node = || 1..=NODES;
    let availability = prop_oneof![
        Just(Availability::Active),
        Just(Availability::Pause),
        Just(Availability::Drain),
    ];
    let behaviour = prop_oneof![
        Just(Behaviour::Healthy),
        Just(Behaviour::Missing),
        (0..3000u64).prop_map(Behaviour::CrashesAfter),
        (0..3000u64).prop_map(Behaviour::CompletesAfter),
    ];
    prop_oneof![
        3 => (service(), mode()).prop_map(|(s, m)| Incident::Create(s, m)),
        3 => (service(), 0..12u32).prop_map(|(s, n)| Incident::Scale(s, n)),
        4 => (service(), update()).prop_map(|(s, u)| Incident::Update(s, u)),
        1 => service().prop_map(Incident::Rollback),
        2 => service().prop_map(Incident::Rebalance),
        1 => service().prop_map(Incident::Remove),
        2 => node().prop_map(Incident::Lose),
        1 => node().prop_map(Incident::Leave),
        2 => node().prop_map(Incident::Return),
        1 => (2..=NODES).prop_map(Incident::Forget),
        2 => (node(), availability).prop_map(|(n, a)| Incident::Availability(n, a)),
        2 => (node(), any::<bool>()).prop_map(|(n, label)| Incident::Label(n, label)),
        2 => (service(), behaviour).prop_map(|(s, b)| Incident::Behave(s, b)),
        3 => (0..50usize).prop_map(Incident::Kill),
        2 => (0..50usize, any::<bool>()).prop_map(|(t, ejected)| Incident::Eject(t, ejected)),
        1 => (0..50usize, 0..3u64).prop_map(|(t, n)| Incident::Connect(t, n)),
        2 => Just(Incident::ChangeLeader),
        3 => (1..30usize).prop_map(Incident::Replay),
        8 => (1..80u64).prop_map(Incident::Run),
    ]
}

fn mode() -> impl Strategy<Value = ServiceMode> {
    prop_oneof![
        4 => (0..8u32).prop_map(|replicas| ServiceMode::Replicated { replicas }),
        2 => Just(ServiceMode::Global {}),
        2 => (0..4u32, 0..8u32).prop_map(|(max_concurrent, total_completions)| {
            ServiceMode::ReplicatedJob { max_concurrent, total_completions }
        }),
        1 => Just(ServiceMode::GlobalJob {}),
    ]
}

/// The first service keeps to nodes without a label that nodes get and lose.
fn spec(number: u8, mode: ServiceMode) -> ServiceSpec {
    let port = |published, mode| PortSpec {
        target: 80,
        published,
        protocol: Protocol::Tcp,
        mode,
        proxy_protocol: None,
        accept_proxy: Vec::new(),
    };
    let mut spec = objects::spec(&format!("s{number}"));
    spec.mode = mode;
    spec.task.resources.reservations.nano_cpus = 50_000_000 * u64::from(number);
    spec.ports = vec![port(u16::from(number) + 80, PortMode::Ingress)];
    spec.drain_timeout = Duration::from_secs(5);
    if number == 0 {
        let constraint = "node.labels.other!=yes".parse().expect("it is one");
        spec.task.placement.constraints.push(constraint);
    }
    if mode.is_job() {
        spec.task.restart.condition = RestartCondition::OnFailure;
    }
    spec
}

fn task_number(simulation: &Simulation, number: usize) -> Option<TaskId> {
    let count = simulation.state.tasks().count();
    let position = number.checked_rem(count)?;
    let task = simulation.state.tasks().nth(position)?;
    Some(task.id.clone())
}

/// What a user asks for may be refused; the state is whole in either case.
fn happen(simulation: &mut Simulation, incident: &Incident) {
    let node_id = |number: u8| NodeId::from_random(u128::from(number));
    let exists = |simulation: &Simulation, number: u8| {
        simulation
            .state
            .service_named(&format!("s{number}"))
            .is_some()
    };
    match *incident {
        Incident::Create(number, mode) => {
            let id = simulation.service_id();
            let spec = Box::new(spec(number, mode));
            let taken = exists(simulation, number);
            let outcome = simulation.user(Command::CreateService { id, spec });
            assert_eq!(outcome.is_err(), taken);
        }
        Incident::Scale(number, replicas) if exists(simulation, number) => {
            let name = format!("s{number}");
            let mut spec = simulation.service(&name).spec.clone();
            // With one task on each node there is nothing to scale.
            spec.mode = spec.mode.scaled(replicas).unwrap_or(spec.mode);
            if spec.validate().is_ok() {
                simulation
                    .update(&name, |edited| *edited = spec)
                    .expect("nobody else changes it");
            }
        }
        Incident::Update(number, ref change) if exists(simulation, number) => {
            update_service(simulation, number, change);
        }
        Incident::Rollback(number) if exists(simulation, number) => {
            let service = simulation.service(&format!("s{number}"));
            let command = Command::RollbackService {
                id: service.id.clone(),
                expected: service.version,
                message: "manually requested rollback".to_owned(),
            };
            let possible = service.previous_spec.is_some();
            assert_eq!(simulation.user(command).is_ok(), possible);
        }
        Incident::Rebalance(number) if exists(simulation, number) => {
            let id = simulation.service(&format!("s{number}")).id.clone();
            if let Some((command, _)) = swarmlet_core::rebalance::start(&simulation.state, &id) {
                // It is refused during an update.
                let updating = simulation.service(&format!("s{number}")).is_updating();
                assert_eq!(simulation.user(command).is_err(), updating);
            }
        }
        Incident::Remove(number) if exists(simulation, number) => {
            let id = simulation.service(&format!("s{number}")).id.clone();
            simulation
                .user(Command::RemoveService { id })
                .expect("it exists");
        }
        Incident::Scale(..)
        | Incident::Update(..)
        | Incident::Rollback(_)
        | Incident::Rebalance(_)
        | Incident::Remove(_) => {}
        Incident::Lose(number) => connect(simulation, &node_id(number), false),
        Incident::Leave(number) => simulation.leave(&node_id(number)),
        Incident::Return(number) => connect(simulation, &node_id(number), true),
        Incident::Forget(number) => {
            let id = node_id(number);
            // A second time it is not found.
            drop(simulation.user(Command::RemoveNode { id: id.clone() }));
            simulation.agents.remove(&id);
        }
        Incident::Availability(number, availability) => {
            set_availability(simulation, &node_id(number), availability);
        }
        Incident::Label(number, is_other) => label(simulation, &node_id(number), is_other),
        Incident::Behave(number, behaviour) => {
            simulation
                .behaviours
                .insert(format!("s{number}"), behaviour);
        }
        Incident::Kill(number) => {
            if let Some(task) = task_number(simulation, number) {
                simulation.fail(&task, "task: non-zero exit (137)");
            }
        }
        Incident::Eject(number, ejected) => {
            if let Some(task) = task_number(simulation, number) {
                simulation.eject(&task, ejected);
            }
        }
        Incident::Connect(number, active) => {
            if let Some(task) = task_number(simulation, number) {
                simulation.connections.insert(task, active);
            }
        }
        Incident::ChangeLeader => simulation.change_leader(),
        Incident::Replay(count) => simulation.replay(count),
        Incident::Run(ticks) => simulation.run(crate::simulation::TICK * (ticks as u32)),
    }
}

fn update_service(simulation: &mut Simulation, number: u8, update: &Update) {
    let image = format!("s{number}:{}", update.image);
    if let Some(broken) = update.broken {
        simulation.behaviours.insert(image.clone(), broken);
    }
    let name = format!("s{number}");
    let mut spec = simulation.service(&name).spec.clone();
    spec.task.containers[0].image = image;
    if !spec.mode.is_job() {
        spec.update = update.config;
        spec.rollback = UpdateConfig {
            failure_action: FailureAction::Pause,
            ..update.config
        };
    }
    // Bounds that could never move are refused before they are proposed.
    if spec.validate().is_ok() {
        simulation
            .update(&name, |edited| *edited = spec)
            .expect("nobody else changes it");
    }
}

fn connect(simulation: &mut Simulation, id: &NodeId, connected: bool) {
    if let Some(agent) = simulation.agents.get_mut(id) {
        agent.connected = connected;
    }
}

fn label(simulation: &mut Simulation, id: &NodeId, is_other: bool) {
    let labelled = simulation.update_node(id, |spec| {
        let value = if is_other { "yes" } else { "no" };
        spec.labels.insert("other".to_owned(), value.to_owned());
    });
    labelled.expect("nobody else changes it");
}

fn set_availability(simulation: &mut Simulation, id: &NodeId, availability: Availability) {
    let set = simulation.update_node(id, |spec| spec.availability = availability);
    set.expect("nobody else changes it");
}

/// Services run again, and jobs come to their end.
fn heal(simulation: &mut Simulation) {
    simulation.behaviours.clear();
    let jobs: Vec<String> = simulation
        .state
        .services()
        .filter(|service| service.spec.mode.is_job() && !service.removing)
        .map(|service| service.spec.name.clone())
        .collect();
    for name in jobs {
        let ends = Behaviour::CompletesAfter(300);
        simulation.behaviours.insert(name, ends);
    }
    simulation.connections.clear();
    let tasks: Vec<TaskId> = simulation
        .state
        .tasks()
        .map(|task| task.id.clone())
        .collect();
    for task in &tasks {
        simulation.eject(task, false);
    }
    let nodes: Vec<NodeId> = simulation.agents.keys().cloned().collect();
    for id in &nodes {
        connect(simulation, id, true);
        set_availability(simulation, id, Availability::Active);
        label(simulation, id, false);
    }
    // Which nodes are there is a part of what is asked for: all of them are heard once.
    simulation.tick();
}

proptest! {
    #![proptest_config(cases::config(96))]

    #[test]
    fn faults_break_nothing_and_pass(
        seed in any::<u64>(),
        incidents in prop::collection::vec(incident(), 1..40),
    ) {
        let mut simulation = Simulation::new(seed, node("n1", 1, 4, 8 << 30));
        for number in 2..=NODES {
            simulation.join(node(&format!("n{number}"), number, 4, 8 << 30));
        }
        for incident in &incidents {
            happen(&mut simulation, incident);
        }
        heal(&mut simulation);
        if let Err(reason) = simulation.converge(CONVERGES_WITHIN) {
            return Err(TestCaseError::fail(format!("it does not converge: {reason}")));
        }
        // Nothing goes on changing afterwards, but that an ended task is forgotten.
        let version = simulation.state.tasks().map(|task| task.version).max();
        simulation.run(Duration::from_secs(2));
        let later = simulation.state.tasks().map(|task| task.version).max();
        prop_assert!(later <= version, "{version:?}, then {later:?}");
    }
}
