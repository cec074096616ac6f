use super::*;
use crate::model::{Availability, NodeState, PortMode, PortSpec, Protocol, RuntimeKind, TaskId};
use crate::testing::{World, node, node_id, spec};

/// The reason of the only pending task.
fn reason(world: &World) -> String {
    let task = world
        .state
        .tasks()
        .find(|task| task.node.is_none())
        .unwrap();
    assert_eq!(task.status.state, TaskState::Pending);
    task.status.error.clone().unwrap()
}

#[test]
fn ten_tasks_spread_over_three_nodes() {
    for seed in 0..20 {
        let mut world = World::new(3);
        world.create(1, spec("ng", 10));
        let commands = crate::orchestrator::reconcile(&world.state, world.now, seed);
        world.propose(commands);
        let commands = schedule(&world.state, world.now, seed);
        assert_eq!(commands.len(), 10);
        world.propose(commands);
        let mut spread = world.spread();
        spread.sort_unstable();
        assert_eq!(spread, [3, 3, 4]);
    }
}

#[test]
fn a_group_that_is_placed_needs_no_second_pass() {
    let mut world = World::new(2);
    world.create(1, spec("ng", 3));
    world.settle();
    assert!(schedule(&world.state, world.now, 1).is_empty());
}

#[test]
fn refusals_are_explained_in_dockers_words() {
    let mut world = World::new(6);
    let mut picky = spec("ng", 1);
    picky.task.placement.constraints = vec!["node.labels.zone==a".parse().unwrap()];
    world.create(1, picky);
    world.settle();
    assert_eq!(
        reason(&world),
        "no suitable node (scheduling constraints not satisfied on 6 nodes)"
    );
    // The reason is not proposed again.
    assert!(schedule(&world.state, world.now, 1).is_empty());
    world.node_is(1, NodeState::Unknown);
    world.availability(2, Availability::Pause);
    world.availability(3, Availability::Drain);
    world.settle();
    assert_eq!(
        reason(&world),
        "no suitable node (3 nodes not available for new tasks; \
         scheduling constraints not satisfied on 3 nodes)"
    );
}

#[test]
fn a_cluster_without_nodes_has_no_reasons() {
    let mut world = World::new(1);
    world.ok(Command::RemoveNode { id: node_id(1) });
    world.create(1, spec("ng", 1));
    world.settle();
    assert_eq!(reason(&world), "no suitable node");
}

#[test]
fn reservations_fit_or_wait() {
    let mut world = World::new(2);
    let mut big = spec("big", 3);
    big.task.resources.reservations.memory_bytes = 5 << 30;
    world.create(1, big);
    world.settle();
    assert_eq!(world.spread(), [1, 1]);
    assert_eq!(
        reason(&world),
        "no suitable node (insufficient resources on 2 nodes)"
    );
    // A third node resolves it without any other event.
    world.ok(Command::AddNode {
        node: Box::new(node(3)),
    });
    world.settle();
    assert_eq!(world.spread(), [1, 1, 1]);
}

#[test]
fn a_host_port_is_taken_once_per_node() {
    let mut world = World::new(1);
    let mut dns = spec("dns", 2);
    dns.ports = vec![PortSpec {
        target: 53,
        published: 53,
        protocol: Protocol::Udp,
        mode: PortMode::Host,
        proxy_protocol: None,
        accept_proxy: Vec::new(),
    }];
    world.create(1, dns);
    world.settle();
    assert_eq!(world.spread(), [1]);
    assert_eq!(
        reason(&world),
        "no suitable node (host-mode port already in use on 1 node)"
    );
}

#[test]
fn images_go_where_they_can_run() {
    let mut world = World::new(2);
    let mut process = node(2).description;
    process.runtime = RuntimeKind::Process;
    world.ok(Command::DescribeNode {
        id: node_id(2),
        description: Box::new(process),
    });
    for (number, image, expected) in [
        (1, "nginx:alpine", [2, 0]),
        (2, "/bin/sleep", [0, 2]),
        (3, "whoami", [1, 1]),
    ] {
        let mut service = spec(&format!("s{number}"), 2);
        service.task.containers[0].image = image.to_owned();
        world.create(number, service);
        world.settle();
        assert_eq!(world.spread(), expected, "{image}");
        world.scale(number, 0);
        world.settle();
    }
}

#[test]
fn a_node_whose_engine_is_silent_gets_nothing_until_it_answers() {
    let describe = |world: &mut World, number: u8, engine_version: &str| {
        let mut description = node(number).description;
        description.engine_version = engine_version.to_owned();
        world.propose(vec![Command::DescribeNode {
            id: node_id(number),
            description: Box::new(description),
        }]);
    };
    let mut world = World::new(2);
    describe(&mut world, 1, "");
    world.create(1, spec("ng", 4));
    world.settle();
    assert_eq!(world.spread(), [0, 4], "all are where an engine answers");

    describe(&mut world, 2, "");
    world.create(2, spec("api", 1));
    world.settle();
    assert_eq!(
        reason(&world),
        "no suitable node (container engine does not answer on 2 nodes)"
    );
    assert_eq!(world.spread(), [0, 4], "tasks that run stay where they are");

    describe(&mut world, 1, "29.0");
    world.settle();
    assert!(world.state.tasks().all(|task| task.node.is_some()));
}

#[test]
fn the_larger_free_share_wins_over_the_number_of_tasks() {
    let mut world = World::new(2);
    let mut large = node(2).description;
    large.resources.nano_cpus *= 4;
    large.resources.memory_bytes *= 4;
    world.ok(Command::DescribeNode {
        id: node_id(2),
        description: Box::new(large),
    });
    for number in 1..=5 {
        let mut service = spec(&format!("s{number}"), 1);
        service.task.resources.reservations.nano_cpus = 1_000_000_000;
        world.create(number, service);
        world.settle();
    }
    assert_eq!(world.spread(), [1, 4]);
}

#[test]
fn nodes_on_which_a_service_keeps_failing_come_last() {
    let mut world = World::new(2);
    world.create(1, spec("ng", 1));
    let mut tried = Vec::new();
    for _ in 0..=FAULTY {
        world.settle();
        let waiting = world.members().remove(0);
        world.now = waiting.restart.not_before.max(world.now);
        world.settle();
        let task = world.members().remove(0);
        tried.extend(task.node.clone());
        world.report(&task.id, TaskState::Failed);
    }
    // The seed is the same each time, so nothing else would make it choose another node.
    assert!(
        tried[..FAULTY].iter().all(|node| *node == tried[0]),
        "{tried:?}"
    );
    assert_ne!(tried[FAULTY], tried[0]);
}

#[test]
fn a_back_off_is_waited_for() {
    let mut world = World::new(1);
    world.create(1, spec("ng", 1));
    for _ in 0..2 {
        world.settle();
        let id: TaskId = world.members().remove(0).id;
        world.report(&id, TaskState::Failed);
    }
    world.settle();
    let task = world.members().remove(0);
    assert!(task.restart.not_before > world.now && task.node.is_none());
    assert_eq!(task.desired, TaskState::Ready);
    world.now = task.restart.not_before;
    world.settle();
    let task = world.members().remove(0);
    assert_eq!(task.desired, TaskState::Running);
    assert!(task.node.is_some());
}
