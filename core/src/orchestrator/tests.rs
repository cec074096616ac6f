use std::time::Duration;

use super::*;
use crate::model::{
    Availability, NodeId, RegistryAuth, RestartCondition, RestartPolicy, TaskId, Version,
};
use crate::testing::{World, ingress, node_id, service_id, spec};

/// A world in which `ng` runs with so many tasks on so many nodes.
fn running(nodes: u8, replicas: u32) -> World {
    let mut world = World::new(nodes);
    let mut ng = spec("ng", replicas);
    ng.ports = vec![ingress(80, 80)];
    world.create(1, ng);
    world.settle();
    world.run_all();
    world
}

/// Stops what was told to stop; drains end at once.
fn stop_all(world: &mut World) {
    world.settle();
    let draining: Vec<TaskId> = world
        .state
        .tasks()
        .filter(|task| task.draining.is_some() && task.desired <= TaskState::Running)
        .map(|task| task.id.clone())
        .collect();
    for id in draining {
        world.ok(Command::SetDesired {
            id,
            desired: TaskState::Shutdown,
        });
    }
    let stopping: Vec<TaskId> = world
        .state
        .tasks()
        .filter(|task| task.is_live() && task.desired > TaskState::Running)
        .map(|task| task.id.clone())
        .collect();
    for id in stopping {
        world.report(&id, TaskState::Shutdown);
    }
    world.settle();
}

fn number_of(world: &World, id: Option<&NodeId>) -> u8 {
    let nodes = world.state.nodes().count();
    (1..=u8::try_from(nodes).unwrap())
        .find(|&number| Some(&node_id(number)) == id)
        .unwrap()
}

#[test]
fn slots_are_filled_from_one() {
    let world = running(1, 3);
    let expected = [
        "ng.1 n1 running/running",
        "ng.2 n1 running/running",
        "ng.3 n1 running/running",
    ];
    assert_eq!(world.lines(), expected);
    assert!(reconcile(&world.state, world.now, 1).is_empty());
}

#[test]
fn scaling_down_drains_and_forgets() {
    let mut world = running(3, 10);
    world.scale(1, 3);
    world.settle();
    let drained = world.state.tasks().filter(|t| t.draining.is_some()).count();
    assert_eq!(drained, 7);
    stop_all(&mut world);
    assert_eq!(world.spread(), [1, 1, 1]);
    assert_eq!(
        world.state.tasks().count(),
        3,
        "slots that are gone keep no history"
    );
    world.scale(1, 0);
    stop_all(&mut world);
    assert_eq!(world.lines(), [""; 0]);
    world.scale(1, 10);
    world.settle();
    let mut slots: Vec<u32> = world.members().iter().map(|task| task.slot).collect();
    slots.sort_unstable();
    assert_eq!(slots, Vec::from_iter(1..=10));
}

#[test]
fn tasks_that_do_not_run_go_first() {
    let mut world = World::new(2);
    world.create(1, spec("ng", 4));
    world.settle();
    // Only the two highest slots run.
    for task in world.members().iter().filter(|task| task.slot > 2) {
        world.report(&task.id, TaskState::Running);
    }
    world.scale(1, 2);
    stop_all(&mut world);
    let slots: Vec<u32> = world
        .state
        .tasks_of(&service_id(1))
        .map(|t| t.slot)
        .collect();
    assert_eq!(slots, [3, 4]);
}

#[test]
fn then_those_of_the_fullest_node() {
    // 2 and 3 are paused while the first three tasks are placed.
    let mut world = World::new(3);
    world.availability(2, Availability::Pause);
    world.availability(3, Availability::Pause);
    world.create(1, spec("ng", 3));
    world.settle();
    world.availability(2, Availability::Active);
    world.availability(3, Availability::Active);
    world.scale(1, 5);
    world.settle();
    world.run_all();
    assert_eq!(world.spread(), [3, 1, 1]);
    world.scale(1, 3);
    stop_all(&mut world);
    assert_eq!(world.spread(), [1, 1, 1]);
}

#[test]
fn a_removed_service_is_drained_and_deleted() {
    let mut world = running(2, 2);
    world.ok(Command::RemoveService { id: service_id(1) });
    world.settle();
    assert!(world.state.tasks().all(|task| task.draining.is_some()));
    stop_all(&mut world);
    assert_eq!(world.state.services().count(), 0);
    assert_eq!(world.state.tasks().count(), 0);
}

#[test]
fn a_service_with_tasks_on_a_lost_node_can_be_removed() {
    let mut world = running(1, 1);
    world.node_is(1, NodeState::Down);
    world.ok(Command::RemoveService { id: service_id(1) });
    world.settle();
    assert_eq!(world.state.services().count(), 0);
}

#[test]
fn an_ended_task_has_a_successor_and_stays_for_a_while() {
    let mut world = running(1, 1);
    for _ in 0..10 {
        let task = world.members().remove(0);
        world.report(&task.id, TaskState::Failed);
        world.settle();
        world.now = world.members()[0].restart.not_before.max(world.now);
        world.settle();
        world.run_all();
    }
    let lines = world.lines();
    assert_eq!(
        lines
            .iter()
            .filter(|line| *line == "ng.1 n1 shutdown/failed")
            .count(),
        5
    );
    assert_eq!(lines.last().unwrap(), "ng.1 n1 shutdown/failed");
    assert_eq!(lines[0], "ng.1 n1 running/running");
    assert_eq!(lines.len(), 6, "five ended tasks are kept");
}

/// Starts of the only slot per minute while each task ends at once with `end`.
fn starts_per_minute(end: TaskState, minutes: usize) -> Vec<usize> {
    let mut world = World::new(1);
    world.create(1, spec("ng", 1));
    let begin = world.now;
    let mut starts = vec![0; minutes];
    loop {
        world.settle();
        let task = world.members().remove(0);
        if task.node.is_none() {
            world.now = crate::next_deadline(&world.state, world.now).unwrap();
            continue;
        }
        let minute = world.now.since(begin).as_secs() / 60;
        let Some(count) = starts.get_mut(usize::try_from(minute).unwrap()) else {
            return starts;
        };
        *count += 1;
        assert!(*count < 1_000, "there is no pause between starts");
        world.report(&task.id, end);
    }
}

#[test]
fn a_crash_loop_backs_off() {
    let starts = starts_per_minute(TaskState::Failed, 40);
    assert!((6..=10).contains(&starts[0]), "{starts:?}");
    assert!(starts[1..].iter().all(|&count| count <= 2), "{starts:?}");
    assert!(
        starts[20..].iter().sum::<usize>() >= 2,
        "it goes on: {starts:?}"
    );
}

#[test]
fn a_missing_image_is_asked_for_every_ten_seconds_at_most() {
    let starts = starts_per_minute(TaskState::Rejected, 2);
    assert!((4..=6).contains(&starts[0]), "{starts:?}");
}

#[test]
fn pauses_double_up_to_five_minutes() {
    let pause = |failures| restart::back_off(failures, &mut Random::new(3)).as_millis();
    assert_eq!(pause(0), 0);
    for (failures, seconds) in [
        (1, 1),
        (2, 2),
        (3, 4),
        (9, 256),
        (10, 300),
        (40, 300),
        (u32::MAX, 300),
    ] {
        let shortest = seconds * 1000;
        assert!(
            (shortest..shortest + shortest / 4).contains(&pause(failures)),
            "{failures}"
        );
    }
}

#[track_caller]
fn check_policy(policy: RestartPolicy, ends: &[TaskState], expected_starts: usize) {
    let mut world = World::new(1);
    let mut ng = spec("ng", 1);
    ng.task.restart = policy;
    world.create(1, ng);
    let mut starts = 0;
    for &end in ends {
        world.settle();
        let Some(waiting) = world.members().pop() else {
            break;
        };
        world.now = waiting.restart.not_before.max(world.now);
        world.settle();
        let task = world.members().remove(0);
        starts += 1;
        world.report(&task.id, end);
    }
    assert_eq!(starts, expected_starts);
    world.settle();
    let slots = world.state.tasks().filter(|task| task.is_member()).count();
    assert_eq!(slots, 1, "a slot is never lost");
}

#[test]
fn the_policy_decides_about_restarts() {
    use TaskState::{Complete, Failed, Rejected, Shutdown};
    let policy = |condition| RestartPolicy {
        condition,
        ..RestartPolicy::default()
    };
    let any = policy(RestartCondition::Any);
    let on_failure = policy(RestartCondition::OnFailure);
    let none = policy(RestartCondition::None);
    check_policy(any, &[Complete, Failed, Rejected, Complete], 4);
    check_policy(on_failure, &[Failed, Rejected, Complete, Failed], 3);
    check_policy(none, &[Failed, Failed], 1);
    check_policy(none, &[Shutdown, Shutdown], 2);
    let limited = RestartPolicy {
        max_attempts: 3,
        ..any
    };
    check_policy(limited, &[Failed; 10], 4);
    let windowed = RestartPolicy {
        window: Duration::from_secs(2),
        ..limited
    };
    // With the back-off no more than three attempts fall into two seconds.
    check_policy(windowed, &[Failed; 6], 6);
}

#[test]
fn the_delay_comes_on_top() {
    let mut world = World::new(1);
    let mut ng = spec("ng", 1);
    ng.task.restart.delay = Duration::from_secs(5);
    world.create(1, ng);
    world.settle();
    let task = world.members().remove(0);
    world.report(&task.id, TaskState::Failed);
    world.settle();
    let next = world.members().remove(0);
    assert_eq!(
        next.restart.not_before,
        world.now.after(Duration::from_secs(5))
    );
    assert_eq!(
        crate::next_deadline(&world.state, world.now),
        Some(next.restart.not_before)
    );
}

#[test]
fn tasks_of_a_lost_node_are_replaced_and_its_return_stops_the_old_ones() {
    let mut world = running(2, 2);
    let lost = world.members().remove(0);
    let number = number_of(&world, lost.node.as_ref());
    world.node_is(number, NodeState::Unknown);
    world.settle();
    assert_eq!(world.members().len(), 2, "unknown replaces nothing");
    world.node_is(number, NodeState::Down);
    world.settle();
    assert_eq!(world.members().len(), 3);
    world.run_all();
    world.settle();
    let old = world.state.task(&lost.id).unwrap();
    assert_eq!(
        (old.desired, old.status.state),
        (TaskState::Shutdown, TaskState::Orphaned)
    );
    let survivors: Vec<NodeId> = world.members().into_iter().filter_map(|t| t.node).collect();
    assert!(!survivors.contains(&node_id(number)));
    assert_eq!(survivors.len(), 2);
}

#[test]
fn a_replacement_is_withdrawn_when_the_node_is_back_before_it_runs() {
    let mut world = running(2, 2);
    let lost = world.members().remove(0);
    let number = number_of(&world, lost.node.as_ref());
    world.node_is(number, NodeState::Down);
    world.settle();
    world.node_is(number, NodeState::Ready);
    stop_all(&mut world);
    assert!(world.state.task(&lost.id).unwrap().is_member());
    assert_eq!(world.members().len(), 2);
}

#[test]
fn a_replacement_that_keeps_failing_backs_off() {
    let mut world = running(2, 2);
    let lost = world.members().remove(0);
    let number = number_of(&world, lost.node.as_ref());
    world.node_is(number, NodeState::Down);
    for failures in 0..4 {
        world.settle();
        let replacement = world
            .members()
            .into_iter()
            .find(|task| task.slot == lost.slot && task.id != lost.id)
            .unwrap();
        assert_eq!(replacement.restart.failures, failures);
        world.now = replacement.restart.not_before.max(world.now);
        world.settle();
        world.report(&replacement.id, TaskState::Failed);
    }
}

#[test]
fn a_replacement_that_is_lost_is_replaced_in_turn() {
    let mut world = running(3, 1);
    let first = world.members().remove(0);
    world.node_is(number_of(&world, first.node.as_ref()), NodeState::Down);
    world.settle();
    let second = world
        .members()
        .into_iter()
        .find(|t| t.id != first.id)
        .unwrap();
    world.node_is(number_of(&world, second.node.as_ref()), NodeState::Down);
    world.settle();
    let third = world
        .members()
        .into_iter()
        .find(|t| t.id != first.id)
        .unwrap();
    assert_ne!(third.id, second.id);
    world.run_all();
    world.settle();
    assert_eq!(world.members().len(), 1);
    assert_eq!(world.members()[0].id, third.id);
}

#[test]
fn a_drained_node_is_emptied_without_a_gap() {
    let mut world = running(2, 2);
    world.availability(1, Availability::Drain);
    world.settle();
    let draining = |world: &World| world.state.tasks().filter(|t| t.draining.is_some()).count();
    assert_eq!(world.members().len(), 3);
    assert_eq!(
        draining(&world),
        0,
        "the old task serves until the new one does"
    );
    world.run_all();
    world.settle();
    assert_eq!(draining(&world), 1);
    stop_all(&mut world);
    assert_eq!(world.spread(), [0, 2]);
}

#[test]
fn tasks_of_a_removed_node_are_replaced_at_once() {
    let mut world = running(2, 2);
    world.ok(Command::RemoveNode { id: node_id(1) });
    world.settle();
    assert_eq!(world.spread(), [2]);
    assert!(
        world
            .members()
            .iter()
            .all(|task| task.restart.failures == 0)
    );
}

#[test]
fn repeated_commands_change_nothing() {
    let mut world = World::new(2);
    world.create(1, spec("ng", 4));
    let first = reconcile(&world.state, world.now, 1);
    // Another leader decided the same with another seed, and both were committed.
    let second = reconcile(&world.state, world.now, 2);
    world.propose(first.clone());
    let outcomes = world.propose([second, first].concat());
    assert!(outcomes.iter().all(Result::is_err));
    assert_eq!(world.members().len(), 4);
    let versions: Vec<Version> = world.members().iter().map(|t| t.version).collect();
    assert_eq!(
        versions,
        [world.state.service(&service_id(1)).unwrap().version; 4].map(|v| Version(v.0 + 1))
    );
}

#[test]
fn a_restart_in_place_waits_as_a_successor_would() {
    let world = running(1, 1);
    let mut task = world.members()[0].clone();
    task.status.state = TaskState::Failed;
    let now = world.now;
    let minute = Duration::from_secs(60);
    let mut pauses = Vec::new();
    for _ in 0..4 {
        task.restart = restart_in_place(&task, Duration::ZERO, now, 1).unwrap();
        pauses.push(task.restart.not_before.since(now).as_secs());
    }
    assert_eq!(pauses, [0, 1, 2, 4]);
    let after_stable_run = restart_in_place(&task, minute, now, 1).unwrap();
    assert_eq!(
        (after_stable_run.failures, after_stable_run.not_before),
        (1, now)
    );

    task.spec.restart.max_attempts = 4;
    assert_eq!(restart_in_place(&task, minute, now, 1), None);
    task.spec.restart.max_attempts = 0;
    task.spec.restart.condition = RestartCondition::OnFailure;
    task.status.state = TaskState::Complete;
    assert_eq!(restart_in_place(&task, minute, now, 1), None);
}

#[test]
fn new_credentials_replace_no_task_that_has_its_image() {
    let mut world = running(1, 2);
    let before = world.members();
    let token = RegistryAuth("of today".to_owned());
    world.update(1, |spec| {
        spec.task.containers[0].registry_auth = Some(token.clone());
    });
    for _ in 0..10 {
        world.settle();
        world.run_all();
        world.pass(Duration::from_secs(10));
    }
    let ids = |tasks: &[Task]| -> Vec<_> { tasks.iter().map(|task| task.id.clone()).collect() };
    assert_eq!(ids(&world.members()), ids(&before));
    // Whoever succeeds one of them has what is new.
    world.report(&before[0].id, TaskState::Failed);
    world.pass(Duration::from_secs(10));
    world.settle();
    let members = world.members();
    let new = members.iter().find(|task| !ids(&before).contains(&task.id));
    let auth = &new.unwrap().spec.containers[0].registry_auth;
    assert_eq!(auth.as_ref(), Some(&token));
}
