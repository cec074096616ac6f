//! The worker against a runtime in memory, in virtual time.

#[path = "alone_tests.rs"]
mod alone;

use swarmlet_core::model::{NodeId, PortMode, PortSpec, Protocol, RestartCondition, TaskPort};

use super::fake::{FakeRuntime, scope, task};
use super::*;
use crate::ports::SavedPorts;
use crate::runtime::{ContainerState, Health};

/// Everything is over in far less, and the time is virtual.
const LIMIT: Duration = Duration::from_secs(600);

struct Setup {
    runtime: FakeRuntime,
    handle: WorkerHandle,
    outbox: watch::Receiver<Outbox>,
    engine: watch::Receiver<bool>,
    session: watch::Sender<Connection>,
    stop: CancellationToken,
    ended: tokio::task::JoinHandle<()>,
    store: Store,
    _dir: Option<tempfile::TempDir>,
}

/// A worker on an engine, with nothing on disk.
fn worker(runtime: &FakeRuntime) -> Setup {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let mut setup = restart(runtime, store);
    setup._dir = Some(dir);
    setup
}

/// A worker that goes on from what is on disk.
fn restart(runtime: &FakeRuntime, store: Store) -> Setup {
    let kept = store.load();
    let ports = Ports::new(
        &NodeId::from_random(1),
        "127.0.0.1".parse().unwrap(),
        (43_000, 43_099),
        kept.ports,
    );
    let (session, connected) = watch::channel(with_manager());
    let (worker, handle, told) = Worker::new(
        scope("/tasks"),
        Arc::new(runtime.clone()),
        store.clone(),
        ports,
        kept.tasks,
        connected,
    );
    let stop = CancellationToken::new();
    Setup {
        runtime: runtime.clone(),
        handle,
        outbox: told.statuses,
        engine: told.engine,
        session,
        ended: tokio::spawn(worker.run(stop.clone())),
        stop,
        store,
        _dir: None,
    }
}

fn with_manager() -> Connection {
    Connection {
        manager: Some("127.0.0.1:2377".parse().unwrap()),
        ..Connection::default()
    }
}

impl Setup {
    /// No manager answers from now on.
    fn leave_alone(&self) {
        self.session.send_replace(Connection::default());
    }

    async fn assign(&self, tasks: &[Task]) {
        self.handle
            .assign(Assignments {
                complete: true,
                update: tasks.to_vec(),
                remove: Vec::new(),
            })
            .await;
    }

    /// Waits until a task's latest status is in that state, and returns it.
    async fn reaches(&mut self, id: u128, state: TaskState) -> TaskStatus {
        let id = TaskId::from_random(id);
        let mut seen = None;
        let wait = async {
            loop {
                let (statuses, _) = self.outbox.borrow_and_update().since(0);
                seen = statuses
                    .into_iter()
                    .find(|(task, _)| *task == id)
                    .map(|(_, status)| status);
                if let Some(status) = seen.as_ref().filter(|status| status.state == state) {
                    return status.clone();
                }
                self.outbox.changed().await.unwrap();
            }
        };
        match tokio::time::timeout(LIMIT, wait).await {
            Ok(status) => status,
            Err(_) => panic!("task {id} is not {state} but {seen:?}"),
        }
    }

    async fn until(&self, what: &str, holds: impl Fn(&FakeRuntime) -> bool) {
        let wait = async {
            while !holds(&self.runtime) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(LIMIT, wait).await.is_err() {
            panic!("not {what}: {:?}", self.runtime.calls());
        }
    }

    async fn end(self) -> (Store, Option<tempfile::TempDir>) {
        self.stop.cancel();
        self.ended.await.unwrap();
        (self.store, self._dir)
    }
}

fn desired(id: u128, desired: TaskState) -> Task {
    task(id, |task| task.desired = desired)
}

fn publishing(id: u128) -> Task {
    task(id, |task| {
        task.ports = vec![PortSpec {
            target: 80,
            published: 8080,
            protocol: Protocol::Tcp,
            mode: PortMode::Ingress,
            proxy_protocol: None,
            accept_proxy: Vec::new(),
        }];
    })
}

fn ids(ids: &[u128]) -> Vec<TaskId> {
    ids.iter().map(|&id| TaskId::from_random(id)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_task_is_prepared_then_started() {
    let mut setup = worker(&FakeRuntime::new());
    setup.assign(&[desired(1, TaskState::Ready)]).await;
    assert_eq!(setup.reaches(1, TaskState::Ready).await.message, "prepared");
    assert_eq!(setup.runtime.calls(), ["prepare 1"]);

    setup.assign(&[publishing(1)]).await;
    let status = setup.reaches(1, TaskState::Running).await;
    assert_eq!(setup.runtime.calls(), ["prepare 1", "start 1"]);
    let container = status.container.unwrap();
    assert_eq!((container.pid, container.exit_code), (42, None));
}

#[tokio::test(start_paused = true)]
async fn a_published_port_is_reported() {
    let mut setup = worker(&FakeRuntime::new());
    setup.assign(&[publishing(1)]).await;
    let status = setup.reaches(1, TaskState::Running).await;
    assert_eq!(status.ports.len(), 1);
    assert_eq!(status.ports[0].target, 80);
    assert!((43_000..=43_099).contains(&status.ports[0].host));
}

#[tokio::test(start_paused = true)]
async fn assignments_again_change_nothing() {
    let mut setup = worker(&FakeRuntime::new());
    for _ in 0..3 {
        setup.assign(&[desired(1, TaskState::Running)]).await;
        setup.reaches(1, TaskState::Running).await;
    }
    tokio::time::sleep(RELIST * 3).await;
    assert_eq!(setup.runtime.calls(), ["prepare 1", "start 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_task_is_stopped_kept_and_removed() {
    let mut setup = worker(&FakeRuntime::new());
    setup.assign(&[desired(1, TaskState::Running)]).await;
    setup.reaches(1, TaskState::Running).await;

    setup.assign(&[desired(1, TaskState::Shutdown)]).await;
    let status = setup.reaches(1, TaskState::Shutdown).await;
    assert_eq!(status.container.unwrap().exit_code, Some(143));
    tokio::time::sleep(RELIST * 2).await;
    assert_eq!(
        setup.runtime.all(),
        ids(&[1]),
        "its container can still be looked at"
    );

    setup
        .handle
        .assign(Assignments {
            remove: ids(&[1]),
            ..Assignments::default()
        })
        .await;
    setup
        .until("removed", |runtime| runtime.all().is_empty())
        .await;
    assert_eq!(
        setup.runtime.calls(),
        ["prepare 1", "start 1", "stop 1", "remove 1"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_stop_cuts_off_a_pull() {
    let runtime = FakeRuntime::with_pulls(0);
    let mut setup = worker(&runtime);
    setup.assign(&[desired(1, TaskState::Running)]).await;
    setup.reaches(1, TaskState::Preparing).await;
    setup.assign(&[desired(1, TaskState::Shutdown)]).await;
    setup.reaches(1, TaskState::Shutdown).await;
    assert_eq!(setup.runtime.calls(), ["prepare 1"]);
}

#[tokio::test(start_paused = true)]
async fn pulls_that_stand_still_hold_up_no_other_task() {
    let runtime = FakeRuntime::with_pulls(0);
    let setup = worker(&runtime);
    let tasks: Vec<_> = (1..=20)
        .map(|task| desired(task, TaskState::Running))
        .collect();
    setup.assign(&tasks).await;
    // Every one of them gets as far as to look whether its image is there.
    setup
        .until("twenty tries", |runtime| runtime.calls().len() == 20)
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_pull_holds_up_no_other_task() {
    let runtime = FakeRuntime::with_pulls(1);
    let mut setup = worker(&runtime);
    setup
        .assign(&[
            desired(1, TaskState::Running),
            desired(2, TaskState::Running),
        ])
        .await;
    setup
        .until("one of two", |runtime| runtime.running().len() == 1)
        .await;
    let other = if setup.runtime.running() == ids(&[1]) {
        2
    } else {
        1
    };
    setup.reaches(other, TaskState::Preparing).await;
}

#[tokio::test(start_paused = true)]
async fn ends_are_told_apart() {
    let exited = |code, reason: Option<&str>| ContainerState::Exited {
        code,
        reason: reason.map(str::to_owned),
    };
    for (state, expected, error) in [
        (exited(0, None), TaskState::Complete, None),
        (
            exited(1, None),
            TaskState::Failed,
            Some("task: non-zero exit (1)"),
        ),
        (
            exited(137, Some("out of memory")),
            TaskState::Failed,
            Some("task: non-zero exit (137): out of memory"),
        ),
        (
            ContainerState::Running(Health::Unhealthy),
            TaskState::Failed,
            Some("unhealthy container"),
        ),
    ] {
        let mut setup = worker(&FakeRuntime::new());
        setup.assign(&[desired(1, TaskState::Running)]).await;
        setup.reaches(1, TaskState::Running).await;
        setup.runtime.change(&TaskId::from_random(1), state);
        let status = setup.reaches(1, expected).await;
        assert_eq!(status.error.as_deref(), error);
        setup
            .until("stopped", |runtime| runtime.running().is_empty())
            .await;
        tokio::time::sleep(RELIST * 2).await;
        assert_eq!(setup.reaches(1, expected).await.error.as_deref(), error);
    }
}

#[tokio::test(start_paused = true)]
async fn a_container_that_vanishes_is_a_failure() {
    let mut setup = worker(&FakeRuntime::new());
    setup.assign(&[desired(1, TaskState::Running)]).await;
    setup.reaches(1, TaskState::Running).await;
    setup.runtime.take(&TaskId::from_random(1));
    let status = setup.reaches(1, TaskState::Failed).await;
    assert_eq!(status.error.as_deref(), Some("the container is gone"));
}

#[tokio::test(start_paused = true)]
async fn an_unhealthy_start_is_not_running_yet() {
    let runtime = FakeRuntime::new();
    runtime.start_with(Health::Starting);
    let mut setup = worker(&runtime);
    setup.assign(&[desired(1, TaskState::Running)]).await;
    setup
        .until("started", |runtime| runtime.running().len() == 1)
        .await;
    tokio::time::sleep(RELIST * 2).await;
    setup.reaches(1, TaskState::Starting).await;
    setup.runtime.change(
        &TaskId::from_random(1),
        ContainerState::Running(Health::Healthy),
    );
    setup.reaches(1, TaskState::Running).await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_image_is_rejected_at_once() {
    let runtime = FakeRuntime::new();
    let reason = "No such image: x";
    runtime.fail("prepare", RuntimeError::Rejected(reason.to_owned()), 1);
    let mut setup = worker(&runtime);
    setup.assign(&[desired(1, TaskState::Running)]).await;
    let status = setup.reaches(1, TaskState::Rejected).await;
    assert_eq!(status.error.as_deref(), Some(reason));
    tokio::time::sleep(RELIST * 2).await;
    assert_eq!(setup.runtime.calls(), ["prepare 1"]);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_away_is_waited_for() {
    let runtime = FakeRuntime::new();
    let away = || RuntimeError::Unavailable("away".to_owned());
    runtime.fail("list", away(), 2);
    runtime.fail("prepare", away(), 5);
    runtime.fail("start", away(), 5);
    let mut setup = worker(&runtime);
    setup.assign(&[desired(1, TaskState::Running)]).await;
    let status = setup.reaches(1, TaskState::Running).await;
    assert_eq!(status.error, None, "the trouble is over");
    setup.runtime.fail("inspect", away(), 3);
    setup.runtime.fail("list", away(), 3);
    setup.runtime.change(
        &TaskId::from_random(1),
        ContainerState::Running(Health::Unchecked),
    );
    tokio::time::sleep(RELIST * 10).await;
    setup.reaches(1, TaskState::Running).await;
    assert_eq!(setup.runtime.running(), ids(&[1]));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_does_not_pass_is_given_up() {
    let runtime = FakeRuntime::new();
    runtime.fail("start", RuntimeError::Refused("no space".to_owned()), 3);
    let mut setup = worker(&runtime);
    setup.assign(&[desired(1, TaskState::Running)]).await;
    let status = setup.reaches(1, TaskState::Rejected).await;
    assert_eq!(status.error.as_deref(), Some("no space"));
}

#[tokio::test(start_paused = true)]
async fn a_taken_port_is_replaced_by_another() {
    let runtime = FakeRuntime::new();
    runtime.fail("start", RuntimeError::PortTaken("taken".to_owned()), 2);
    let mut setup = worker(&runtime);
    setup.assign(&[publishing(1)]).await;
    let status = setup.reaches(1, TaskState::Running).await;
    let kept: SavedPorts = setup.store.load().ports;
    assert!(!kept.resting.contains_key(&status.ports[0].host));
    assert_eq!(kept.resting.len(), 2, "those that were taken rest");
}

#[tokio::test(start_paused = true)]
async fn running_containers_are_adopted_after_a_restart() {
    let runtime = FakeRuntime::new();
    let mut setup = worker(&runtime);
    setup
        .assign(&[publishing(1), desired(2, TaskState::Running)])
        .await;
    let before = setup.reaches(1, TaskState::Running).await;
    setup.reaches(2, TaskState::Running).await;
    let calls = runtime.calls();
    let (store, dir) = setup.end().await;
    runtime.take(&TaskId::from_random(2));

    // No manager is there: what was on disk is enough.
    let mut setup = restart(&runtime, store);
    setup._dir = dir;
    let gone = setup.reaches(2, TaskState::Failed).await;
    assert_eq!(gone.error.as_deref(), Some("the container is gone"));
    let after = setup.reaches(1, TaskState::Running).await;
    assert_eq!(after.ports, before.ports);
    tokio::time::sleep(RELIST * 2).await;
    assert_eq!(runtime.calls(), calls, "nothing was started or stopped");
}

#[tokio::test(start_paused = true)]
async fn containers_are_adopted_without_anything_on_disk() {
    let runtime = FakeRuntime::new();
    let ports = [TaskPort {
        target: 80,
        host: 43_007,
        protocol: Protocol::Tcp,
        mode: PortMode::Ingress,
    }];
    runtime.put(&TaskId::from_random(1), &ports);
    let mut setup = worker(&runtime);
    tokio::time::sleep(RELIST * 2).await;
    assert_eq!(
        runtime.running(),
        ids(&[1]),
        "left alone until a manager has spoken"
    );
    let mut known = publishing(1);
    known.status.state = TaskState::Running;
    setup.assign(&[known]).await;
    let status = setup.reaches(1, TaskState::Running).await;
    setup.until("adopted", |_| true).await;
    tokio::time::sleep(RELIST * 2).await;
    assert_eq!(setup.reaches(1, status.state).await.ports, ports);
    assert_eq!(runtime.calls(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn containers_without_a_task_are_removed() {
    let runtime = FakeRuntime::new();
    runtime.put(&TaskId::from_random(7), &[]);
    let mut setup = worker(&runtime);
    setup
        .handle
        .assign(Assignments {
            update: vec![desired(1, TaskState::Running)],
            ..Assignments::default()
        })
        .await;
    setup.reaches(1, TaskState::Running).await;
    tokio::time::sleep(RELIST * 2).await;
    assert_eq!(runtime.running(), ids(&[1, 7]), "that was no complete set");

    setup.assign(&[desired(1, TaskState::Running)]).await;
    setup
        .until("removed", |runtime| runtime.all() == ids(&[1]))
        .await;
    assert_eq!(runtime.running(), ids(&[1]));
}

#[tokio::test(start_paused = true)]
async fn a_complete_set_removes_what_it_does_not_name() {
    let mut setup = worker(&FakeRuntime::new());
    setup
        .assign(&[
            desired(1, TaskState::Running),
            desired(2, TaskState::Running),
        ])
        .await;
    setup.reaches(1, TaskState::Running).await;
    setup.reaches(2, TaskState::Running).await;
    setup.assign(&[desired(2, TaskState::Running)]).await;
    setup
        .until("removed", |runtime| runtime.all() == ids(&[2]))
        .await;
    assert_eq!(setup.runtime.running(), ids(&[2]));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_managers_gave_up_is_stopped() {
    let mut setup = worker(&FakeRuntime::new());
    setup.assign(&[desired(1, TaskState::Running)]).await;
    setup.reaches(1, TaskState::Running).await;
    let mut orphan = desired(1, TaskState::Running);
    orphan.status.state = TaskState::Orphaned;
    setup.assign(&[orphan]).await;
    setup
        .until("stopped", |runtime| runtime.running().is_empty())
        .await;
    setup.reaches(1, TaskState::Orphaned).await;
}

#[tokio::test(start_paused = true)]
async fn leaving_removes_everything() {
    let runtime = FakeRuntime::new();
    runtime.put(&TaskId::from_random(9), &[]);
    let mut setup = worker(&runtime);
    setup
        .assign(&[
            desired(1, TaskState::Running),
            desired(9, TaskState::Running),
        ])
        .await;
    setup.reaches(1, TaskState::Running).await;
    runtime.put(&TaskId::from_random(8), &[]);
    runtime.fail("list", RuntimeError::Unavailable("away".to_owned()), 1);
    setup.handle.leave().await;
    assert_eq!(runtime.all(), ids(&[]));
    setup.assign(&[desired(2, TaskState::Running)]).await;
    tokio::time::sleep(RELIST * 2).await;
    assert_eq!(runtime.all(), ids(&[]), "nothing is started any more");
}
