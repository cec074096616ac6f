use std::collections::BTreeSet;

use swarmlet_core::model::{NodeId, RestartCondition, ServiceMode, TaskState};

use super::tally::Slot;
use super::*;
use crate::output::samples::{service, task};

fn tally(service: &Service, tasks: &[Task], wait: Wait) -> Progress {
    Progress::of(service, tasks, &BTreeSet::new(), wait)
}

#[test]
fn running_tasks_complete_a_service() {
    let ng = service(1, "ng", 2);
    let one = task(&ng, 1, 1, TaskState::Running);
    let mut two = task(&ng, 2, 2, TaskState::Starting);
    let progress = tally(&ng, &[one.clone(), two.clone()], Wait::Tasks);
    assert_eq!((progress.running, progress.total), (1, 2));
    assert!(!progress.is_complete());
    two.status.state = TaskState::Running;
    assert!(tally(&ng, &[one, two], Wait::Tasks).is_complete());
    assert!(!tally(&ng, &[], Wait::Tasks).is_complete());
    assert!(tally(&service(1, "ng", 0), &[], Wait::Tasks).is_complete());
}

#[test]
fn tasks_beyond_the_count_must_be_on_their_way_out() {
    let ng = service(1, "ng", 1);
    let one = task(&ng, 1, 1, TaskState::Running);
    let mut two = task(&ng, 2, 2, TaskState::Running);
    let progress = tally(&ng, &[one.clone(), two.clone()], Wait::Tasks);
    assert_eq!((progress.running, progress.surplus), (1, 1));
    assert!(!progress.is_complete());
    two.desired = TaskState::Shutdown;
    assert!(tally(&ng, &[one, two], Wait::Tasks).is_complete());
}

#[test]
fn a_slot_shows_why_its_last_task_ended() {
    let ng = service(1, "ng", 1);
    let mut old = task(&ng, 1, 1, TaskState::Failed);
    old.desired = TaskState::Shutdown;
    old.status.error = Some("task: non-zero exit (1)".to_owned());
    let mut new = task(&ng, 2, 1, TaskState::Ready);
    let progress = tally(&ng, &[old.clone(), new.clone()], Wait::Tasks);
    assert_eq!(
        progress.tasks,
        [Slot {
            node: None,
            state: TaskState::Ready,
            relieves: false,
            error: Some("task: non-zero exit (1)".to_owned()),
        }]
    );
    new.status.state = TaskState::Running;
    assert_eq!(tally(&ng, &[old, new], Wait::Tasks).tasks[0].error, None);
}

#[test]
fn a_task_that_moves_runs_until_the_other_one_does() {
    let mut ng = service(1, "ng", 2);
    let stays = task(&ng, 1, 1, TaskState::Running);
    let mut old = task(&ng, 2, 2, TaskState::Running);
    old.node = Some(NodeId::from_random(7));
    let new = task(&ng, 3, 2, TaskState::Preparing);
    let counts = |tasks: &[Task]| {
        let progress = tally(&service(1, "ng", 2), tasks, Wait::Tasks);
        (progress.running, progress.relieving, progress.is_complete())
    };
    let tasks = [stays, old, new];
    assert_eq!(counts(&tasks), (1, 1, false));
    // Nothing is known of it any more.
    let down = tasks[1].node.clone().into_iter().collect();
    assert_eq!(Progress::of(&ng, &tasks, &down, Wait::Tasks).relieving, 0);
    let [stays, mut old, mut new] = tasks;
    old.desired = TaskState::Shutdown;
    assert_eq!(
        counts(&[stays.clone(), old.clone(), new.clone()]),
        (1, 0, false)
    );
    new.status.state = TaskState::Running;
    let tasks = [stays, old, new];
    assert_eq!(counts(&tasks), (2, 0, true));
    // An update counts what is new, and nothing goes on in place of that.
    ng.spec.task.force_update = 1;
    ng.spec_version = Version(2);
    assert_eq!(tally(&ng, &tasks, Wait::Update).relieving, 0);
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
    let progress = tally(&ng, &tasks, Wait::Update);
    assert_eq!((progress.running, progress.total), (1, 2));
    assert_eq!(tally(&ng, &tasks[1..], Wait::Tasks).running, 2);
}

#[test]
fn an_update_that_goes_on_is_not_complete() {
    let mut ng = service(1, "ng", 1);
    let tasks = [task(&ng, 1, 1, TaskState::Running)];
    ng.update_status = Some(status(UpdateState::Updating));
    assert!(!tally(&ng, &tasks, Wait::Update).is_complete());
    assert!(tally(&ng, &tasks, Wait::Tasks).is_complete());
    ng.update_status = Some(status(UpdateState::Completed));
    assert!(tally(&ng, &tasks, Wait::Update).is_complete());
}

fn status(state: UpdateState) -> UpdateStatus {
    UpdateStatus {
        state,
        started_at: Timestamp(0),
        completed_at: None,
        message: "it did".to_owned(),
        slots: 1,
        failures: 0,
        failed_task: None,
    }
}

#[test]
fn an_update_before_the_change_says_nothing_of_it() {
    let mut ng = service(1, "ng", 0);
    ng.update_status = Some(status(UpdateState::Paused));
    let message = || v1::WatchServiceResponse {
        version: 2,
        service: Some((&ng).into()),
        tasks: Vec::new(),
        down_nodes: Vec::new(),
    };
    let told = |earlier_update| {
        let since = Since {
            version: Version(2),
            earlier_update,
        };
        progress(message(), since, Wait::Update).map_err(|error| error.to_string())
    };
    assert!(told(Some(Timestamp(0))).is_ok());
    for earlier in [None, Some(Timestamp(1))] {
        assert_eq!(told(earlier).unwrap_err(), "service update paused: it did");
    }
}

#[test]
fn ends_are_told_in_dockers_words() {
    let told = |state, wait| failed(&status(state), wait).map(|failed| failed.to_string());
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

#[test]
fn one_task_on_each_node_counts_the_nodes() {
    let mut ng = service(1, "ng", 1);
    ng.spec.mode = ServiceMode::Global {};
    let on = |number: u128, slot, state| {
        let mut task = task(&ng, number, slot, state);
        task.home = Some(NodeId::from_random(number << 100));
        task
    };
    assert!(!tally(&ng, &[], Wait::Tasks).is_complete());
    let one = on(1, 1, TaskState::Running);
    let two = on(2, 2, TaskState::Starting);
    let progress = tally(&ng, &[one.clone(), two], Wait::Tasks);
    assert_eq!((progress.running, progress.total), (1, 2));
    assert_eq!(progress.tasks[0].node.as_deref(), Some("000003ewfdnc"));
    let two = on(2, 2, TaskState::Running);
    let mut updating = ng.clone();
    assert!(tally(&ng, &[one.clone(), two.clone()], Wait::Tasks).is_complete());
    // A node that is paused keeps the task that it has: it is not waited for once the update
    // of the others is over.
    updating.spec.task.force_update = 1;
    updating.spec_version = Version(2);
    updating.update_status = Some(status(UpdateState::Updating));
    let mut new = on(2, 2, TaskState::Running);
    new.spec_version = Version(2);
    new.spec.force_update = 1;
    let tasks = [one, new];
    let progress = tally(&updating, &tasks, Wait::Update);
    assert_eq!((progress.running, progress.total), (1, 2));
    updating.update_status = Some(status(UpdateState::Completed));
    assert!(tally(&updating, &tasks, Wait::Update).is_complete());
}

#[test]
fn a_job_is_done_or_given_up() {
    let mut job = service(1, "job", 1);
    job.spec.mode = ServiceMode::ReplicatedJob {
        max_concurrent: 1,
        total_completions: 2,
    };
    job.spec.task.restart.condition = RestartCondition::None;
    let one = task(&job, 1, 1, TaskState::Complete);
    let half = tally(&job, std::slice::from_ref(&one), Wait::Tasks);
    assert!(!half.is_done());
    let two = task(&job, 2, 2, TaskState::Complete);
    let tasks = [one.clone(), two];
    assert!(tally(&job, &tasks, Wait::Tasks).is_done());
    let mut bad = task(&job, 2, 2, TaskState::Failed);
    bad.status.error = Some("task: non-zero exit (3)".to_owned());
    let expected = "job job failed: 1 of 2 tasks were given up: task: non-zero exit (3)";
    let tasks = [one, bad];
    let given_up = tally(&job, &tasks, Wait::Tasks).given_up();
    assert_eq!(given_up.as_deref(), Some(expected));
    // It would be started again.
    job.spec.task.restart.condition = RestartCondition::OnFailure;
    assert_eq!(tally(&job, &tasks, Wait::Tasks).given_up(), None);
    // What the run before came to is not what this one comes to.
    job.spec_version = Version(2);
    let again = tally(&job, &tasks, Wait::Update);
    assert!(!again.is_done() && again.given_up().is_none());
}

#[test]
fn a_service_whose_tasks_are_given_up_is_waited_for_no_longer() {
    let mut ng = service(1, "ng", 2);
    ng.spec.task.restart.condition = RestartCondition::None;
    let one = task(&ng, 1, 1, TaskState::Running);
    let mut two = task(&ng, 2, 2, TaskState::Complete);
    let given_up = |ng: &Service, two: &Task, wait| {
        let tasks = [one.clone(), two.clone()];
        tally(ng, &tasks, wait).given_up()
    };
    let reason = |why| {
        Some(format!(
            "service ng will not converge: 1 of 2 tasks ended, and the restart policy starts no \
             other: {why}"
        ))
    };
    assert_eq!(given_up(&ng, &two, Wait::Tasks), reason("exit code 0"));
    two.status.state = TaskState::Failed;
    two.status.error = Some("task: non-zero exit (3)".to_owned());
    assert_eq!(
        given_up(&ng, &two, Wait::Tasks),
        reason("task: non-zero exit (3)")
    );
    // What becomes of an update the updater says.
    ng.update_status = Some(status(UpdateState::Updating));
    assert_eq!(given_up(&ng, &two, Wait::Update), None);
    ng.update_status = None;
    // The other one is not there yet, or it is started again.
    assert_eq!(tally(&ng, &[two.clone()], Wait::Tasks).given_up(), None);
    ng.spec.task.restart.condition = RestartCondition::Any;
    assert_eq!(given_up(&ng, &two, Wait::Tasks), None);
    ng.spec.task.restart.max_attempts = 2;
    two.restart.attempts = 2;
    assert!(given_up(&ng, &two, Wait::Tasks).is_some());
}
