use super::*;
use crate::testing::{World, node_id};

const FRESH: u64 = 500;

fn heartbeats(ages_ms: &[u64]) -> BTreeMap<NodeId, Duration> {
    (1..)
        .zip(ages_ms)
        .map(|(number, &age)| (node_id(number), Duration::from_millis(age)))
        .collect()
}

/// Nodes that have been there for an hour.
fn old_cluster(nodes: u8) -> World {
    let mut world = World::new(nodes);
    world.pass(Duration::from_secs(3600));
    world
}

/// Judges and applies; says which nodes changed, as `2 down`.
fn judged(world: &mut World, ages_ms: &[u64]) -> Vec<String> {
    let commands = judge(&world.state, &heartbeats(ages_ms), world.now);
    let changes = commands
        .iter()
        .map(|command| match command {
            Command::ReportNode { id, state, .. } => {
                let number = (1..=u8::MAX).find(|&n| node_id(n) == *id).unwrap();
                format!("{number} {state}")
            }
            other => panic!("{other:?}"),
        })
        .collect();
    world.propose(commands);
    changes
}

#[test]
fn silence_makes_a_node_unknown_then_down_and_a_heartbeat_ready() {
    let mut world = old_cluster(3);
    assert_eq!(judged(&mut world, &[FRESH, 3_999, FRESH]), [""; 0]);
    assert_eq!(judged(&mut world, &[FRESH, 4_000, FRESH]), ["2 unknown"]);
    let node = world.state.node(&node_id(2)).unwrap();
    assert_eq!(node.status.message, "no heartbeat for 4 s");
    world.pass(Duration::from_millis(2_999));
    assert_eq!(judged(&mut world, &[FRESH, 6_999, FRESH]), [""; 0]);
    world.pass(Duration::from_millis(1));
    assert_eq!(judged(&mut world, &[FRESH, 7_000, FRESH]), ["2 down"]);
    assert_eq!(judged(&mut world, &[FRESH, FRESH, FRESH]), ["2 ready"]);
}

#[test]
fn a_node_that_has_joined_is_unknown_until_it_is_heard() {
    let joined = || {
        let mut world = old_cluster(1);
        let mut new = crate::testing::node(2);
        new.status.state = NodeState::Unknown;
        world.ok(Command::AddNode {
            node: Box::new(new),
        });
        world
    };
    // The leader has been one for longer than the node has been there.
    let old = [FRESH, 60_000];
    let mut world = joined();
    world.pass(Duration::from_millis(6_999));
    assert_eq!(judged(&mut world, &old), [""; 0]);
    assert_eq!(judged(&mut world, &[FRESH, FRESH]), ["2 ready"]);

    let mut world = joined();
    let due = world.now.after(Duration::from_secs(7));
    assert!(deadlines(&world.state).any(|deadline| deadline == due));
    world.pass(Duration::from_secs(7));
    assert_eq!(judged(&mut world, &old), ["2 down"]);
    let node = world.state.node(&node_id(2)).unwrap();
    assert_eq!(node.status.message, "no heartbeat for 7 s");
}

#[test]
fn a_node_that_leaves_is_down_at_once_and_holds_up_no_other() {
    let mut world = old_cluster(5);
    let mut ages = heartbeats(&[FRESH, FRESH, FRESH, 5_000, 5_000]);
    ages.extend([2, 3].map(|number| (node_id(number), LEFT)));
    let left = |commands: &[Command]| {
        let down = commands.iter().filter(|command| {
            matches!(command, Command::ReportNode { state: NodeState::Down, message, .. }
                if message == "it has left the swarm")
        });
        down.count()
    };
    let commands = judge(&world.state, &ages, world.now);
    assert_eq!((commands.len(), left(&commands)), (4, 2));
    world.propose(commands);
    // Those that were lost go down as if the others had never been there: they are more than a
    // third of the rest, and so one by one.
    world.pass(Duration::from_secs(3));
    ages.extend([4, 5].map(|number| (node_id(number), Duration::from_secs(8))));
    let commands = judge(&world.state, &ages, world.now);
    assert_eq!((commands.len(), left(&commands)), (1, 0));
    world.propose(commands);
    // It did not leave after all, or a node of that name is back.
    assert_eq!(
        judged(&mut world, &[FRESH, FRESH, FRESH, 8_000, 8_000]),
        ["2 ready", "3 ready"]
    );
}

#[test]
fn an_unknown_node_that_is_back_was_never_down() {
    let mut world = old_cluster(3);
    assert_eq!(judged(&mut world, &[FRESH, 5_000, FRESH]), ["2 unknown"]);
    assert_eq!(judged(&mut world, &[FRESH, 10, FRESH]), ["2 ready"]);
}

#[test]
fn a_change_of_leader_marks_no_node() {
    let mut world = old_cluster(3);
    // The old leader saw node 2 go; the new one has heard nobody yet.
    judged(&mut world, &[FRESH, 5_000, FRESH]);
    world.pass(Duration::from_secs(60));
    let leader_for = |ms| ages(&world.state, &BTreeMap::new(), Duration::from_millis(ms));
    assert_eq!(leader_for(3_999), BTreeMap::new());
    assert!(judge(&world.state, &BTreeMap::new(), world.now).is_empty());
    // After a while silence is silence again, but down takes its full time.
    let after = leader_for(4_000);
    let commands = judge(&world.state, &after, world.now);
    assert_eq!(commands.len(), 2);
    world.propose(commands);
    let unknown = |node: &Node| node.status.state == NodeState::Unknown;
    assert!(world.state.nodes().all(unknown));
    let heard = heartbeats(&[FRESH]);
    let ages = ages(&world.state, &heard, Duration::from_secs(9));
    assert_eq!(ages[&node_id(1)], Duration::from_millis(FRESH));
    assert_eq!(ages[&node_id(3)], Duration::from_secs(9));
}

#[test]
fn a_third_of_the_nodes_goes_down_together() {
    let mut world = old_cluster(6);
    let silent = [8_000, 8_000, FRESH, FRESH, FRESH, FRESH];
    judged(&mut world, &silent);
    world.pass(Duration::from_secs(3));
    assert_eq!(judged(&mut world, &silent), ["1 down", "2 down"]);
}

#[test]
fn more_than_a_third_goes_down_one_by_one() {
    let mut world = old_cluster(5);
    let silent = [8_000, 8_000, 8_000, FRESH, FRESH];
    judged(&mut world, &silent);
    world.pass(Duration::from_secs(3));
    assert_eq!(judged(&mut world, &silent), ["1 down"]);
    assert_eq!(judged(&mut world, &silent), [""; 0]);
    let next = deadlines(&world.state)
        .filter(|&time| time > world.now)
        .min();
    assert_eq!(next, Some(world.now.after(PACE)));
    world.pass(PACE);
    assert_eq!(judged(&mut world, &silent), ["2 down"]);
    // The rest of them came back.
    let fewer = [8_000, 8_000, FRESH, FRESH, FRESH];
    assert_eq!(judged(&mut world, &fewer), ["3 ready"]);
}

#[test]
fn nodes_that_died_long_ago_do_not_slow_down_the_next() {
    let mut world = old_cluster(3);
    for number in 1..=2 {
        let mut ages = [FRESH; 3];
        ages[..number].fill(8_000);
        judged(&mut world, &ages);
        world.pass(Duration::from_secs(3));
        assert_eq!(judged(&mut world, &ages), [format!("{number} down")]);
        world.pass(INCIDENT);
    }
}
