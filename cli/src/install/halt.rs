//! Brings a node to rest: its daemon, its balancer and its tasks end, its state stays.
//!
//! Stopping the daemon is not enough where the program is about to be removed: what outlives it
//! on purpose would stay for ever. The node stays a member of its swarm, which puts its tasks
//! elsewhere, and comes back if swarmlet is installed again.

use std::fmt;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::stream::{self, StreamExt};
use rustix::process::{Pid, Signal, kill_process};
use swarmlet_agent::runtime::{self, Choice, Runtime, Scope};
use swarmlet_core::model::TaskId;
use swarmlet_lb::control::ClientError;
use swarmlet_proto::identity::Identity;
use tokio::time::{Instant, sleep, timeout};

use crate::daemon::balancer::link::Link;
use crate::daemon::store::{Layout, NodeRecord, StoredRuntime};

/// Time for a daemon to end: it stops its servers, which takes it seconds at most.
const DAEMON_DEADLINE: Duration = Duration::from_secs(20);

/// Pause between two looks.
const POLL: Duration = Duration::from_millis(50);

/// Time for connections through the balancer to end. It is short because clients see nothing
/// worse than when a machine is switched off; who wants more drains the node first.
const BALANCER_GRACE: Duration = Duration::from_secs(3);

/// Time between a task's stop signal and its kill, as Docker's own. The service's is known to
/// the managers, and they may be away.
const TASK_GRACE: Duration = Duration::from_secs(10);

/// Time for all tasks: whoever removes a package waits for it.
const TASKS_DEADLINE: Duration = Duration::from_secs(90);

/// Tasks that are stopped at a time; an engine has better to do than hundreds at once.
const TASKS_AT_ONCE: usize = 16;

/// What was ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Halted {
    daemon: Option<u32>,
    balancer: Option<u32>,
    tasks: usize,
}

impl fmt::Display for Halted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(pid) = self.daemon {
            writeln!(f, "Stopped the daemon (pid {pid}).")?;
        }
        if let Some(pid) = self.balancer {
            writeln!(f, "Stopped the balancer (pid {pid}).")?;
        }
        match self.tasks {
            0 => Ok(()),
            1 => writeln!(f, "Stopped and removed 1 task."),
            tasks => writeln!(f, "Stopped and removed {tasks} tasks."),
        }
    }
}

/// Ends the daemon of a data directory, then its balancer and its tasks.
///
/// # Errors
/// Something does not end; the rest has ended all the same.
pub(super) async fn halt(layout: &Layout) -> Result<Halted> {
    if !layout.root().is_dir() {
        return Ok(Halted::default());
    }
    let daemon = stop_daemon(layout).await?;
    let _nobody_starts_meanwhile = layout.lock()?;
    let balancer = stop_balancer(layout).await;
    let tasks = match layout.load()? {
        Some(record) => stop_tasks(layout, &record).await?,
        None => 0,
    };
    Ok(Halted {
        daemon,
        balancer: balancer?,
        tasks,
    })
}

/// Ends the daemon that has a data directory, and returns its process id; tasks and balancer
/// go on.
///
/// # Errors
/// It does not end, or does not say who it is.
pub(super) async fn stop_daemon(layout: &Layout) -> Result<Option<u32>> {
    if !layout.root().is_dir() || layout.lock().is_ok() {
        return Ok(None);
    }
    let path = layout.daemon_pid();
    let text = fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}, the daemon's process id", path.display()))?;
    let process = text.trim().parse().ok().and_then(Pid::from_raw);
    let process =
        process.with_context(|| format!("{} holds no process id: {text:?}", path.display()))?;
    // Somebody holds the directory's lock, and writes its number into this file first of all.
    kill_process(process, Signal::TERM).context("cannot stop the daemon")?;
    let deadline = Instant::now() + DAEMON_DEADLINE;
    while layout.lock().is_err() {
        if Instant::now() > deadline {
            bail!(
                "the daemon (pid {}) does not end within {} s",
                process.as_raw_nonzero(),
                DAEMON_DEADLINE.as_secs()
            );
        }
        sleep(POLL).await;
    }
    Ok(u32::try_from(process.as_raw_nonzero().get()).ok())
}

/// Ends the balancer, and those before it that finish their connections. Returns the process
/// id of the first.
async fn stop_balancer(layout: &Layout) -> Result<Option<u32>> {
    let mut first = None;
    let mut sockets = vec![layout.lb_socket()];
    sockets.extend(layout.lb_sockets_aside());
    for socket in sockets {
        let link = match Link::connect(&socket).await {
            Err(ClientError::Connect { .. }) => continue,
            connected => connected.context("cannot talk to the balancer")?,
        };
        first = first.or(Some(link.pid()));
        link.stop(BALANCER_GRACE).await;
    }
    Ok(first)
}

async fn stop_tasks(layout: &Layout, record: &NodeRecord) -> Result<usize> {
    let identity = Identity::load(&layout.certificates())?
        .context("the node's certificate is missing, so its tasks cannot be told from others")?;
    let choice = match record.runtime {
        StoredRuntime::Docker => Choice::Docker,
        StoredRuntime::Process => Choice::Process,
    };
    let runtime = runtime::detect(choice, record.settings.docker_host.as_deref()).await?;
    let scope = Scope {
        cluster: identity.cluster.clone(),
        node: identity.node.clone(),
        hostname: record.settings.hostname.clone(),
        advertise: record.advertise.ip(),
        dir: layout.agent().join("tasks"),
    };
    let stopped = timeout(TASKS_DEADLINE, stop_all(runtime, scope)).await;
    stopped.unwrap_or_else(|_| {
        bail!(
            "not all tasks have ended within {} s",
            TASKS_DEADLINE.as_secs()
        )
    })
}

async fn stop_all(runtime: Arc<dyn Runtime>, scope: Scope) -> Result<usize> {
    let found = runtime
        .list(&scope)
        .await
        .context("cannot list the node's tasks")?;
    let stops: Vec<_> = found
        .iter()
        .map(|container| stop_task(runtime.as_ref(), &scope, &container.task))
        .collect();
    // One that does not end must not keep the others alive.
    let results: Vec<Result<()>> = stream::iter(stops)
        .buffer_unordered(TASKS_AT_ONCE)
        .collect()
        .await;
    let all = results.len();
    results.into_iter().collect::<Result<()>>()?;
    Ok(all)
}

async fn stop_task(runtime: &dyn Runtime, scope: &Scope, task: &TaskId) -> Result<()> {
    let stopped = runtime.stop(scope, task, TASK_GRACE).await;
    // Removing one that runs kills it.
    runtime
        .remove(scope, task)
        .await
        .with_context(|| format!("cannot remove task {task}"))?;
    stopped.with_context(|| format!("task {task} had to be killed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn where_nothing_is_nothing_is_halted() {
        let dir = tempfile::tempdir().unwrap();
        let nowhere = Layout::new(dir.path().join("none"));
        assert_eq!(halt(&nowhere).await.unwrap(), Halted::default());
        let empty = Layout::new(dir.path().to_owned());
        assert_eq!(halt(&empty).await.unwrap(), Halted::default());
        assert_eq!(Halted::default().to_string(), "");
    }

    #[tokio::test]
    async fn a_daemon_that_cannot_be_told_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().to_owned());
        let _lock = layout.lock().unwrap();
        for (text, expected) in [(None, "cannot read"), (Some("x"), "holds no process id")] {
            if let Some(text) = text {
                fs::write(layout.daemon_pid(), text).unwrap();
            }
            let error = stop_daemon(&layout).await.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
