use super::*;
use crate::output::samples::{service, task};

#[test]
fn running_tasks_complete_a_service() {
    let ng = service(1, "ng", 2);
    let one = task(&ng, 1, 1, TaskState::Running);
    let mut two = task(&ng, 2, 2, TaskState::Starting);
    let progress = Progress::of(&ng, &[one.clone(), two.clone()], Wait::Tasks);
    assert_eq!((progress.running, progress.total), (1, 2));
    assert!(!progress.is_complete());
    two.status.state = TaskState::Running;
    assert!(Progress::of(&ng, &[one, two], Wait::Tasks).is_complete());
    assert!(!Progress::of(&ng, &[], Wait::Tasks).is_complete());
    assert!(Progress::of(&service(1, "ng", 0), &[], Wait::Tasks).is_complete());
}

#[test]
fn tasks_beyond_the_count_must_be_on_their_way_out() {
    let ng = service(1, "ng", 1);
    let one = task(&ng, 1, 1, TaskState::Running);
    let mut two = task(&ng, 2, 2, TaskState::Running);
    let progress = Progress::of(&ng, &[one.clone(), two.clone()], Wait::Tasks);
    assert_eq!((progress.running, progress.surplus), (1, 1));
    assert!(!progress.is_complete());
    two.desired = TaskState::Shutdown;
    assert!(Progress::of(&ng, &[one, two], Wait::Tasks).is_complete());
}

#[test]
fn a_slot_shows_why_its_last_task_ended() {
    let ng = service(1, "ng", 1);
    let mut old = task(&ng, 1, 1, TaskState::Failed);
    old.desired = TaskState::Shutdown;
    old.status.error = Some("task: non-zero exit (1)".to_owned());
    let mut new = task(&ng, 2, 1, TaskState::Ready);
    let progress = Progress::of(&ng, &[old.clone(), new.clone()], Wait::Tasks);
    assert_eq!(
        progress.tasks,
        [Slot {
            state: TaskState::Ready,
            error: Some("task: non-zero exit (1)".to_owned()),
        }]
    );
    new.status.state = TaskState::Running;
    assert_eq!(
        Progress::of(&ng, &[old, new], Wait::Tasks).tasks[0].error,
        None
    );
}

#[test]
fn an_update_counts_new_tasks_only() {
    let mut ng = service(1, "ng", 2);
    let old = task(&ng, 1, 1, TaskState::Running);
    let kept = task(&ng, 2, 2, TaskState::Running);
    ng.spec.task.containers[0].image = "v2".to_owned();
    ng.spec_version = Version(2);
    ng.update_status = Some(status(UpdateState::Updating));
    let mut new = task(&ng, 3, 1, TaskState::Running);
    new.spec_version = Version(2);
    let tasks = [old, kept, new];
    let progress = Progress::of(&ng, &tasks, Wait::Update);
    assert_eq!((progress.running, progress.total), (1, 2));
    assert_eq!(Progress::of(&ng, &tasks[1..], Wait::Tasks).running, 2);
}

#[test]
fn an_update_that_goes_on_is_not_complete() {
    let mut ng = service(1, "ng", 1);
    let tasks = [task(&ng, 1, 1, TaskState::Running)];
    ng.update_status = Some(status(UpdateState::Updating));
    assert!(!Progress::of(&ng, &tasks, Wait::Update).is_complete());
    assert!(Progress::of(&ng, &tasks, Wait::Tasks).is_complete());
    ng.update_status = Some(status(UpdateState::Completed));
    assert!(Progress::of(&ng, &tasks, Wait::Update).is_complete());
}

fn status(state: UpdateState) -> UpdateStatus {
    UpdateStatus {
        state,
        started_at: swarmlet_core::model::Timestamp(0),
        completed_at: None,
        message: "it did".to_owned(),
        slots: 1,
        failures: 0,
        failed_task: None,
    }
}

#[test]
fn ends_are_told_in_dockers_words() {
    let told = |state, wait| failed(&status(state), wait);
    let said = |text: &str| Some(text.to_owned());
    assert_eq!(
        told(UpdateState::Paused, Wait::Update),
        said("service update paused: it did")
    );
    assert_eq!(told(UpdateState::Paused, Wait::Tasks), None);
    assert_eq!(
        told(UpdateState::RollbackPaused, Wait::Rollback),
        said("service rollback paused: it did")
    );
    assert_eq!(
        told(UpdateState::RollbackCompleted, Wait::Update),
        said("service rolled back: it did")
    );
    assert_eq!(told(UpdateState::RollbackCompleted, Wait::Rollback), None);
    assert_eq!(told(UpdateState::Updating, Wait::Update), None);
    assert_eq!(told(UpdateState::Completed, Wait::Update), None);
}
