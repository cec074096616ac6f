//! Checks that this node runs of its own tasks, from outside the container.
//!
//! Each task with a check has an asynchronous task of its own that asks, counts with
//! [`swarmlet_core::check`], and tells the worker when the health changes, and why a task is still
//! not healthy.

mod probe;

use std::net::SocketAddr;
use std::time::Duration;

use swarmlet_core::check::{Health, Tally};
use swarmlet_core::model::{Check, ProxyProtocol, TaskId};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::session::random;

/// A task's health has changed, or what keeps it from becoming healthy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    /// The task.
    pub(crate) task: TaskId,
    /// Its container at that time: a report on an earlier one means nothing.
    pub(crate) container: String,
    /// What it is now.
    pub(crate) health: Health,
    /// Why, where it is unhealthy or not yet healthy.
    pub(crate) reason: Option<String>,
}

/// What is to be checked.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) task: TaskId,
    pub(crate) container: String,
    pub(crate) address: SocketAddr,
    pub(crate) check: Check,
    /// The PROXY header that the port expects.
    pub(crate) proxy_protocol: Option<ProxyProtocol>,
    /// What is known of it so far.
    pub(crate) health: Health,
}

/// How long a task is starting before it is told what its check fails by, and how often another
/// reason is told at most: hardly any program listens at once, and each telling is an entry in the
/// log of the managers.
const PATIENCE: Duration = Duration::from_secs(2);

/// A check that goes on until this is dropped.
#[derive(Debug)]
pub(crate) struct Checker {
    /// The container that is checked.
    pub(crate) container: String,
    ends: AbortHandle,
}

impl Checker {
    /// Checks `subject` until the checker is dropped or nobody reads the reports any more.
    pub(crate) fn spawn(subject: Subject, reports: mpsc::Sender<Report>) -> Self {
        Self {
            container: subject.container.clone(),
            ends: tokio::spawn(run(subject, reports)).abort_handle(),
        }
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        self.ends.abort();
    }
}

async fn run(subject: Subject, reports: mpsc::Sender<Report>) {
    let started = Instant::now();
    let mut tally = Tally::new(subject.health);
    let mut told: (Instant, Option<String>) = (started, None);
    loop {
        let asked = Instant::now();
        let result = probe::ask(subject.address, &subject.check, subject.proxy_protocol).await;
        if let Err(reason) = &result {
            tracing::debug!(task = %subject.task, reason, "a check failed");
        }
        let changed = tally.record(&subject.check, result.is_ok(), started.elapsed());
        let waits = tally.health() == Health::Starting && told.0.elapsed() >= PATIENCE;
        let reason = result.err();
        if changed || waits && reason.is_some() && reason != told.1 {
            told = (Instant::now(), reason.clone());
            let report = Report {
                task: subject.task.clone(),
                container: subject.container.clone(),
                health: tally.health(),
                reason,
            };
            if reports.send(report).await.is_err() {
                return;
            }
        }
        tokio::time::sleep_until(asked + jittered(tally.pause(&subject.check), random())).await;
    }
}

/// A pause shortened by up to a tenth: tasks that started together are not to be asked
/// together for ever, and a failure is still noticed in time.
fn jittered(pause: Duration, seed: u64) -> Duration {
    let nanoseconds = u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX);
    pause.saturating_sub(Duration::from_nanos(seed % (nanoseconds / 10).max(1)))
}
