//! A runtime in memory, and tasks to run in it.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{self, BoxStream, StreamExt};
use swarmlet_core::model::{
    ClusterId, ContainerSpec, NodeId, Resources, RestartHistory, RuntimeKind, ServiceId, Task,
    TaskId, TaskPort, TaskSpec, TaskState, TaskStatus, Timestamp, Version,
};
use tokio::sync::{Semaphore, broadcast};
use tokio_stream::wrappers::BroadcastStream;

use crate::runtime::log::{LogLine, LogQuery, LogStream};
use crate::runtime::{
    Container, ContainerState, Engine, Health, Runtime, RuntimeError, RuntimeEvent, Scope,
};

/// A task of service `ng` that is to run.
pub(crate) fn task(id: u128, edit: impl FnOnce(&mut Task)) -> Task {
    let container = ContainerSpec {
        image: "whoami".to_owned(),
        stop_grace_period: Duration::from_secs(1),
        ..ContainerSpec::default()
    };
    let mut task = Task {
        id: TaskId::from_random(id),
        version: Version(1),
        service: ServiceId::from_random(1),
        service_name: "ng".to_owned(),
        slot: 1,
        home: None,
        node: Some(NodeId::from_random(1)),
        generic_names: Default::default(),
        spec: TaskSpec {
            containers: vec![container],
            ..TaskSpec::default()
        },
        ports: Vec::new(),
        spec_version: Version(1),
        created_at: Timestamp(1),
        desired: TaskState::Running,
        status: TaskStatus {
            state: TaskState::Assigned,
            at: Timestamp(1),
            message: "assigned".to_owned(),
            error: None,
            container: None,
            ports: Vec::new(),
        },
        restart: RestartHistory::default(),
        moving: false,
        draining: None,
    };
    edit(&mut task);
    task
}

/// The scope of a node on 127.0.0.1.
pub(crate) fn scope(dir: impl Into<PathBuf>) -> Scope {
    Scope {
        cluster: ClusterId::from_random(1),
        node: NodeId::from_random(1),
        hostname: "host1".to_owned(),
        advertise: "127.0.0.1".parse().unwrap(),
        dir: dir.into(),
    }
}

/// Containers in memory. Clones share them, as two agents share an engine.
#[derive(Clone)]
pub(crate) struct FakeRuntime {
    shared: Arc<Mutex<Shared>>,
    events: broadcast::Sender<RuntimeEvent>,
    /// A pull takes one of these and keeps it.
    pulls: Arc<Semaphore>,
}

#[derive(Default)]
struct Shared {
    containers: BTreeMap<TaskId, Container>,
    calls: Vec<String>,
    failures: BTreeMap<&'static str, VecDeque<RuntimeError>>,
    health: Option<Health>,
}

impl FakeRuntime {
    pub(crate) fn new() -> Self {
        Self::with_pulls(Semaphore::MAX_PERMITS)
    }

    /// A runtime in which this many pulls come to an end.
    pub(crate) fn with_pulls(pulls: usize) -> Self {
        Self {
            shared: Arc::default(),
            events: broadcast::channel(64).0,
            pulls: Arc::new(Semaphore::new(pulls)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap()
    }

    /// Makes the next calls of a step fail.
    pub(crate) fn fail(&self, step: &'static str, error: RuntimeError, times: usize) {
        let failures = std::iter::repeat_n(error, times);
        self.lock()
            .failures
            .entry(step)
            .or_default()
            .extend(failures);
    }

    /// Health of containers that are started from now on.
    pub(crate) fn start_with(&self, health: Health) {
        self.lock().health = Some(health);
    }

    /// Steps that were carried out, without looks.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.lock().calls.clone()
    }

    pub(crate) fn running(&self) -> Vec<TaskId> {
        let shared = self.lock();
        shared
            .containers
            .values()
            .filter(|container| container.is_running())
            .map(|container| container.task.clone())
            .collect()
    }

    pub(crate) fn all(&self) -> Vec<TaskId> {
        self.lock().containers.keys().cloned().collect()
    }

    /// Changes a container's state from outside and tells of it.
    pub(crate) fn change(&self, task: &TaskId, state: ContainerState) {
        self.lock().containers.get_mut(task).unwrap().state = state;
        self.tell(task);
    }

    /// Tells that a container has ended, true or not.
    pub(crate) fn tell_end(&self, task: &TaskId) {
        let _unheard = self.events.send(RuntimeEvent::Ended(task.clone()));
    }

    /// Takes a container away and tells of it.
    pub(crate) fn take(&self, task: &TaskId) {
        self.lock().containers.remove(task).unwrap();
        self.tell(task);
    }

    /// Puts a running container there, as an earlier agent would have.
    pub(crate) fn put(&self, task: &TaskId, ports: &[TaskPort]) {
        let container = container(task, ports, ContainerState::Running(Health::Unchecked));
        self.lock().containers.insert(task.clone(), container);
    }

    fn tell(&self, task: &TaskId) {
        // Without a worker nobody listens.
        let _unheard = self.events.send(RuntimeEvent::Changed(task.clone()));
    }

    fn step(&self, name: &'static str, task: &TaskId) -> Result<(), RuntimeError> {
        let mut shared = self.lock();
        if !matches!(name, "inspect" | "list" | "describe" | "alive") {
            let digits = task.as_str().trim_start_matches('0');
            shared.calls.push(format!("{name} {digits}"));
        }
        match shared.failures.get_mut(name).and_then(VecDeque::pop_front) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

fn container(task: &TaskId, ports: &[TaskPort], state: ContainerState) -> Container {
    Container {
        task: task.clone(),
        id: format!("container-{task}"),
        pid: 42,
        address: Some("172.17.0.2".parse().unwrap()),
        ports: ports.to_vec(),
        state,
        failing: None,
    }
}

impl Runtime for FakeRuntime {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Docker
    }

    fn describe(&self) -> BoxFuture<'_, Result<Engine, RuntimeError>> {
        let engine = Engine {
            version: "1.0".to_owned(),
            labels: BTreeMap::new(),
            resources: Resources::default(),
            arch: "amd64".to_owned(),
            storage: None,
        };
        async move {
            self.step("describe", &TaskId::from_random(0))?;
            Ok(engine)
        }
        .boxed()
    }

    fn alive(&self) -> BoxFuture<'_, Result<(), RuntimeError>> {
        async move { self.step("alive", &TaskId::from_random(0)) }.boxed()
    }

    fn prepare<'a>(
        &'a self,
        _scope: &'a Scope,
        task: &'a Task,
    ) -> BoxFuture<'a, Result<(), RuntimeError>> {
        async move {
            self.step("prepare", &task.id)?;
            self.pulls.acquire().await.unwrap().forget();
            Ok(())
        }
        .boxed()
    }

    fn start<'a>(
        &'a self,
        _scope: &'a Scope,
        task: &'a Task,
        ports: &'a [TaskPort],
    ) -> BoxFuture<'a, Result<Container, RuntimeError>> {
        async move {
            self.step("start", &task.id)?;
            let mut shared = self.lock();
            let health = shared.health.unwrap_or(Health::Unchecked);
            let made = container(&task.id, ports, ContainerState::Running(health));
            Ok(shared
                .containers
                .entry(task.id.clone())
                .or_insert(made)
                .clone())
        }
        .boxed()
    }

    fn inspect<'a>(
        &'a self,
        _scope: &'a Scope,
        task: &'a TaskId,
    ) -> BoxFuture<'a, Result<Option<Container>, RuntimeError>> {
        async move {
            self.step("inspect", task)?;
            Ok(self.lock().containers.get(task).cloned())
        }
        .boxed()
    }

    fn list<'a>(&'a self, scope: &'a Scope) -> BoxFuture<'a, Result<Vec<Container>, RuntimeError>> {
        async move {
            self.step("list", &TaskId::from_random(0))?;
            assert_eq!(scope.node, NodeId::from_random(1));
            Ok(self.lock().containers.values().cloned().collect())
        }
        .boxed()
    }

    fn events(&self, _scope: &Scope) -> BoxStream<'static, RuntimeEvent> {
        let events = BroadcastStream::new(self.events.subscribe())
            .map(|event| event.unwrap_or(RuntimeEvent::Relist));
        stream::once(async { RuntimeEvent::Relist })
            .chain(events)
            .boxed()
    }

    fn stop<'a>(
        &'a self,
        _scope: &'a Scope,
        task: &'a TaskId,
        _grace: Duration,
    ) -> BoxFuture<'a, Result<(), RuntimeError>> {
        async move {
            self.step("stop", task)?;
            if let Some(container) = self.lock().containers.get_mut(task) {
                container.state = ContainerState::Exited {
                    code: 143,
                    reason: None,
                };
            }
            Ok(())
        }
        .boxed()
    }

    fn remove<'a>(
        &'a self,
        _scope: &'a Scope,
        task: &'a TaskId,
    ) -> BoxFuture<'a, Result<(), RuntimeError>> {
        async move {
            self.step("remove", task)?;
            self.lock().containers.remove(task);
            Ok(())
        }
        .boxed()
    }

    /// One line a microsecond on standard output, from 1 on; ten of them, or without an end
    /// where they are followed.
    fn logs(
        &self,
        _scope: &Scope,
        task: &TaskId,
        query: LogQuery,
    ) -> BoxStream<'static, Result<LogLine, RuntimeError>> {
        if let Err(error) = self.step("logs", task) {
            return stream::iter([Err(error)]).boxed();
        }
        let last = if query.follow { u64::MAX } else { 10 };
        stream::iter(1..=last)
            .filter(move |at| std::future::ready(query.wants(at * 1000)))
            .map(|at| {
                Ok(LogLine {
                    at_ns: at * 1000,
                    stream: LogStream::Stdout,
                    data: format!("line {at}\n").into(),
                    details: String::new(),
                })
            })
            .boxed()
    }
}
