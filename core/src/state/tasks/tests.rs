use super::*;
use crate::model::{PortMode, PortSpec, Protocol, TaskState};
use crate::testing::{World, node_id, service_id, spec};

/// Two services on two nodes, with everything that adds up.
fn tasks() -> Tasks {
    let mut world = World::new(2);
    for number in 1..=2 {
        let mut spec = spec(&format!("s{number}"), 3);
        let reservations = &mut spec.task.resources.reservations;
        reservations.nano_cpus = 1_000_000;
        reservations.memory_bytes = 1 << 20;
        spec.ports = vec![PortSpec {
            target: 53,
            published: 8000 + u16::from(number),
            protocol: Protocol::Udp,
            mode: PortMode::Host,
            proxy_protocol: None,
            accept_proxy: Vec::new(),
        }];
        world.create(number, spec);
    }
    world.settle();
    let mut tasks = Tasks::default();
    for task in world.state.tasks() {
        tasks.put(Arc::new(task.clone()));
    }
    assert_eq!(tasks.by_node.len(), 2);
    assert_eq!(tasks.unplaced().count(), 2, "each port is free once a node");
    tasks
}

#[test]
fn sums_follow_every_change() {
    let mut tasks = tasks();
    let ids: Vec<TaskId> = tasks.iter().map(|task| task.id.clone()).collect();
    for id in &ids {
        let edits: [&dyn Fn(&mut Task); 5] = [
            &|task| task.status.state = TaskState::Running,
            &|task| task.desired = TaskState::Shutdown,
            &|task| task.node = Some(node_id(1)),
            &|task| task.slot += 7,
            &|task| task.status.state = TaskState::Failed,
        ];
        for edit in edits {
            let mut task = tasks.get(id).unwrap().clone();
            edit(&mut task);
            tasks.put(Arc::new(task));
            assert_eq!(tasks.disagreement(), None);
        }
    }
    let load = tasks.load(&node_id(1)).unwrap();
    assert_eq!(*load, Load::default(), "what has ended weighs nothing");
    for id in &ids {
        tasks.remove(id);
        assert_eq!(tasks.disagreement(), None);
    }
    assert!(tasks.by_node.is_empty() && tasks.by_service.is_empty() && tasks.unplaced.is_empty());
}

#[test]
fn a_sum_that_is_wrong_is_noticed() {
    #[track_caller]
    fn check(expected: &str, damage: impl FnOnce(&mut Tasks)) {
        let mut tasks = tasks();
        damage(&mut tasks);
        let found = tasks.disagreement().unwrap();
        assert!(found.contains(expected), "{found}");
    }
    check("the load of node", |tasks| {
        let node = tasks.by_node.get_mut(&node_id(1)).unwrap();
        let task = Arc::clone(node.tasks.values().next().unwrap());
        node.load.add(&task);
    });
    check("the tasks of node", |tasks| {
        let node = tasks.by_node.get_mut(&node_id(1)).unwrap();
        node.tasks.pop_first();
    });
    check("nodes that have tasks", |tasks| {
        tasks.by_node.remove(&node_id(2));
    });
    check("tasks of a service", |tasks| {
        tasks.by_service.remove(&service_id(2));
    });
    check("without a node", |tasks| tasks.unplaced.clear());
}

#[test]
fn a_slot_ends_where_the_next_begins() {
    let tasks = tasks();
    for slot in 0..=4 {
        let found = tasks.in_slot(&service_id(1), slot).count();
        assert_eq!(found, usize::from((1..=3).contains(&slot)), "slot {slot}");
    }
    assert_eq!(tasks.of_service(&service_id(1)).count(), 3);
}
