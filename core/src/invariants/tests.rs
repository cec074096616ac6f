use std::sync::Arc;

use super::*;
use crate::model::{Service, Task, TaskId, TaskState, Version};
use crate::testing::{World, ingress, node_id, service_id, spec};

fn running() -> State {
    let mut world = World::new(2);
    let mut ng = spec("ng", 2);
    ng.ports = vec![ingress(80, 80)];
    world.create(1, ng);
    world.settle();
    world.run_all();
    check_converged(&world.state).unwrap();
    world.state
}

fn first(state: &State) -> Task {
    state.tasks().next().unwrap().clone()
}

/// Breaks a state and expects the rule to notice.
#[track_caller]
fn broken(expected: &str, damage: impl FnOnce(&mut State)) {
    let mut state = running();
    damage(&mut state);
    let violation = check(&state).unwrap_err().to_string();
    assert!(violation.contains(expected), "{violation}");
}

/// As `broken`, with a task.
#[track_caller]
fn broken_task(expected: &str, damage: impl FnOnce(&mut Task)) {
    broken(expected, |state| {
        let id = first(state).id;
        state.edit_task(&id, damage).unwrap();
    });
}

/// Makes a step and expects the rule to notice.
#[track_caller]
fn bad_step(expected: &str, damage: impl FnOnce(&mut State, Version)) {
    let before = running();
    let mut after = before.clone();
    after.version = Version(before.version.0 + 1);
    let version = after.version;
    damage(&mut after, version);
    let violation = check_step(&before, &after).unwrap_err().to_string();
    assert!(violation.contains(expected), "{violation}");
}

#[track_caller]
fn bad_task_step(expected: &str, damage: impl FnOnce(&mut Task)) {
    bad_step(expected, |state, version| {
        let id = first(state).id;
        let edit = |task: &mut Task| {
            task.version = version;
            damage(task);
        };
        state.edit_task(&id, edit).unwrap();
    });
}

#[test]
fn broken_states_are_noticed() {
    broken("has no service", |state| {
        state.services.remove(&service_id(1));
    });
    broken("on a node that does not exist", |state| {
        state.nodes.remove(&node_id(1));
    });
    broken("two services named ng", |state| {
        let mut twin: Service = state.service(&service_id(1)).unwrap().clone();
        twin.id = service_id(2);
        state.services.insert(service_id(2), Arc::new(twin));
    });
    broken("publish 80", |state| {
        let mut twin: Service = state.service(&service_id(1)).unwrap().clone();
        twin.id = service_id(2);
        twin.spec.name = "web".to_owned();
        state.services.insert(service_id(2), Arc::new(twin));
    });
    broken("without a cluster", |state| state.cluster = None);
    broken("has 3 members", |state| {
        for number in 0..2 {
            let mut task = first(state);
            task.id = TaskId::from_random(number);
            state.put_task(Arc::new(task));
        }
    });
    broken_task("is placed without a node", |task| task.node = None);
    broken_task("only ever desired", |task| {
        task.status.state = TaskState::Remove
    });
}

#[test]
fn bad_steps_are_noticed() {
    bad_step("version", |state, version| {
        state.version = Version(version.0 - 1)
    });
    bad_step("has version", |state, _| {
        let id = first(state).id;
        for ended in [TaskState::Failed, TaskState::Orphaned] {
            state
                .edit_task(&id, |task| task.status.state = ended)
                .unwrap();
            let violation = check_converged(state).unwrap_err().to_string();
            let expected = format!("should run but is {ended}");
            assert!(violation.contains(&expected), "{violation}");
        }
        state
            .edit_task(&id, |task| task.desired = TaskState::Shutdown)
            .unwrap();
    });
    bad_step("is gone although nobody removed it", |state, _| {
        state.services.remove(&service_id(1));
    });
    bad_step("is gone although it was running", |state, _| {
        let id = first(state).id;
        state.remove_task(&id);
    });
    bad_step("the cluster is gone", |state, _| state.cluster = None);
    bad_step("overbooked", |state, version| {
        let mut task = first(state);
        task.id = TaskId::from_random(1);
        task.version = version;
        task.spec.resources.reservations.nano_cpus = u64::MAX;
        state.put_task(Arc::new(task));
    });
    bad_task_step("observed state went back", |task| {
        task.status.state = TaskState::Ready;
    });
    bad_task_step("desired state went back", |task| {
        task.desired = TaskState::Ready
    });
    bad_task_step("moved to another node", |task| task.node = Some(node_id(9)));
    bad_task_step("became another task", |task| task.spec_version = Version(0));
}

#[test]
fn what_is_not_converged_is_named() {
    let mut state = running();
    let id = first(&state).id;
    state
        .edit_task(&id, |task| task.status.state = TaskState::Starting)
        .unwrap();
    let violation = check_converged(&state).unwrap_err().to_string();
    assert!(
        violation.contains("should run but is starting"),
        "{violation}"
    );
    for ended in [TaskState::Failed, TaskState::Orphaned] {
        state
            .edit_task(&id, |task| task.status.state = ended)
            .unwrap();
        let violation = check_converged(&state).unwrap_err().to_string();
        let expected = format!("should run but is {ended}");
        assert!(violation.contains(&expected), "{violation}");
    }
    state
        .edit_task(&id, |task| task.desired = TaskState::Shutdown)
        .unwrap();
    let violation = check_converged(&state).unwrap_err().to_string();
    assert!(
        violation.contains("has 1 tasks instead of 2"),
        "{violation}"
    );
}
