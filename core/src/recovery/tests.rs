use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::command::Command;
use crate::invariants;
use crate::model::{Cluster, NodeSpec};
use crate::testing::{World, node_id, service_id, spec};
use crate::{liveness, orchestrator, scheduler};

fn address(number: u8) -> SocketAddr {
    ([10, 0, 0, number], 2377).into()
}

/// Managers 1 to 3, workers 4 and 5, and a service with a task on each of them.
fn world() -> World {
    let mut world = World::new(5);
    for number in 1..=3 {
        let id = node_id(number);
        let node = world.state.node(&id).unwrap();
        let (expected, spec) = (node.version, node.spec.clone());
        world.ok(Command::UpdateNode {
            id: id.clone(),
            expected,
            spec: NodeSpec {
                role: Role::Manager,
                ..spec
            },
        });
        let raft_id = world.state.cluster().unwrap().next_raft_id;
        world.ok(Command::SetManager {
            id,
            manager: Some(ManagerInfo {
                raft_id,
                address: address(number),
            }),
        });
    }
    world.ok(Command::CreateService {
        id: service_id(1),
        spec: Box::new(spec("web", 5)),
    });
    decide(&mut world);
    world
}

/// Runs the deciders until nothing is left to do.
fn decide(world: &mut World) {
    for seed in 0..20 {
        let mut commands = orchestrator::reconcile(&world.state, world.now, seed);
        commands.extend(scheduler::schedule(&world.state, world.now, seed));
        if commands.is_empty() {
            return;
        }
        world.propose(commands);
    }
    panic!("the deciders never rest");
}

fn survivor(world: &World) -> Survivor {
    Survivor {
        node: node_id(2),
        address: address(2),
        now: world.now,
    }
}

fn alone(world: &World, survivor: &Survivor) -> State {
    let state = go_on_alone(&world.state, survivor).unwrap();
    invariants::check(&state).unwrap();
    invariants::check_step(&world.state, &state).unwrap();
    state
}

#[test]
fn services_tasks_and_workers_stay_and_the_other_managers_go() {
    let world = world();
    let before = &world.state;
    let state = alone(&world, &survivor(&world));

    assert!(state.services().eq(before.services()));
    assert!(state.tasks().eq(before.tasks()));
    for worker in [4, 5].map(node_id) {
        assert_eq!(state.node(&worker), before.node(&worker));
    }
    let (old, new) = (before.cluster().unwrap(), state.cluster().unwrap());
    let same = Cluster {
        version: old.version,
        incarnation: old.incarnation,
        ..new.clone()
    };
    assert_eq!(same, *old, "tokens, certificates, settings");
    let managers: Vec<_> = state
        .nodes()
        .filter(|node| node.manager.is_some())
        .collect();
    assert_eq!(managers.len(), 1);
    assert_eq!(managers[0].id, node_id(2));
    for lost in [1, 3].map(node_id) {
        let node = state.node(&lost).unwrap();
        assert!(node.superseded);
        assert_eq!(node.spec.role, Role::Worker);
        assert_eq!(node.status.state, NodeState::Down);
        assert_eq!(node.status.since, world.now);
        assert!(node.status.message.contains("leave --force"));
    }
}

#[test]
fn tasks_of_the_managers_that_are_lost_run_elsewhere_and_no_others_move() {
    let mut world = world();
    let kept: Vec<_> = [2, 4, 5]
        .map(node_id)
        .iter()
        .flat_map(|id| world.state.tasks_on(id))
        .map(|task| task.id.clone())
        .collect();
    assert_eq!(kept.len(), 3);
    world.state = alone(&world, &survivor(&world));
    decide(&mut world);
    let runs: Vec<_> = world.state.tasks().filter(|task| task.is_live()).collect();
    for id in &kept {
        assert!(runs.iter().any(|task| task.id == *id), "{id} stays");
    }
    let elsewhere = runs.iter().filter(|task| {
        let node = task.node.clone();
        !kept.contains(&task.id) && node.is_some_and(|id| [2, 4, 5].map(node_id).contains(&id))
    });
    assert_eq!(elsewhere.count(), 2);
}

#[test]
fn what_is_left_behind_stays_down() {
    let mut world = world();
    world.state = alone(&world, &survivor(&world));
    let heard: BTreeMap<_, _> = [2, 4, 5]
        .map(|number| (node_id(number), Duration::ZERO))
        .into();
    world.now = world.now.after(Duration::from_secs(3600));
    let ages = liveness::ages(&world.state, &heard, Duration::from_secs(3600));
    assert_eq!(liveness::judge(&world.state, &ages, world.now), []);
}

#[test]
fn of_two_that_go_on_the_later_one_is_greater() {
    let world = world();
    let first = alone(&world, &survivor(&world));
    let later = Survivor {
        node: node_id(1),
        address: address(1),
        now: world.now.after(Duration::from_secs(60)),
    };
    let second = alone(&world, &later);
    let incarnation = |state: &State| state.cluster().unwrap().incarnation;
    assert!(incarnation(&first) > 0);
    assert!(incarnation(&second) > incarnation(&first));
    // A clock that was set back takes nothing back.
    let back = Survivor {
        now: Timestamp(1),
        ..survivor(&world)
    };
    let third = go_on_alone(&first, &back).unwrap();
    assert!(incarnation(&third) > incarnation(&first));
    assert!(third.version() > first.version());
}

#[test]
fn it_takes_its_new_address_and_stays_a_manager() {
    let mut world = world();
    let node = world.state.node(&node_id(2)).unwrap();
    let (expected, spec) = (node.version, node.spec.clone());
    world.ok(Command::UpdateNode {
        id: node_id(2),
        expected,
        spec: NodeSpec {
            role: Role::Worker,
            ..spec
        },
    });
    let moved = Survivor {
        address: address(99),
        ..survivor(&world)
    };
    let state = alone(&world, &moved);
    let node = state.node(&node_id(2)).unwrap();
    assert_eq!(node.spec.role, Role::Manager);
    assert_eq!(node.manager.as_ref().unwrap().address, address(99));
}

#[test]
fn a_state_to_go_on_with_is_needed() {
    let world = world();
    let no_state = go_on_alone(&State::default(), &survivor(&world));
    assert_eq!(no_state, Err(RecoveryError::NoState));
    let worker = Survivor {
        node: node_id(4),
        ..survivor(&world)
    };
    assert_eq!(
        go_on_alone(&world.state, &worker),
        Err(RecoveryError::NoManager)
    );
}
