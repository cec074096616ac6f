use super::*;
use crate::model::{Availability, NodeState, Task, UpdateOrder};
use crate::testing::{World, node_id, service_id, spec};

/// The plan as lines: `move ng.1 n1 n2`.
fn lines(world: &World, plan: &Plan) -> Vec<String> {
    assert!(plan.is_complete);
    let host = |id: &Option<NodeId>| {
        let node = id.as_ref().and_then(|id| world.state.node(id));
        node.map_or("-", |node| &node.description.hostname)
    };
    let line = |step: &Step| {
        let object = match &step.object {
            Object::Service(name) => format!("service {name}"),
            Object::Node(id) => format!("node {}", host(&Some(id.clone()))),
            Object::Task(name) => format!("{name} {} {}", host(&step.from), host(&step.to)),
        };
        let reason = step
            .reason
            .as_ref()
            .map_or(String::new(), |r| format!(" {r}"));
        format!("{} {object}{reason}", step.action)
    };
    plan.steps.iter().map(line).collect()
}

#[track_caller]
fn check(world: &World, changes: &[Change], expected: &[&str]) {
    let before = world.state.clone();
    let plan = plan(&world.state, changes, world.now, 7).unwrap();
    assert_eq!(lines(world, &plan), expected);
    assert_eq!(world.state, before, "nothing was written");
}

/// `ng` runs with so many tasks on so many nodes of four cores.
fn running(nodes: u8, replicas: u32) -> World {
    let mut world = World::new(nodes);
    world.create(1, spec("ng", replicas));
    world.settle();
    world.run_all();
    world
}

fn update(world: &World, edit: impl FnOnce(&mut ServiceSpec)) -> Change {
    let service = world.state.service(&service_id(1)).unwrap();
    let mut spec = service.spec.clone();
    edit(&mut spec);
    Change::UpdateService {
        id: service.id.clone(),
        expected: service.version,
        spec: Box::new(spec),
    }
}

fn drain(world: &World, number: u8) -> Change {
    let node = world.state.node(&node_id(number)).unwrap();
    Change::UpdateNode {
        id: node.id.clone(),
        expected: node.version,
        spec: NodeSpec {
            availability: Availability::Drain,
            ..node.spec.clone()
        },
    }
}

#[test]
fn a_new_service_is_placed_as_far_as_it_fits() {
    let world = World::new(1);
    let mut big = spec("big", 3);
    big.task.resources.reservations.nano_cpus = 2_000_000_000;
    check(
        &world,
        &[Change::CreateService(Box::new(big))],
        &[
            "create service big",
            "create big.1 - n1",
            "create big.2 - n1",
            "wait big.3 - - no suitable node (insufficient resources on 1 node)",
        ],
    );
}

#[test]
fn what_changes_nothing_is_an_empty_plan() {
    let world = running(2, 3);
    check(&world, &[update(&world, |_| {})], &[]);
    check(&world, &[], &[]);
}

#[test]
fn scaling_creates_and_stops() {
    let world = running(1, 2);
    let scale = |replicas| {
        update(&world, |spec| {
            spec.mode = crate::model::ServiceMode::Replicated { replicas };
        })
    };
    check(
        &world,
        &[scale(3)],
        &["update service ng", "create ng.3 - n1"],
    );
    check(
        &world,
        &[scale(1)],
        &["update service ng", "stop ng.2 n1 -"],
    );
}

#[test]
fn an_update_replaces_every_task() {
    let world = running(1, 2);
    for order in [UpdateOrder::StopFirst, UpdateOrder::StartFirst] {
        let change = update(&world, |spec| {
            spec.task.force_update += 1;
            spec.update.order = order;
        });
        check(
            &world,
            &[change],
            &[
                "update service ng",
                "replace ng.1 n1 n1",
                "replace ng.2 n1 n1",
            ],
        );
    }
}

#[test]
fn an_update_that_finds_no_place_says_so() {
    let world = running(1, 1);
    let change = update(&world, |spec| {
        spec.task.resources.reservations.nano_cpus = 5_000_000_000;
    });
    check(
        &world,
        &[change],
        &[
            "update service ng",
            "wait ng.1 n1 - no suitable node (insufficient resources on 1 node)",
        ],
    );
}

#[test]
fn a_drain_moves_tasks_or_leaves_them_waiting() {
    let world = running(2, 2);
    let on_first = |world: &World| {
        let id = node_id(1);
        let name = world.state.tasks_on(&id).next().map(Task::name);
        name.unwrap()
    };
    let name = on_first(&world);
    check(
        &world,
        &[drain(&world, 1)],
        &["update node n1", &format!("move {name} n1 n2")],
    );
    let world = running(1, 1);
    check(
        &world,
        &[drain(&world, 1)],
        &[
            "update node n1",
            "wait ng.1 n1 - no suitable node (1 node not available for new tasks)",
        ],
    );
}

#[test]
fn a_drain_moves_tasks_that_a_rollback_left_alone() {
    let mut world = running(2, 2);
    let image = |image: &str| {
        let image = image.to_owned();
        move |spec: &mut ServiceSpec| spec.task.containers[0].image = image
    };
    let first = world.state.service(&service_id(1)).unwrap().spec.clone();
    world.update(1, image("v2"));
    world.update(1, image(&first.task.containers[0].image));
    let service = world.state.service(&service_id(1)).unwrap();
    let members = world.members();
    let earlier = |task: &&Task| task.spec_version != service.spec_version;
    assert_eq!(
        members.iter().filter(earlier).count(),
        2,
        "nothing was replaced"
    );
    let there = members.iter().find(|task| task.node == Some(node_id(1)));
    let name = there.unwrap().name();
    let moved = format!("move {name} n1 n2");
    check(&world, &[drain(&world, 1)], &["update node n1", &moved]);
    // What is to be replaced in any case does not move.
    world.update(1, image("v2"));
    let again = update(&world, image("v3"));
    let plan = plan(&world.state, &[drain(&world, 1), again], world.now, 7).unwrap();
    let lines = lines(&world, &plan);
    assert!(
        lines.contains(&format!("replace {name} n1 n2")),
        "{lines:?}"
    );
}

#[test]
fn a_rollback_replaces_too() {
    let mut world = running(1, 1);
    world.update(1, |spec| {
        spec.task.force_update += 1;
        spec.update.monitor = std::time::Duration::ZERO;
    });
    let service = world.state.service(&service_id(1)).unwrap();
    let change = Change::RollbackService {
        id: service.id.clone(),
        expected: service.version,
    };
    // The update has just begun; what it does is not the rollback's doing.
    check(
        &world,
        &[change],
        &["update service ng", "replace ng.1 n1 n1"],
    );
}

#[test]
fn what_would_be_refused_is_refused() {
    let world = running(1, 1);
    let twice = Change::CreateService(Box::new(spec("ng", 1)));
    let error = plan(&world.state, &[twice], world.now, 7).unwrap_err();
    assert_eq!(error, Rejection::NameTaken("ng".to_owned()));
    let mut stale = update(&world, |spec| spec.task.force_update += 1);
    if let Change::UpdateService { expected, .. } = &mut stale {
        *expected = Version(0);
    }
    let error = plan(&world.state, &[stale], world.now, 7).unwrap_err();
    assert_eq!(error, Rejection::OutOfSequence);
}

#[test]
fn what_is_under_way_already_is_not_in_the_plan() {
    let mut world = World::new(2);
    world.create(1, spec("ng", 4));
    // Nothing of it is placed yet.
    check(
        &world,
        &[Change::CreateService(Box::new(spec("api", 1)))][..0],
        &[],
    );
    let change = Change::CreateService(Box::new(spec("api", 1)));
    let plan = plan(&world.state, &[change], world.now, 7).unwrap();
    let lines = lines(&world, &plan);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[0], "create service api");
    assert!(lines[1].starts_with("create api.1 - n"), "{lines:?}");
}

#[test]
fn a_node_that_is_silent_moves_nothing() {
    let mut world = running(2, 2);
    world.node_is(2, NodeState::Unknown);
    let scale = update(&world, |spec| {
        spec.mode = crate::model::ServiceMode::Replicated { replicas: 3 };
    });
    check(&world, &[scale], &["update service ng", "create ng.3 - n1"]);
}

#[test]
fn many_tasks_are_planned_in_bounded_time() {
    let world = running(4, 300);
    let change = update(&world, |spec| spec.task.force_update += 1);
    let plan = plan(&world.state, &[change], world.now, 7).unwrap();
    assert!(plan.is_complete);
    assert_eq!(plan.steps.len(), 301);
}
