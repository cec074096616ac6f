//! A connection to a balancer's process.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use swarmlet_lb::control::{Client, ClientError, Events};
use swarmlet_lb::status::{Status, Summary};
use swarmlet_lb::table::Table;
use swarmlet_lb::{Event, Settings};

use super::process;
use crate::daemon::store::Layout;

/// Time for a process that was just started to answer; it does within milliseconds, but for
/// a machine that is busy.
const START_DEADLINE: Duration = Duration::from_secs(5);

/// Pause between two attempts to reach it.
const START_POLL: Duration = Duration::from_millis(5);

/// What a process is started with.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    pub(crate) layout: Layout,
    /// Addresses on which published ports answer.
    pub(crate) ingress: Vec<IpAddr>,
    /// Limits and the access log; one that is adopted gets them, too.
    pub(crate) settings: Settings,
    /// systemd is to run it, in a unit of its own.
    pub(crate) in_unit: bool,
}

/// A connection, and a second one for what the balancer tells by itself.
pub(crate) struct Link {
    client: Client,
    events: Events,
    control: PathBuf,
    /// What it said of itself when it was connected to.
    first: Status,
    leaving: bool,
}

impl Link {
    /// Connects to the process whose control socket this is.
    pub(crate) async fn connect(control: &Path) -> Result<Self, ClientError> {
        let mut client = Client::connect(control).await?;
        let events = client.events().await?;
        let first = client.status().await?;
        Ok(Self {
            client,
            events,
            control: control.to_owned(),
            leaving: first.shutting_down,
            first,
        })
    }

    /// Starts a process, connects to it and puts its settings in force.
    pub(super) async fn start(launch: &Launch) -> Result<Self> {
        let mut link = Self::spawn(launch).await?;
        if let Err(error) = link.configure(&launch.settings).await {
            link.kill();
            return Err(error).context("the balancer does not take its settings");
        }
        Ok(link)
    }

    async fn spawn(launch: &Launch) -> Result<Self> {
        let layout = &launch.layout;
        let mut process = process::start(launch).await?;
        let deadline = tokio::time::Instant::now() + START_DEADLINE;
        loop {
            match Self::connect(&layout.lb_socket()).await {
                Ok(link) => {
                    tracing::info!(pid = link.pid(), "started the balancer");
                    process.release();
                    return Ok(link);
                }
                Err(error) if tokio::time::Instant::now() > deadline => {
                    process
                        .kill()
                        .await
                        .context("cannot end a balancer that does not answer")?;
                    return Err(error).context("the balancer does not answer");
                }
                Err(_) => {}
            }
            if let Some(how) = process.ended().await? {
                anyhow::bail!(
                    "the balancer ended at once ({how}): see {}",
                    layout.lb_log().display()
                );
            }
            tokio::time::sleep(START_POLL).await;
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.first.pid
    }

    /// Where its control socket is now.
    pub(super) fn control(&self) -> &Path {
        &self.control
    }

    /// What it said of itself when it was connected to.
    pub(super) fn first(&self) -> &Status {
        &self.first
    }

    /// It has told that it listens no more.
    pub(super) fn note_leaving(&mut self) {
        self.leaving = true;
    }

    /// Whether it listens no more.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Waits until the balancer has something to tell.
    pub(super) async fn event(&mut self) -> Result<Event, ClientError> {
        self.events.next().await
    }

    pub(super) async fn set_table(&mut self, table: &Arc<Table>) -> Result<(), ClientError> {
        self.client.set_table(table).await.map(|_| ())
    }

    /// Puts settings in force for what happens from now on.
    pub(super) async fn configure(&mut self, settings: &Settings) -> Result<(), ClientError> {
        self.client.configure(settings).await
    }

    pub(super) async fn status(&mut self) -> Result<Status, ClientError> {
        self.client.status().await
    }

    pub(super) async fn summary(&mut self) -> Result<Summary, ClientError> {
        self.client.summary().await
    }

    /// Has it make room for a successor at the control socket.
    pub(super) async fn step_aside(&mut self) -> Result<(), ClientError> {
        self.control = self.client.step_aside().await?;
        Ok(())
    }

    /// Has it end with its connections, or after `patience`.
    pub(super) async fn retire(&mut self, patience: Duration) -> Result<(), ClientError> {
        self.client.retire(patience).await
    }

    /// Makes room for another process, where this one does not answer but still holds the
    /// ports.
    pub(super) fn give_up(&self, error: &ClientError) {
        if matches!(error, ClientError::TimedOut) {
            tracing::error!(pid = self.pid(), "the balancer hangs, replacing it");
            self.kill();
        }
    }

    /// Asks the process to end and waits for it; kills it after `grace`.
    pub(crate) async fn stop(mut self, grace: Duration) {
        let asked = self.client.retire(grace).await;
        let ended = async { while self.events.next().await.is_ok() {} };
        let waited = tokio::time::timeout(grace + grace / 2, ended).await;
        if asked.is_err() || waited.is_err() {
            self.kill();
        }
    }

    pub(super) fn kill(&self) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        // The number is the one that the process itself told over a connection that stands,
        // so it cannot be another's; it may be gone already.
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}
