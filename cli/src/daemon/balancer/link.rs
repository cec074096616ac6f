//! A connection to a balancer's process.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use swarmlet_lb::control::{Client, ClientError, Events};
use swarmlet_lb::status::Status;
use swarmlet_lb::table::Table;

use super::process;
use crate::daemon::store::{Layout, write_pid};

/// Time for a process that was just started to answer; it does within milliseconds, but for
/// a machine that is busy.
const START_DEADLINE: Duration = Duration::from_secs(5);

/// Pause between two attempts to reach it.
const START_POLL: Duration = Duration::from_millis(5);

/// A connection, and a second one for what the balancer tells by itself.
pub(super) struct Link {
    client: Client,
    events: Events,
    pid: u32,
}

impl Link {
    /// Connects to the process that runs.
    pub(super) async fn adopt(layout: &Layout) -> Result<Self, ClientError> {
        let mut client = Client::connect(layout.lb_socket()).await?;
        let events = client.events().await?;
        let status = client.status().await?;
        Ok(Self {
            client,
            events,
            pid: status.pid,
        })
    }

    /// Connects to the process that runs, or starts one and connects to that.
    pub(super) async fn adopt_or_start(layout: &Layout, ingress: &[IpAddr]) -> Result<Self> {
        let link = match Self::adopt(layout).await {
            Ok(link) => {
                tracing::info!(pid = link.pid, "adopted the balancer");
                link
            }
            Err(ClientError::Connect { .. }) => Self::start(layout, ingress).await?,
            Err(error) => return Err(error).context("cannot talk to the balancer that runs"),
        };
        write_pid(&layout.lb_pid(), link.pid)?;
        Ok(link)
    }

    async fn start(layout: &Layout, ingress: &[IpAddr]) -> Result<Self> {
        let mut child = process::spawn(layout, ingress)?;
        let deadline = tokio::time::Instant::now() + START_DEADLINE;
        loop {
            match Self::adopt(layout).await {
                Ok(link) => {
                    tracing::info!(pid = link.pid, "started the balancer");
                    // It is this process's child for as long as this process lives: wait for
                    // it, so that it leaves no zombie.
                    tokio::spawn(async move {
                        match child.wait().await {
                            Ok(status) => tracing::info!(%status, "the balancer's process ended"),
                            Err(error) => tracing::warn!(%error, "cannot wait for the balancer"),
                        }
                    });
                    return Ok(link);
                }
                Err(error) if tokio::time::Instant::now() > deadline => {
                    child
                        .start_kill()
                        .context("cannot end a balancer that does not answer")?;
                    return Err(error).context("the balancer does not answer");
                }
                Err(_) => {}
            }
            if let Some(status) = child.try_wait().context("cannot wait for the balancer")? {
                anyhow::bail!(
                    "the balancer ended at once ({status}): see {}",
                    layout.lb_log().display()
                );
            }
            tokio::time::sleep(START_POLL).await;
        }
    }

    /// Waits until the balancer has something to tell.
    pub(super) async fn event(&mut self) -> Result<(), ClientError> {
        self.events.next().await.map(|_| ())
    }

    pub(super) async fn set_table(&mut self, table: &Table) -> Result<(), ClientError> {
        self.client.set_table(table).await.map(|_| ())
    }

    pub(super) async fn status(&mut self) -> Result<Status, ClientError> {
        self.client.status().await
    }

    /// Makes room for another process, where this one does not answer but still holds the
    /// ports.
    pub(super) fn give_up(&self, error: &ClientError) {
        if matches!(error, ClientError::TimedOut) {
            tracing::error!(pid = self.pid, "the balancer hangs, replacing it");
            self.kill();
        }
    }

    /// Asks the process to end and waits for it; kills it after `grace`.
    pub(super) async fn stop(mut self, grace: Duration) {
        let asked = self.client.shutdown().await;
        let ended = async { while self.events.next().await.is_ok() {} };
        let waited = tokio::time::timeout(grace, ended).await;
        if asked.is_err() || waited.is_err() {
            self.kill();
        }
    }

    fn kill(&self) {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        // The number is the one that the process itself told over a connection that stands,
        // so it cannot be another's; it may be gone already.
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}
