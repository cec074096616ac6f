use std::time::Duration;

use super::*;
use crate::model::NodeState;
use crate::testing::{World, ingress, spec};

#[test]
fn only_time_that_changes_something_is_named() {
    let mut world = World::new(2);
    let mut ng = spec("ng", 1);
    ng.ports = vec![ingress(80, 80)];
    ng.drain_timeout = Duration::from_secs(7);
    world.create(1, ng);
    world.settle();
    world.run_all();
    let start = world.now;
    let next = |world: &World| {
        next_deadline(&world.state, world.now).map(|deadline| deadline.since(start).as_secs())
    };
    assert_eq!(next(&world), None);
    world.scale(1, 0);
    world.settle();
    assert_eq!(next(&world), Some(2), "acknowledgements are waited for");
    world.pass(Duration::from_secs(2));
    assert_eq!(next(&world), Some(7), "then connections");
    world.node_is(2, NodeState::Unknown);
    assert_eq!(
        next(&world),
        Some(5),
        "a node goes down 3 s after it became unknown"
    );
    world.pass(Duration::from_secs(60));
    assert_eq!(next(&world), None, "the past is no deadline");
}
