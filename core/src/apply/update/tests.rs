use std::time::Duration;

use super::*;
use crate::command::Command;
use crate::model::{RegistryAuth, ServiceMode};
use crate::testing::{World, ingress, service_id, spec};

fn status(world: &World) -> (UpdateState, u32) {
    let service = world.state.service(&service_id(1)).unwrap();
    let status = service.update_status.as_ref().unwrap();
    (status.state, status.failures)
}

/// `ng` runs as `v1` and is told to become `v2`.
fn updating(edit: impl FnOnce(&mut ServiceSpec)) -> World {
    let mut world = World::new(2);
    world.create(1, spec("ng", 2));
    world.settle();
    world.run_all();
    world.update(1, |spec| {
        spec.task.containers[0].image = "v2".to_owned();
        edit(spec);
    });
    world
}

fn rollback(world: &World) -> Command {
    Command::RollbackService {
        id: service_id(1),
        expected: world.state.service(&service_id(1)).unwrap().version,
        message: "manually requested rollback".to_owned(),
    }
}

fn end_update(world: &World, state: UpdateState) -> Command {
    Command::SetUpdateStatus {
        id: service_id(1),
        expected: world.state.service(&service_id(1)).unwrap().version,
        state,
        message: String::new(),
    }
}

#[test]
fn only_what_tasks_are_made_of_begins_an_update() {
    let mut world = World::new(1);
    world.create(1, spec("ng", 2));
    world.settle();
    world.scale(1, 3);
    world.update(1, |spec| spec.drain_timeout = Duration::ZERO);
    let service = world.state.service(&service_id(1)).unwrap();
    assert_eq!(service.update_status, None);
    world.update(1, |spec| spec.task.force_update += 1);
    assert_eq!(status(&world), (UpdateState::Updating, 0));
}

#[test]
fn a_failure_counts_once_for_each_slot_and_only_early() {
    let mut world = updating(|spec| spec.update.parallelism = 0);
    world.settle();
    let new: Vec<_> = world
        .members()
        .into_iter()
        .filter(|t| t.spec.containers[0].image == "v2")
        .collect();
    assert_eq!(new.len(), 2);
    world.report(&new[0].id, TaskState::Rejected);
    assert_eq!(status(&world), (UpdateState::Updating, 1));
    world.report(&new[1].id, TaskState::Running);
    world.pass(Duration::from_secs(5));
    world.report(&new[1].id, TaskState::Failed);
    assert_eq!(
        status(&world),
        (UpdateState::Updating, 1),
        "it was watched for long enough"
    );
}

#[test]
fn a_rollback_remembers_what_failed() {
    let failed = |world: &World| {
        let service = world.state.service(&service_id(1)).unwrap();
        service.update_status.as_ref().unwrap().failed_task.clone()
    };
    let mut world = updating(|spec| spec.update.parallelism = 0);
    world.settle();
    let mut members = world.members().into_iter();
    let new = members.find(|task| task.spec.containers[0].image == "v2");
    let new = new.unwrap().id;
    world.report(&new, TaskState::Failed);
    assert_eq!(failed(&world), Some(new.clone()));
    let command = rollback(&world);
    world.ok(command);
    assert_eq!(failed(&world), Some(new));
    // Another update begins with nothing.
    world.update(1, |spec| spec.task.force_update += 1);
    assert_eq!(failed(&world), None);
}

#[test]
fn a_rollback_leads_to_the_last_completed_version() {
    let mut world = updating(|_| {});
    world.update(1, |spec| spec.task.containers[0].image = "v3".to_owned());
    world.ok(rollback(&world));
    let image = |world: &World| {
        let service = world.state.service(&service_id(1)).unwrap();
        service.spec.task.containers[0].image.clone()
    };
    assert_eq!(image(&world), "whoami");
    assert_eq!(status(&world).0, UpdateState::RollbackStarted);
    let again = rollback(&world);
    assert_eq!(
        world.refusal(again),
        "service ng does not have a previous spec: it is being rolled back already"
    );
    world.ok(end_update(&world, UpdateState::RollbackCompleted));
    assert_eq!(
        world.refusal(rollback(&world)),
        "service ng does not have a previous spec: it was rolled back from a version that did not \
         complete, which is nothing to go back to: change it with `service update`"
    );
}

#[test]
fn a_service_that_was_never_updated_has_nothing_to_go_back_to() {
    let mut world = World::new(1);
    world.create(1, spec("ng", 1));
    assert_eq!(
        world.refusal(rollback(&world)),
        "service ng does not have a previous spec: no earlier version of it has completed: change \
         it with `service update`"
    );
}

#[test]
fn a_rollback_of_what_completed_can_be_taken_back() {
    let mut world = updating(|_| {});
    world.ok(end_update(&world, UpdateState::Completed));
    let image = |world: &World| {
        let service = world.state.service(&service_id(1)).unwrap();
        service.spec.task.containers[0].image.clone()
    };
    world.ok(rollback(&world));
    assert_eq!(image(&world), "whoami");
    world.ok(rollback(&world));
    assert_eq!(image(&world), "v2");
    let again = rollback(&world);
    assert_eq!(
        world.refusal(again),
        "service ng does not have a previous spec: it is being rolled back already",
        "the rollback had not completed"
    );
}

/// Tokens end, and whoever rolls back does not think of them.
#[test]
fn a_rollback_goes_past_new_credentials_and_takes_them_along() {
    let set = |image: &'static str, token: &'static str| {
        move |spec: &mut ServiceSpec| {
            let container = &mut spec.task.containers[0];
            container.image = image.to_owned();
            container.registry_auth = Some(RegistryAuth(token.to_owned()));
        }
    };
    let check = |first: &'static str, expected: &str| {
        let mut world = World::new(2);
        world.create(1, spec("ng", 2));
        world.update(1, set(first, "of monday"));
        world.ok(end_update(&world, UpdateState::Completed));
        for token in ["of tuesday", "of friday"] {
            world.update(1, set("r.example/a:2", token));
            world.ok(end_update(&world, UpdateState::Completed));
        }
        world.ok(rollback(&world));
        let service = world.state.service(&service_id(1)).unwrap();
        let container = &service.spec.task.containers[0];
        assert_eq!(container.image, first);
        let token = container.registry_auth.as_ref();
        assert_eq!(token.map(|token| token.0.as_str()), Some(expected));
    };
    check("r.example/a:1", "of friday");
    check("other.example/a:1", "of monday");
}

/// Who renews a token does not ask for a migration to be run again.
#[test]
fn new_credentials_run_no_job_again() {
    let mut world = World::new(2);
    let mut job = spec("migrate", 1);
    job.mode = ServiceMode::ReplicatedJob {
        total_completions: 1,
        max_concurrent: 1,
    };
    world.create(1, job);
    world.settle();
    let before = world.state.service(&service_id(1)).unwrap().spec_version;
    let token = RegistryAuth("of today".to_owned());
    world.update(1, |spec| {
        spec.task.containers[0].registry_auth = Some(token.clone());
    });
    let service = world.state.service(&service_id(1)).unwrap();
    let auth = &service.spec.task.containers[0].registry_auth;
    assert_eq!((service.spec_version, auth), (before, &Some(token)));
    world.update(1, |spec| spec.task.force_update += 1);
    let service = world.state.service(&service_id(1)).unwrap();
    assert!(service.spec_version > before);
}

#[test]
fn a_port_that_somebody_else_has_by_now_prevents_a_rollback() {
    let mut world = World::new(1);
    let mut ng = spec("ng", 1);
    ng.ports = vec![ingress(80, 80)];
    world.create(1, ng);
    world.settle();
    world.run_all();
    world.update(1, |spec| spec.ports.clear());
    let mut web = spec("web", 1);
    web.ports = vec![ingress(80, 80)];
    world.create(2, web);
    let refusal = world.refusal(rollback(&world));
    assert!(
        refusal.starts_with("port '80' is already in use by service 'web'"),
        "{refusal}"
    );
}

#[test]
fn an_update_ends_in_its_own_way_only() {
    let mut world = updating(|_| {});
    let wrong = end_update(&world, UpdateState::RollbackPaused);
    assert_eq!(
        world.refusal(wrong),
        "the update of service ng cannot become rollback_paused"
    );
    world.ok(end_update(&world, UpdateState::Paused));
    let again = end_update(&world, UpdateState::Completed);
    assert_eq!(
        world.refusal(again),
        "the update of service ng cannot become completed"
    );
}

#[test]
fn a_paused_update_goes_on_when_it_is_asked_for_again_but_not_when_scaled() {
    let mut world = updating(|_| {});
    world.ok(end_update(&world, UpdateState::Paused));
    world.scale(1, 5);
    assert_eq!(status(&world).0, UpdateState::Paused);
    world.update(1, |_| {});
    assert_eq!(status(&world).0, UpdateState::Updating);
    world.ok(rollback(&world));
    world.ok(end_update(&world, UpdateState::RollbackPaused));
    world.update(1, |_| {});
    assert_eq!(status(&world).0, UpdateState::RollbackStarted);
}

#[test]
fn what_goes_on_is_tried_anew_and_without_its_back_off() {
    let mut world = updating(|spec| spec.update.parallelism = 0);
    let version = |world: &World| world.state.service(&service_id(1)).unwrap().spec_version;
    world.ok(rollback(&world));
    world.ok(end_update(&world, UpdateState::RollbackPaused));
    let before = version(&world);
    let slot = world.members()[0].slot;
    for _ in 0..3 {
        let mut members = world.members().into_iter();
        let live = members.find(|task| task.slot == slot && task.is_live());
        world.report(&live.unwrap().id, TaskState::Failed);
        world.settle();
    }
    let waits = |task: &Task| task.restart.failures > 1 && task.desired == TaskState::Ready;
    assert!(world.members().iter().any(waits), "{:?}", world.members());

    world.ok(rollback(&world));
    assert_eq!(status(&world), (UpdateState::RollbackStarted, 0));
    assert!(version(&world) > before);
    assert!(!world.members().iter().any(waits), "{:?}", world.members());
    world.settle();
    let new = world
        .members()
        .into_iter()
        .find(|task| task.spec_version > before);
    let new = new.unwrap();
    assert_eq!((new.restart.failures, new.desired), (0, TaskState::Running));
    world.report(&new.id, TaskState::Failed);
    assert_eq!(status(&world), (UpdateState::RollbackStarted, 1));
}
