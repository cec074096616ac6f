//! Tasks as plain processes, for machines without an engine, the demo and large tests.
//!
//! Each task has a folder and a shim, a small process of its own in a session of its own,
//! which starts the command and writes down how it ends. So tasks outlive the agent, and what
//! is known of them is on disk: an agent that comes back finds all of it there.
//!
//! | file | what |
//! |---|---|
//! | `spec.json` | what the shim is to start |
//! | `lock` | held by the shim for as long as it lives |
//! | `started.json` | the command's process id and start time |
//! | `exit.json` | how it ended; its presence is the end |
//! | `log.1`, `log.2`, … | what it wrote, the oldest removed (`records`) |
//!
//! A process id alone names nothing, because the kernel uses it again: every signal goes to a
//! process whose start time has been compared.

mod cgroup;
mod command;
mod files;
mod log_reader;
mod log_writer;
mod records;
pub mod shim;
mod stat;
mod watch;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{self, BoxStream, StreamExt};
use rustix::process::Signal;
use swarmlet_core::model::{RuntimeKind, Task, TaskId, TaskPort};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use self::files::{Ended, Started, TaskDir};
use self::watch::Watcher;
use super::log::{LogLine, LogQuery};
use super::{
    Container, ContainerState, Engine, Health, Runtime, RuntimeError, RuntimeEvent, Scope, machine,
};
use crate::store::private_dir;

/// How long a shim may take to start its command. It only opens files and forks.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// How long the kernel may take to end what was killed, before it is tried again later.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// Runs tasks as processes.
pub struct ProcessRuntime {
    program: PathBuf,
    watcher: Watcher,
}

impl ProcessRuntime {
    /// A runtime whose shims are `program shim DIR`, and whose built-in image `whoami` is
    /// `program whoami`.
    #[must_use]
    pub fn new(program: PathBuf) -> Self {
        Self {
            program,
            watcher: Watcher::default(),
        }
    }

    async fn start_task(
        &self,
        scope: &Scope,
        task: &Task,
        ports: &[TaskPort],
    ) -> Result<Container, RuntimeError> {
        let dir = TaskDir::of(scope, &task.id);
        if let Some(found) = self.look(&dir, &task.id)? {
            return Ok(found);
        }
        let mut spec = command::spec(scope, task, ports, &self.program)?;
        spec.groups = limit(task);
        private_dir(dir.path()).map_err(|error| failed("make", dir.path(), &error))?;
        files::write(&dir.spec(), &spec).map_err(|error| failed("write", &dir.spec(), &error))?;
        self.run_shim(&dir).await?;
        match self.look(&dir, &task.id)? {
            Some(container) => Ok(container),
            None => Err(RuntimeError::Refused(
                "the shim ended before the command was started".to_owned(),
            )),
        }
    }

    /// Starts the shim and waits until it has written down what came of it.
    async fn run_shim(&self, dir: &TaskDir) -> Result<(), RuntimeError> {
        let mut shim = tokio::process::Command::new(&self.program)
            .arg("shim")
            .arg(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| failed("start", &self.program, &error))?;
        let mut ready = shim.stdout.take();
        let answered = timeout(START_DEADLINE, async {
            match &mut ready {
                // The end of the file says that it ended, which its files will explain.
                Some(pipe) => pipe.read_u8().await.is_ok(),
                None => false,
            }
        })
        .await;
        // Reaps the shim; if this agent ends first, init does.
        tokio::spawn(async move { shim.wait().await });
        match answered {
            Ok(true) => Ok(()),
            Ok(false) => match files::read::<Ended>(&dir.exit()) {
                Ok(Some(Ended {
                    refusal: Some(reason),
                    ..
                })) => Err(RuntimeError::Rejected(reason)),
                Ok(Some(_)) => Ok(()),
                _ => Err(RuntimeError::Refused("the shim could not start".to_owned())),
            },
            Err(_) => Err(RuntimeError::Unavailable(format!(
                "the shim did not start its command within {} s",
                START_DEADLINE.as_secs()
            ))),
        }
    }

    /// The task's process as its files and the kernel tell it.
    fn look(&self, dir: &TaskDir, task: &TaskId) -> Result<Option<Container>, RuntimeError> {
        let unreadable = |error: io::Error| failed("read", dir.path(), &error);
        let Some(spec) = files::read::<files::Spec>(&dir.spec()).map_err(unreadable)? else {
            return Ok(None);
        };
        let shim_lives = dir.is_locked().map_err(unreadable)?;
        let started = files::read::<Started>(&dir.started()).map_err(unreadable)?;
        // Read after the lock: a shim writes how it ended before it lets go of the lock.
        let ended = files::read::<Ended>(&dir.exit()).map_err(unreadable)?;
        let (pid, state) = match (ended, started, shim_lives) {
            (Some(ended), _, _) => (0, ended.into()),
            (None, Some(started), true) => {
                self.watcher.watch(task, dir, started.shim);
                (started.pid, ContainerState::Running(Health::Unchecked))
            }
            (None, Some(started), false) => (0, abandoned(dir, &started)),
            // A shim that is about to start its command, or one that never got there.
            (None, None, _) => return Ok(None),
        };
        Ok(Some(Container {
            task: task.clone(),
            id: task.to_string(),
            pid,
            address: None,
            ports: spec.ports.iter().map(TaskPort::from).collect(),
            state,
            failing: None,
        }))
    }

    async fn stop_task(&self, dir: &TaskDir, grace: Duration) -> Result<(), RuntimeError> {
        let unreadable = |error: io::Error| failed("read", dir.path(), &error);
        let Some(started) = files::read::<Started>(&dir.started()).map_err(unreadable)? else {
            return Ok(());
        };
        let signal = match files::read::<files::Spec>(&dir.spec()).map_err(unreadable)? {
            Some(spec) => command::signal(spec.stop_signal.as_deref())?,
            None => Signal::TERM,
        };
        stat::signal(started.pid, started.start_time, signal);
        if watch::ended(dir, started.shim, grace).await {
            return Ok(());
        }
        stat::kill_group(started.pid, started.start_time);
        if watch::ended(dir, started.shim, KILL_DEADLINE).await {
            return Ok(());
        }
        Err(RuntimeError::Unavailable(format!(
            "process {} does not end although it was killed",
            started.pid
        )))
    }
}

impl Runtime for ProcessRuntime {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Process
    }

    fn describe(&self) -> BoxFuture<'_, Result<Engine, RuntimeError>> {
        let (resources, arch) = machine();
        let engine = Engine {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            labels: BTreeMap::new(),
            resources,
            arch,
            storage: None,
        };
        async move { Ok(engine) }.boxed()
    }

    fn prepare<'a>(
        &'a self,
        scope: &'a Scope,
        task: &'a Task,
    ) -> BoxFuture<'a, Result<(), RuntimeError>> {
        async move { command::spec(scope, task, &[], &self.program).map(|_| ()) }.boxed()
    }

    fn start<'a>(
        &'a self,
        scope: &'a Scope,
        task: &'a Task,
        ports: &'a [TaskPort],
    ) -> BoxFuture<'a, Result<Container, RuntimeError>> {
        self.start_task(scope, task, ports).boxed()
    }

    fn inspect<'a>(
        &'a self,
        scope: &'a Scope,
        task: &'a TaskId,
    ) -> BoxFuture<'a, Result<Option<Container>, RuntimeError>> {
        async move { self.look(&TaskDir::of(scope, task), task) }.boxed()
    }

    fn list<'a>(&'a self, scope: &'a Scope) -> BoxFuture<'a, Result<Vec<Container>, RuntimeError>> {
        async move {
            let mut containers = Vec::new();
            for task in task_ids(&scope.dir)? {
                containers.extend(self.look(&TaskDir::of(scope, &task), &task)?);
            }
            Ok(containers)
        }
        .boxed()
    }

    fn events(&self, _scope: &Scope) -> BoxStream<'static, RuntimeEvent> {
        stream::once(async { RuntimeEvent::Relist })
            .chain(self.watcher.events())
            .boxed()
    }

    fn stop<'a>(
        &'a self,
        scope: &'a Scope,
        task: &'a TaskId,
        grace: Duration,
    ) -> BoxFuture<'a, Result<(), RuntimeError>> {
        async move { self.stop_task(&TaskDir::of(scope, task), grace).await }.boxed()
    }

    fn remove<'a>(
        &'a self,
        scope: &'a Scope,
        task: &'a TaskId,
    ) -> BoxFuture<'a, Result<(), RuntimeError>> {
        async move {
            let dir = TaskDir::of(scope, task);
            self.stop_task(&dir, Duration::ZERO).await?;
            if let Ok(Some(spec)) = files::read::<files::Spec>(&dir.spec()) {
                // Its shim has done this already, unless it was killed.
                cgroup::remove(&spec.groups);
            }
            match fs::remove_dir_all(dir.path()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(failed("remove", dir.path(), &error))
                }
                _ => Ok(()),
            }
        }
        .boxed()
    }

    fn logs(
        &self,
        scope: &Scope,
        task: &TaskId,
        query: LogQuery,
    ) -> BoxStream<'static, Result<LogLine, RuntimeError>> {
        log_reader::stream(TaskDir::of(scope, task), query)
    }
}

/// The shim was killed: nobody is left to learn how its command ends, so it is ended here.
fn abandoned(dir: &TaskDir, started: &Started) -> ContainerState {
    stat::kill_group(started.pid, started.start_time);
    let ended = Ended {
        code: 128 + Signal::KILL.as_raw(),
        reason: Some("the process that watched over the task was killed".to_owned()),
        refusal: None,
    };
    if let Err(error) = files::write(&dir.exit(), &ended) {
        tracing::warn!(path = %dir.path().display(), %error, "the end of a task could not be written down");
    }
    ended.into()
}

fn task_ids(dir: &Path) -> Result<Vec<TaskId>, RuntimeError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("read", dir, &error)),
    };
    Ok(entries
        .filter_map(|entry| TaskId::parse(entry.ok()?.file_name().to_str()?).ok())
        .collect())
}

fn failed(what: &str, path: &Path, error: &io::Error) -> RuntimeError {
    RuntimeError::Refused(format!("cannot {what} {}: {error}", path.display()))
}

/// Makes the control groups that limit a task. Where that is impossible it runs without limits:
/// refused, a specification that works on engines could never be tried without one.
fn limit(task: &Task) -> Vec<PathBuf> {
    match cgroup::make(&task.id, &task.spec.resources.limits) {
        Ok(groups) => groups,
        Err(error) => {
            tracing::warn!(task = %task.id, name = task.name(), %error, "the limits of the task are not enforced");
            Vec::new()
        }
    }
}
