//! `service rebalance`.

use std::process::ExitCode;

use anyhow::Result;
use swarmlet_core::model::{ServiceId, Version};
use swarmlet_proto::v1;
use swarmlet_proto::v1::planned_change::Change;

use super::service::resolve;
use super::{Failures, plan};
use crate::args::RebalanceArgs;
use crate::client::{Client, ClientError, call};
use crate::output::print;
use crate::progress::{self, Outcome, Show, Wait};

/// Moves tasks of services to nodes that have fewer of them, and waits until they are there.
///
/// # Errors
/// What is to be said to the user.
pub(super) async fn rebalance(args: &RebalanceArgs, client: &Client) -> Result<ExitCode> {
    let all = client.services().await?;
    let mut named = Vec::new();
    let mut failures = Failures::default();
    for name in &args.services {
        match resolve(name, &all) {
            Ok(service) => named.push(service),
            Err(error) => failures.note(&error),
        }
    }
    if args.services.is_empty() {
        named.extend(&all);
    }
    if args.plan.dry_run {
        failures.result()?;
        let change = |id: &ServiceId| Change::RebalanceService(request(id));
        let changes = named.iter().map(|service| change(&service.id)).collect();
        return plan::show(changes, &args.plan, client).await;
    }
    let mut moving = Vec::new();
    for service in named {
        let name = &service.spec.name;
        match begin(&service.id, client).await {
            Ok((_, 0)) => print(&format!("{name} is balanced\n"))?,
            Ok((version, moves)) => {
                let tasks = if moves == 1 { "task" } else { "tasks" };
                print(&format!("{name}: {moves} {tasks} to move\n"))?;
                moving.push((&service.id, version));
            }
            Err(error) => failures.note(&format!("{name}: {error}")),
        }
    }
    let show = if args.quiet {
        Show::Nothing
    } else {
        Show::Progress
    };
    for (id, version) in moving.into_iter().filter(|_| !args.detach) {
        let outcome = progress::follow(client, id, version, show, Wait::Tasks).await?;
        if outcome == Outcome::Interrupted {
            return Ok(ExitCode::SUCCESS);
        }
    }
    failures.result()?;
    Ok(ExitCode::SUCCESS)
}

fn request(id: &ServiceId) -> v1::RebalanceServiceRequest {
    v1::RebalanceServiceRequest { id: id.to_string() }
}

/// How often it is asked again where somebody else has changed the service in between.
const ATTEMPTS: u32 = 5;

async fn begin(id: &ServiceId, client: &Client) -> Result<(Version, u32), ClientError> {
    let mut attempt = 1;
    loop {
        match call(client.control().rebalance_service(request(id))).await {
            Ok(answer) => return Ok((Version(answer.version), answer.moves)),
            Err(ClientError::Refused(reason))
                if reason.contains("out of sequence") && attempt < ATTEMPTS =>
            {
                attempt += 1;
            }
            Err(error) => return Err(error),
        }
    }
}
