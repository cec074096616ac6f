//! Whatever happens, the invariants hold; and once it stops, what is, is what was asked for.
//!
//! The simulation checks the invariants after each proposal. proptest prints the smallest
//! failing sequence and keeps its seed in `proptest-regressions`.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::Config;
use swarmlet_core::command::Command;
use swarmlet_core::model::{
    Availability, ContainerSpec, LbPolicy, NodeId, PortMode, PortSpec, Protocol, ServiceMode,
    ServiceSpec, TaskId, TaskSpec,
};

use crate::agent::Behaviour;
use crate::simulation::{Simulation, node};

const NODES: u8 = 4;
const SERVICES: u8 = 3;

/// The longest back-off that a test of this length grows, and what follows on it.
const CONVERGES_WITHIN: Duration = Duration::from_secs(400);

/// Something that happens to a cluster.
#[derive(Debug, Clone)]
enum Incident {
    Create(u8, u32),
    Scale(u8, u32),
    ChangeImage(u8),
    Remove(u8),
    Lose(u8),
    Return(u8),
    Forget(u8),
    Availability(u8, Availability),
    Behave(u8, Behaviour),
    Kill(usize),
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
    ];
    prop_oneof![
        3 => (service(), 0..8u32).prop_map(|(s, n)| Incident::Create(s, n)),
        3 => (service(), 0..12u32).prop_map(|(s, n)| Incident::Scale(s, n)),
        1 => service().prop_map(Incident::ChangeImage),
        1 => service().prop_map(Incident::Remove),
        2 => node().prop_map(Incident::Lose),
        2 => node().prop_map(Incident::Return),
        1 => (2..=NODES).prop_map(Incident::Forget),
        2 => (node(), availability).prop_map(|(n, a)| Incident::Availability(n, a)),
        2 => (service(), behaviour).prop_map(|(s, b)| Incident::Behave(s, b)),
        3 => (0..50usize).prop_map(Incident::Kill),
        1 => (0..50usize, 0..3u64).prop_map(|(t, n)| Incident::Connect(t, n)),
        2 => Just(Incident::ChangeLeader),
        3 => (1..30usize).prop_map(Incident::Replay),
        8 => (1..80u64).prop_map(Incident::Run),
    ]
}

fn spec(number: u8, replicas: u32) -> ServiceSpec {
    let port = |published, mode| PortSpec {
        target: 80,
        published,
        protocol: Protocol::Tcp,
        mode,
    };
    let mut task = TaskSpec {
        containers: vec![ContainerSpec {
            image: "whoami".to_owned(),
            ..ContainerSpec::default()
        }],
        ..TaskSpec::default()
    };
    task.resources.reservations.nano_cpus = 50_000_000 * u64::from(number);
    ServiceSpec {
        name: format!("s{number}"),
        labels: std::collections::BTreeMap::new(),
        mode: ServiceMode::Replicated { replicas },
        task,
        ports: vec![port(u16::from(number) + 80, PortMode::Ingress)],
        lb_policy: LbPolicy::RoundRobin,
        drain_timeout: Duration::from_secs(5),
    }
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
        Incident::Create(number, replicas) => {
            let id = simulation.service_id();
            let spec = Box::new(spec(number, replicas));
            let taken = exists(simulation, number);
            let outcome = simulation.user(Command::CreateService { id, spec });
            assert_eq!(outcome.is_err(), taken);
        }
        Incident::Scale(number, replicas) if exists(simulation, number) => {
            simulation
                .update(&format!("s{number}"), |spec| {
                    spec.mode = ServiceMode::Replicated { replicas };
                })
                .expect("nobody else changes it");
        }
        Incident::ChangeImage(number) if exists(simulation, number) => {
            simulation
                .update(&format!("s{number}"), |spec| {
                    spec.task.containers[0].image.push('x');
                })
                .expect("nobody else changes it");
        }
        Incident::Remove(number) if exists(simulation, number) => {
            let id = simulation.service(&format!("s{number}")).id.clone();
            simulation
                .user(Command::RemoveService { id })
                .expect("it exists");
        }
        Incident::Scale(..) | Incident::ChangeImage(_) | Incident::Remove(_) => {}
        Incident::Lose(number) => connect(simulation, &node_id(number), false),
        Incident::Return(number) => connect(simulation, &node_id(number), true),
        Incident::Forget(number) => {
            let id = node_id(number);
            // A second time it is not found.
            drop(simulation.user(Command::RemoveNode { id: id.clone() }));
            simulation.agents.remove(&id);
        }
        Incident::Availability(number, availability) => {
            simulation.update_node(&node_id(number), |spec| spec.availability = availability);
        }
        Incident::Behave(number, behaviour) => {
            simulation
                .behaviours
                .insert(format!("s{number}"), behaviour);
        }
        Incident::Kill(number) => {
            if let Some(task) = task_number(simulation, number) {
                simulation.kill(&task);
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

fn connect(simulation: &mut Simulation, id: &NodeId, connected: bool) {
    if let Some(agent) = simulation.agents.get_mut(id) {
        agent.connected = connected;
    }
}

fn heal(simulation: &mut Simulation) {
    simulation.behaviours.clear();
    simulation.connections.clear();
    let nodes: Vec<NodeId> = simulation.agents.keys().cloned().collect();
    for id in &nodes {
        connect(simulation, id, true);
        simulation.update_node(id, |spec| spec.availability = Availability::Active);
    }
}

proptest! {
    #![proptest_config(Config {
        // A few seconds without optimisation.
        cases: 96,
        ..Config::default()
    })]

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
        // Nothing goes on changing afterwards.
        let version = simulation.state.tasks().map(|task| task.version).max();
        simulation.run(Duration::from_secs(2));
        prop_assert_eq!(simulation.state.tasks().map(|task| task.version).max(), version);
    }
}
