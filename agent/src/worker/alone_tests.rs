//! A worker that no manager answers, an engine that goes away, and endpoints of its own.

use super::*;
use crate::worker::saving::SAVE_DELAY;

fn alone(runtime: &FakeRuntime) -> Setup {
    let setup = worker(runtime);
    setup.leave_alone();
    setup
}

fn exited(code: i32) -> ContainerState {
    ContainerState::Exited { code, reason: None }
}

fn id(number: u128) -> TaskId {
    TaskId::from_random(number)
}

/// Waits until the worker says that exactly these tasks take connections.
async fn serves(setup: &Setup, expected: &[u128]) -> Own {
    let expected = ids(expected);
    let mut own = setup.handle.own();
    let serving = own.wait_for(|own| own.serving.keys().eq(expected.iter()));
    match tokio::time::timeout(LIMIT, serving).await {
        Ok(own) => own.unwrap().clone(),
        Err(_) => panic!("not {expected:?} but {:?}", setup.handle.own().borrow()),
    }
}

/// Waits until the status says that the task runs for the so manieth time.
async fn runs_again(setup: &mut Setup, number: u128, attempt: u32) -> TaskStatus {
    let message = format!("started, again in place ({attempt})");
    let mut outbox = setup.outbox.clone();
    let wait = async {
        loop {
            let (statuses, _) = outbox.borrow_and_update().since(0);
            let found = statuses
                .into_iter()
                .find(|(task, status)| *task == id(number) && status.message == message);
            if let Some((_, status)) = found {
                return status;
            }
            outbox.changed().await.unwrap();
        }
    };
    tokio::time::timeout(LIMIT, wait).await.expect(&message)
}

#[tokio::test(start_paused = true)]
async fn without_a_manager_a_task_that_ends_is_started_again_in_place() {
    let mut setup = alone(&FakeRuntime::new());
    setup.assign(&[publishing(1)]).await;
    let before = setup.reaches(1, TaskState::Running).await;
    serves(&setup, &[1]).await;
    tokio::time::sleep(ALONE).await;

    let moment = Instant::now();
    setup.runtime.change(&id(1), exited(1));
    let after = runs_again(&mut setup, 1, 1).await;
    assert!(
        moment.elapsed() < Duration::from_secs(1),
        "{:?}",
        moment.elapsed()
    );
    assert_eq!(after.state, TaskState::Running);
    assert_eq!(after.ports, before.ports, "other nodes know it by its port");
    assert_eq!(
        setup.runtime.calls(),
        ["prepare 1", "start 1", "remove 1", "prepare 1", "start 1"]
    );
    serves(&setup, &[1]).await;

    // It keeps failing: the pause grows, as it does with the managers.
    for (attempt, pause) in [(2, 1), (3, 2), (4, 4)] {
        let moment = Instant::now();
        setup.runtime.change(&id(1), exited(1));
        runs_again(&mut setup, 1, attempt).await;
        let range = Duration::from_secs(pause)..Duration::from_secs(pause) * 2;
        assert!(
            range.contains(&moment.elapsed()),
            "{attempt}: {:?}",
            moment.elapsed()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn with_a_manager_the_end_is_reported_and_that_is_all() {
    let mut setup = worker(&FakeRuntime::new());
    setup.assign(&[publishing(1)]).await;
    setup.reaches(1, TaskState::Running).await;
    setup.runtime.change(&id(1), exited(1));
    setup.reaches(1, TaskState::Failed).await;
    tokio::time::sleep(ALONE * 10).await;
    assert_eq!(setup.runtime.calls(), ["prepare 1", "start 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_policy_without_restarts_is_respected() {
    let mut setup = alone(&FakeRuntime::new());
    let task = task(1, |task| {
        task.spec.restart.condition = RestartCondition::OnFailure;
        task.spec.restart.max_attempts = 1;
    });
    setup.assign(&[task]).await;
    setup.reaches(1, TaskState::Running).await;
    tokio::time::sleep(ALONE).await;
    setup.runtime.change(&id(1), exited(1));
    runs_again(&mut setup, 1, 1).await;
    setup.runtime.change(&id(1), exited(1));
    setup.reaches(1, TaskState::Failed).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    setup.reaches(1, TaskState::Failed).await;

    let mut setup = alone(&FakeRuntime::new());
    let task = super::task(1, |task| {
        task.spec.restart.condition = RestartCondition::OnFailure;
    });
    setup.assign(&[task]).await;
    setup.reaches(1, TaskState::Running).await;
    setup.runtime.change(&id(1), exited(0));
    tokio::time::sleep(Duration::from_secs(600)).await;
    setup.reaches(1, TaskState::Complete).await;
}

#[tokio::test(start_paused = true)]
async fn a_rebooted_node_brings_its_tasks_back() {
    let runtime = FakeRuntime::new();
    let mut setup = worker(&runtime);
    setup
        .assign(&[publishing(1), desired(2, TaskState::Running)])
        .await;
    let before = setup.reaches(1, TaskState::Running).await;
    setup.reaches(2, TaskState::Running).await;
    tokio::time::sleep(SAVE_DELAY * 2).await;
    let (store, dir) = setup.end().await;
    // All has died with the machine, and of one not even the container is left.
    runtime.change(&id(1), exited(255));
    runtime.take(&id(2));

    let mut setup = restart(&runtime, store);
    setup._dir = dir;
    setup.leave_alone();
    let after = runs_again(&mut setup, 1, 1).await;
    assert_eq!(after.ports, before.ports);
    runs_again(&mut setup, 2, 1).await;
    serves(&setup, &[1, 2]).await;

    // The managers are back, and know what they knew: nothing changes.
    setup.session.send_replace(with_manager());
    let calls = runtime.calls();
    let mut known = [publishing(1), desired(2, TaskState::Running)];
    for task in &mut known {
        task.status.state = TaskState::Running;
    }
    setup.assign(&known).await;
    tokio::time::sleep(RELIST * 3).await;
    assert_eq!(runtime.calls(), calls);
    runs_again(&mut setup, 1, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_the_managers_have_replaced_is_stopped() {
    let mut setup = alone(&FakeRuntime::new());
    setup.assign(&[publishing(1)]).await;
    setup.reaches(1, TaskState::Running).await;
    tokio::time::sleep(ALONE).await;
    setup.runtime.change(&id(1), exited(1));
    runs_again(&mut setup, 1, 1).await;
    // They had heard of its first end just before they went away.
    setup.session.send_replace(with_manager());
    let mut replaced = publishing(1);
    replaced.status.state = TaskState::Failed;
    replaced.desired = TaskState::Shutdown;
    setup.assign(&[replaced]).await;
    setup
        .until("stopped", |runtime| runtime.running().is_empty())
        .await;
    serves(&setup, &[]).await;
    tokio::time::sleep(RELIST * 2).await;
    assert_eq!(setup.runtime.running(), ids(&[]));
}

#[tokio::test(start_paused = true)]
async fn an_end_takes_the_endpoint_out_before_anybody_has_looked() {
    let mut setup = worker(&FakeRuntime::new());
    setup
        .assign(&[publishing(1), desired(2, TaskState::Running)])
        .await;
    setup.reaches(1, TaskState::Running).await;
    setup.reaches(2, TaskState::Running).await;
    serves(&setup, &[1, 2]).await;
    let away = RuntimeError::Unavailable("slow".to_owned());
    setup.runtime.fail("inspect", away, 3);
    setup.runtime.tell_end(&id(1));
    serves(&setup, &[2]).await;
    // It was the end of an earlier run: it is back once it was looked at.
    serves(&setup, &[1, 2]).await;
    setup
        .runtime
        .change(&id(1), ContainerState::Running(Health::Unhealthy));
    serves(&setup, &[2]).await;
}

#[tokio::test(start_paused = true)]
async fn a_start_waits_until_the_balancer_has_let_go() {
    let mut setup = worker(&FakeRuntime::new());
    setup.assign(&[publishing(1)]).await;
    setup.reaches(1, TaskState::Running).await;
    let own = serves(&setup, &[1]).await;
    setup.handle.routed(own.number);
    setup.runtime.change(&id(1), exited(1));
    setup.reaches(1, TaskState::Failed).await;
    let gone = serves(&setup, &[]).await;
    setup
        .assign(&[publishing(1), desired(2, TaskState::Running)])
        .await;
    setup.reaches(2, TaskState::Starting).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(
        setup.runtime.running(),
        ids(&[]),
        "its address may be given anew"
    );
    setup.handle.routed(gone.number);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(setup.runtime.running(), ids(&[2]));
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_away_costs_no_task() {
    let runtime = FakeRuntime::new();
    let mut setup = worker(&runtime);
    setup.assign(&[publishing(1)]).await;
    setup.reaches(1, TaskState::Running).await;
    assert!(*setup.engine.borrow());
    let away = || RuntimeError::Unavailable("away".to_owned());
    runtime.fail("list", away(), 60);
    let limit = tokio::time::timeout(LIMIT, setup.engine.wait_for(|answers| !answers)).await;
    limit.expect("the engine is known to be away").unwrap();
    setup
        .assign(&[publishing(1), desired(2, TaskState::Running)])
        .await;
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert_eq!(setup.reaches(1, TaskState::Running).await.error, None);
    serves(&setup, &[1]).await;
    assert_eq!(
        runtime.running(),
        ids(&[1]),
        "nothing is started that nobody could look at"
    );
    setup.engine.wait_for(|answers| *answers).await.unwrap();
    setup.reaches(2, TaskState::Running).await;
    assert_eq!(
        runtime.calls(),
        ["prepare 1", "start 1", "prepare 2", "start 2"]
    );
}
