//! `lb status`, `lb restart`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use swarmlet_lb::status::Status;
use swarmlet_proto::v1;

use crate::args::{Format, LbCommand, LbRestartArgs, LbStatusArgs};
use crate::client::{Client, call, call_within};
use crate::output::{balancers, balancers_json, print};

/// Time for a new balancer to start and take over; it does within a second, but for a machine
/// that is busy.
const RESTART_DEADLINE: Duration = Duration::from_secs(30);

/// Asks the balancer that runs.
///
/// # Errors
/// What is to be said to the user.
pub(crate) async fn run(command: LbCommand, socket: &Path) -> Result<()> {
    match command {
        LbCommand::Status(args) => status(&args, socket).await,
        LbCommand::Restart(args) => restart(&args, &Client::connect(socket).await?).await,
    }
}

async fn status(args: &LbStatusArgs, socket: &Path) -> Result<()> {
    let generations = match &args.control {
        Some(control) => all_at(control).await?,
        None => of_node(&Client::connect(socket).await?).await?,
    };
    match args.format {
        Format::Json => print(&balancers_json(&generations)?)?,
        Format::Table => print(&balancers(&generations, super::now()))?,
    }
    Ok(())
}

/// The one that listens, and those that it has replaced.
async fn all_at(control: &Path) -> Result<Vec<Status>> {
    let mut generations = vec![at(control).await?];
    generations.extend(swarmlet_lb::control::replaced(control).await);
    Ok(generations)
}

async fn at(control: &Path) -> Result<Status> {
    let mut client = swarmlet_lb::control::Client::connect(control).await?;
    Ok(client.status().await?)
}

async fn of_node(client: &Client) -> Result<Vec<Status>> {
    let mut balancer = client.local_balancer();
    let answer = call(balancer.balancer_status(v1::BalancerStatusRequest {})).await?;
    answer
        .generations
        .iter()
        .map(|text| {
            serde_json::from_str(text).context(
                "the balancer's answer cannot be read; are daemon and command of one version?",
            )
        })
        .collect()
}

async fn restart(args: &LbRestartArgs, client: &Client) -> Result<()> {
    let patience = args.drain_timeout.unwrap_or_default().as_millis();
    let request = v1::BalancerRestartRequest {
        patience_ms: u64::try_from(patience).unwrap_or(u64::MAX),
    };
    let mut balancer = client.local_balancer();
    let answer = call_within(RESTART_DEADLINE, balancer.balancer_restart(request)).await?;
    print(&format!(
        "Balancer restarted: process {} listens, process {} finishes its connections.\n",
        answer.after, answer.before
    ))?;
    Ok(())
}
