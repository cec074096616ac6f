use super::*;
use crate::output::samples::{service, task};

#[test]
fn running_tasks_complete_a_service() {
    let ng = service(1, "ng", 2);
    let one = task(&ng, 1, 1, TaskState::Running);
    let mut two = task(&ng, 2, 2, TaskState::Starting);
    let progress = Progress::of(&ng, &[one.clone(), two.clone()]);
    assert_eq!((progress.running, progress.total), (1, 2));
    assert!(!progress.is_complete());
    two.status.state = TaskState::Running;
    assert!(Progress::of(&ng, &[one, two]).is_complete());
    assert!(!Progress::of(&ng, &[]).is_complete());
    assert!(Progress::of(&service(1, "ng", 0), &[]).is_complete());
}

#[test]
fn tasks_beyond_the_count_must_be_on_their_way_out() {
    let ng = service(1, "ng", 1);
    let one = task(&ng, 1, 1, TaskState::Running);
    let mut two = task(&ng, 2, 2, TaskState::Running);
    let progress = Progress::of(&ng, &[one.clone(), two.clone()]);
    assert_eq!((progress.running, progress.surplus), (1, 1));
    assert!(!progress.is_complete());
    two.desired = TaskState::Shutdown;
    assert!(Progress::of(&ng, &[one, two]).is_complete());
}

#[test]
fn a_slot_shows_why_its_last_task_ended() {
    let ng = service(1, "ng", 1);
    let mut old = task(&ng, 1, 1, TaskState::Failed);
    old.desired = TaskState::Shutdown;
    old.status.error = Some("task: non-zero exit (1)".to_owned());
    let mut new = task(&ng, 2, 1, TaskState::Ready);
    let progress = Progress::of(&ng, &[old.clone(), new.clone()]);
    assert_eq!(
        progress.tasks,
        [Slot {
            state: TaskState::Ready,
            error: Some("task: non-zero exit (1)".to_owned()),
        }]
    );
    new.status.state = TaskState::Running;
    assert_eq!(Progress::of(&ng, &[old, new]).tasks[0].error, None);
}
