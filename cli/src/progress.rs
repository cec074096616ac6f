//! Shows how the tasks of a service come up, until all of them run and have stayed so.
//!
//! What is shown is a pure function of the service and its tasks; a terminal gets bars, a file
//! or pipe gets a line for each change.

mod display;
mod tally;

use std::time::Duration;

use anyhow::{Result, bail};
use swarmlet_core::model::{
    NodeId, Service, ServiceId, Task, TaskId, Timestamp, UpdateState, UpdateStatus, Version,
};
use swarmlet_proto::v1;
use tokio::time::Instant;

use crate::client::{Client, ClientError, read, status_error};
use crate::commands::logs::show_last;
use display::Display;
use tally::Progress;

/// How long all tasks must have run before the service counts as converged. Docker waits 5 s;
/// a task that ends within a second shows here, and one that ends later would as well end
/// after those five.
const STABLE: Duration = Duration::from_secs(1);

/// How long a broken stream is tried again: elections take 2 s, a restart of the daemon 10 s.
const RECONNECT: Duration = Duration::from_secs(30);

/// Where progress goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// To stderr.
    Progress,
    /// Nowhere; it is only waited for.
    Nothing,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// That there are as many tasks as there should be, of whichever version.
    Tasks,
    /// That an update is over.
    Update,
    /// That a rollback is over.
    Rollback,
}

/// The change whose effect is waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Since {
    /// What was read before this version says nothing.
    pub(crate) version: Version,
    /// When the service's latest update before the change was begun: how that one ended says
    /// nothing either.
    pub(crate) earlier_update: Option<Timestamp>,
}

impl From<Version> for Since {
    fn from(version: Version) -> Self {
        Self {
            version,
            earlier_update: None,
        }
    }
}

/// How following a service ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All tasks run.
    Converged,
    /// The user had seen enough (Ctrl-C); the cluster goes on.
    Interrupted,
}

/// How an update ended that did not come to its end, in Docker's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("service {how}: {reason}")]
struct UpdateFailed {
    how: &'static str,
    reason: String,
    /// The task that failed last.
    task: Option<TaskId>,
}

fn failed(status: &UpdateStatus, wait: Wait) -> Option<UpdateFailed> {
    let how = match (status.state, wait) {
        (_, Wait::Tasks) => return None,
        (UpdateState::Paused, _) => "update paused",
        (UpdateState::RollbackPaused, _) => "rollback paused",
        (UpdateState::RollbackCompleted, Wait::Update) => "rolled back",
        _ => return None,
    };
    Some(UpdateFailed {
        how,
        reason: status.message.clone(),
        task: status.failed_task.clone(),
    })
}

/// Shows a service until it has converged or the user presses Ctrl-C. Where an update fails, the
/// last lines of the task that failed are shown as well.
///
/// # Errors
/// The service was removed, or the cluster cannot be asked.
pub(crate) async fn follow(
    client: &Client,
    service: &ServiceId,
    since: impl Into<Since>,
    show: Show,
    wait: Wait,
) -> Result<Outcome> {
    let mut display = Display::new(show);
    let change = (since.into(), wait);
    tokio::select! {
        result = watch(client, service, change, &mut display) => {
            display.end();
            if let Err(error) = &result
                && let Some(UpdateFailed { task: Some(task), .. }) = error.downcast_ref()
            {
                show_last(client, task).await;
            }
            result
        }
        signal = tokio::signal::ctrl_c() => {
            signal?;
            display.end();
            eprintln!("Operation continuing in background.");
            eprintln!("Use `swarmlet service ps {service}` to check progress.");
            Ok(Outcome::Interrupted)
        }
    }
}

async fn watch(
    client: &Client,
    service: &ServiceId,
    change: (Since, Wait),
    display: &mut Display,
) -> Result<Outcome> {
    let mut broken_since: Option<Instant> = None;
    let mut complete_since: Option<Instant> = None;
    loop {
        let error = match stream(client, service, change, display, &mut complete_since).await {
            Ok(()) => return Ok(Outcome::Converged),
            Err(Watch::Ended(error)) => return Err(error),
            Err(Watch::Broken { error, progressed }) => {
                if progressed {
                    broken_since = None;
                }
                error
            }
        };
        // The tasks may have failed in the meantime.
        complete_since = None;
        if broken_since.get_or_insert_with(Instant::now).elapsed() > RECONNECT {
            bail!("cannot follow the service any more: {error}");
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// Why watching stopped.
enum Watch {
    /// For good.
    Ended(anyhow::Error),
    /// For now: managers change their leader, daemons restart.
    Broken {
        error: ClientError,
        progressed: bool,
    },
}

async fn stream(
    client: &Client,
    service: &ServiceId,
    (since, wait): (Since, Wait),
    display: &mut Display,
    complete_since: &mut Option<Instant>,
) -> Result<(), Watch> {
    let request = v1::WatchServiceRequest {
        service_id: service.to_string(),
    };
    let broken = |error| Watch::Broken {
        error,
        progressed: false,
    };
    let opened = client.control().watch_service(request).await;
    let mut stream = opened
        .map_err(|status| broken(status_error(&status)))?
        .into_inner();
    loop {
        let stable_at = complete_since.map(|since| since + STABLE);
        let message = tokio::select! {
            message = stream.message() => message,
            () = sleep_until(stable_at) => {
                display.converged();
                return Ok(());
            }
        };
        let message = message
            .and_then(|message| {
                message.ok_or_else(|| tonic::Status::unavailable("the stream ended"))
            })
            .map_err(|status| Watch::Broken {
                error: status_error(&status),
                progressed: true,
            })?;
        if message.version < since.version.0 {
            continue;
        }
        let progress = progress(message, since, wait).map_err(Watch::Ended)?;
        if progress.is_done() {
            display.update(&progress);
            display.converged();
            return Ok(());
        }
        match (progress.is_complete(), *complete_since) {
            (true, None) => *complete_since = Some(Instant::now()),
            (false, _) => *complete_since = None,
            (true, Some(_)) => {}
        }
        display.update(&progress);
    }
}

fn progress(message: v1::WatchServiceResponse, since: Since, wait: Wait) -> Result<Progress> {
    let Some(service) = message.service else {
        bail!("the service was removed in the meantime");
    };
    let service: Service = read(service)?;
    if service.removing {
        bail!(
            "the service {} was removed in the meantime",
            service.spec.name
        );
    }
    let update = service.update_status.as_ref();
    let update = update.filter(|status| Some(status.started_at) != since.earlier_update);
    if let Some(failed) = update.and_then(|status| failed(status, wait)) {
        return Err(failed.into());
    }
    let tasks: Vec<Task> = message
        .tasks
        .into_iter()
        .map(read)
        .collect::<Result<_, _>>()?;
    let down = message.down_nodes.iter().map(|id| NodeId::parse(id));
    let down = down.collect::<Result<_, _>>()?;
    let progress = Progress::of(&service, &tasks, &down, wait);
    match progress.given_up() {
        Some(reason) => bail!(reason),
        None => Ok(progress),
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
