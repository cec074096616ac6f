use super::*;
use crate::testing::{World, ingress, node_id, spec};

/// Two nodes, and a task of `ng` that is draining since `world.now`.
fn draining() -> (World, TaskId) {
    let mut world = World::new(2);
    let mut ng = spec("ng", 1);
    ng.ports = vec![ingress(80, 80)];
    world.create(1, ng);
    world.settle();
    world.run_all();
    world.scale(1, 0);
    world.settle();
    let task = world.state.tasks().next().unwrap();
    assert!(task.draining.is_some());
    let id = task.id.clone();
    (world, id)
}

/// Acknowledgements of both nodes at versions relative to that of the drain, with so many
/// connections; `None` for a node that is silent.
fn acks(world: &World, task: &TaskId, nodes: [Option<(i64, u64)>; 2]) -> Acks {
    let draining = world.state.task(task).unwrap().draining.unwrap();
    let mut acks = Acks::default();
    for (number, said) in (1..).zip(nodes) {
        let Some((behind, active)) = said else {
            continue;
        };
        let ack = NodeAck {
            version: Version(draining.version.0.checked_add_signed(behind).unwrap()),
            active: BTreeMap::from([(task.clone(), active)]),
        };
        acks.nodes.insert(node_id(number), ack);
    }
    acks
}

#[track_caller]
fn check(nodes: [Option<(i64, u64)>; 2], waited_ms: u64, stops: bool) {
    let (mut world, id) = draining();
    world.pass(Duration::from_millis(waited_ms));
    let acks = acks(&world, &id, nodes);
    let expected = Command::SetDesired {
        id,
        desired: TaskState::Shutdown,
    };
    let found = advance(&world.state, &acks, world.now);
    assert_eq!(found, if stops { vec![expected] } else { vec![] });
}

#[test]
fn every_ready_node_acknowledges_first() {
    check([None, None], 0, false);
    check([Some((0, 0)), None], 1_999, false);
    check([Some((0, 0)), Some((-1, 0))], 1_999, false);
    check([Some((0, 0)), Some((3, 0))], 0, true);
}

#[test]
fn silence_counts_for_two_seconds() {
    check([Some((0, 0)), None], 2_000, true);
    check([Some((0, 0)), Some((-1, 5))], 2_000, true);
    check([None, None], 2_000, true);
}

#[test]
fn connections_are_waited_for_until_the_timeout() {
    check([Some((0, 1)), Some((0, 0))], 0, false);
    check([Some((0, 1)), Some((0, 0))], 9_999, false);
    check([Some((0, 1)), None], 2_000, false);
    check([Some((0, 1)), Some((0, 0))], 10_000, true);
}

#[test]
fn nodes_that_are_away_are_not_waited_for() {
    let (mut world, id) = draining();
    let own = world.state.task(&id).unwrap().node.clone().unwrap();
    let (own, other) = if own == node_id(1) { (1, 2) } else { (2, 1) };
    world.node_is(other, NodeState::Unknown);
    let mut said = [Some((0, 0)), Some((0, 0))];
    said[usize::from(other) - 1] = None;
    let told = acks(&world, &id, said);
    assert_eq!(advance(&world.state, &told, world.now).len(), 1);
    world.node_is(own, NodeState::Unknown);
    let nothing = Acks::default();
    assert_eq!(advance(&world.state, &nothing, world.now).len(), 1);
}

#[test]
fn a_removed_service_left_the_table_at_its_removal() {
    let mut world = World::new(1);
    let mut ng = spec("ng", 1);
    ng.ports = vec![ingress(80, 80)];
    world.create(1, ng);
    world.settle();
    world.run_all();
    world.ok(Command::RemoveService {
        id: crate::testing::service_id(1),
    });
    let removal = world.state.version();
    world.settle();
    let ack = |version| Acks {
        nodes: BTreeMap::from([(
            node_id(1),
            NodeAck {
                version,
                active: BTreeMap::new(),
            },
        )]),
    };
    let stops = |version| advance(&world.state, &ack(version), world.now).len();
    assert_eq!(stops(Version(removal.0 - 1)), 0);
    assert_eq!(stops(removal), 1);
}

#[test]
fn what_is_told_to_stop_is_told_once() {
    let (mut world, id) = draining();
    world.pass(Duration::from_secs(10));
    let commands = advance(&world.state, &Acks::default(), world.now);
    world.propose(commands);
    assert!(advance(&world.state, &Acks::default(), world.now).is_empty());
    assert_eq!(world.state.task(&id).unwrap().desired, TaskState::Shutdown);
}
