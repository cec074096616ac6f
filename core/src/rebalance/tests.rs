use super::*;
use crate::model::{Availability, UpdateState, UpdateStatus};
use crate::plan::{Change, plan};
use crate::testing::{World, node, node_id, service_id, spec};

/// A service with so many tasks on so many nodes, and then another node.
fn crowded(nodes: u8, replicas: u32) -> World {
    let mut world = World::new(nodes);
    world.create(1, spec("ng", replicas));
    world.settle();
    world.run_all();
    join(&mut world, nodes + 1);
    world
}

fn join(world: &mut World, number: u8) {
    world.ok(Command::AddNode {
        node: Box::new(node(number)),
    });
}

/// Asks for a rebalance; says how many tasks it is to move.
fn ask(world: &mut World) -> u32 {
    let Some((command, moves)) = start(&world.state, &service_id(1)) else {
        return 0;
    };
    world.ok(command);
    moves
}

fn running(world: &World) -> usize {
    let runs = |task: &&Task| task.status.state == TaskState::Running && task.is_member();
    world.state.tasks().filter(runs).count()
}

/// Lets deciders and agents work until nothing happens; the service never has fewer running
/// tasks than it should, and never more than `most` beyond them.
fn finish(world: &mut World, replicas: usize, most: usize) {
    for _ in 0..200 {
        let before = world.state.version();
        world.settle();
        assert!(running(world) >= replicas, "{:?}", world.lines());
        world.run_all();
        assert!(running(world) <= replicas + most, "{:?}", world.lines());
        let stopping: Vec<_> = world
            .state
            .tasks()
            .filter(|task| task.is_live() && task.desired > TaskState::Running)
            .map(|task| task.id.clone())
            .collect();
        for id in stopping {
            world.report(&id, TaskState::Shutdown);
        }
        if world.state.version() == before {
            return;
        }
    }
    panic!("it goes on and on: {:?}", world.lines());
}

fn is_over(world: &World) -> bool {
    let service = world.state.service(&service_id(1)).unwrap();
    service.rebalance.is_none()
        && world
            .state
            .tasks()
            .all(|task| !task.moving || !task.is_live())
}

#[test]
fn tasks_move_to_a_node_that_joined_one_after_the_other() {
    let mut world = crowded(2, 9);
    assert_eq!(ask(&mut world), 3);
    finish(&mut world, 9, 1);
    assert_eq!(world.spread(), [3, 3, 3]);
    assert!(is_over(&world));
}

#[test]
fn as_many_move_at_a_time_as_an_update_would_replace() {
    for (parallelism, most) in [(2, 2), (0, 6)] {
        let mut world = crowded(1, 12);
        world.update(1, |spec| spec.update.parallelism = parallelism);
        assert_eq!(ask(&mut world), 6);
        finish(&mut world, 12, most);
        assert_eq!(world.spread(), [6, 6]);
    }
}

#[test]
fn what_is_balanced_is_left_alone() {
    let mut world = crowded(2, 2);
    assert_eq!(ask(&mut world), 0, "1-1-0 is as even as can be");
    let before = world.state.clone();
    assert!(advance(&world.state).is_empty());
    assert_eq!(world.state, before);
    let mut packed = spec("packed", 8);
    packed.task.placement.strategy = crate::model::Strategy::Binpack;
    let mut world = World::new(1);
    world.create(1, packed);
    world.settle();
    world.run_all();
    join(&mut world, 2);
    assert_eq!(ask(&mut world), 0, "it is together on purpose");
}

#[test]
fn zones_come_before_nodes() {
    let mut world = World::new(3);
    let zone = |world: &mut World, number: u8, zone: &str| {
        let node = world.state.node(&node_id(number)).unwrap();
        let mut spec = node.spec.clone();
        spec.labels.insert("zone".to_owned(), zone.to_owned());
        let (id, expected) = (node.id.clone(), node.version);
        world.ok(Command::UpdateNode { id, expected, spec });
    };
    for (number, name) in [(1, "a"), (2, "a"), (3, "b")] {
        zone(&mut world, number, name);
    }
    let mut ng = spec("ng", 8);
    ng.task.placement.preferences = vec!["spread=node.labels.zone".parse().unwrap()];
    world.create(1, ng);
    world.settle();
    world.run_all();
    assert_eq!(world.spread(), [2, 2, 4]);
    join(&mut world, 4);
    zone(&mut world, 4, "a");
    // Between 2 and 2 on one side and 0 on the other, one may go and no more: the zone is whole.
    assert_eq!(ask(&mut world), 1);
    finish(&mut world, 8, 1);
    let mut spread = world.spread();
    assert_eq!(spread.remove(2), 4);
    spread.sort_unstable();
    assert_eq!(spread, [1, 1, 2]);
}

#[test]
fn nothing_moves_where_there_is_no_room() {
    let mut world = World::new(1);
    let mut big = spec("ng", 4);
    big.task.resources.reservations.nano_cpus = 1_000_000_000;
    world.create(1, big);
    world.settle();
    world.run_all();
    join(&mut world, 2);
    let mut other = spec("other", 1);
    other.task.resources.reservations.nano_cpus = 3_000_000_000;
    world.create(2, other);
    world.settle();
    assert_eq!(ask(&mut world), 1, "one fits beside the other service");
    world.availability(2, Availability::Pause);
    world.settle();
    assert_eq!(running(&world), 4);
    assert!(is_over(&world), "{:?}", world.lines());
    assert_eq!(ask(&mut world), 0);
}

#[test]
fn a_replacement_that_finds_no_node_or_fails_ends_it() {
    let mut world = crowded(1, 4);
    ask(&mut world);
    world.propose(advance(&world.state));
    world.availability(2, Availability::Pause);
    world.availability(1, Availability::Pause);
    world.settle();
    assert!(is_over(&world), "{:?}", world.lines());
    assert_eq!(running(&world), 4);

    let mut world = crowded(1, 4);
    ask(&mut world);
    world.settle();
    let new = world
        .members()
        .into_iter()
        .find(|task| task.status.state == TaskState::Assigned);
    world.report(&new.unwrap().id, TaskState::Rejected);
    world.settle();
    assert!(is_over(&world), "{:?}", world.lines());
    assert_eq!(running(&world), 4);
    assert_eq!(world.spread(), [4, 0]);
}

#[test]
fn an_update_ends_it_and_it_does_not_begin_during_one() {
    let mut world = crowded(1, 4);
    ask(&mut world);
    world.settle();
    world.update(1, |spec| spec.task.force_update += 1);
    assert!(is_over(&world));
    let status = |world: &World| {
        let service = world.state.service(&service_id(1)).unwrap();
        service
            .update_status
            .as_ref()
            .map(|s: &UpdateStatus| s.state)
    };
    assert_eq!(status(&world), Some(UpdateState::Updating));
    let service = world.state.service(&service_id(1)).unwrap();
    let command = Command::StartRebalance {
        id: service_id(1),
        expected: service.version,
        moves: 1,
    };
    assert_eq!(
        world.refusal(command),
        "service ng is being updated: rebalance it when the update is over"
    );
}

#[test]
fn a_plan_shows_the_moves() {
    let world = crowded(1, 4);
    let changes = [Change::Rebalance(service_id(1))];
    let found = plan(&world.state, &changes, world.now, 3).unwrap();
    assert!(found.is_complete);
    let to: Vec<_> = found
        .steps
        .iter()
        .map(|step| (step.action, step.to.clone()))
        .collect();
    let one = (crate::plan::Action::Move, Some(node_id(2)));
    assert_eq!(to, [one.clone(), one]);
    let world = crowded(2, 2);
    let found = plan(&world.state, &changes, world.now, 3).unwrap();
    assert_eq!(found.steps, []);
}
