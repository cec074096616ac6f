//! `service ls/ps/inspect/scale/rm`; `create` and `update` have files of their own.

use std::process::ExitCode;

use anyhow::Result;
use swarmlet_core::model::{PortMode, Service, Version};
use swarmlet_proto::v1;
use swarmlet_proto::v1::planned_change::Change;

use super::node::warn_of_ports;
use super::tasks::{Listing, filter_tasks};
use super::{
    Failures, check_filters, create, label_matches, logs, now, passes, plan, rebalance, update,
};
use crate::args::{
    Format, ScaleArgs, ServiceCommand, ServiceInspectArgs, ServiceLsArgs, ServicePsArgs,
    ServiceRmArgs,
};
use crate::client::{Client, ClientError, call, find};
use crate::output::{Style, list, pretty_service, print, service_rows};
use crate::progress::{self, Outcome, Show, Wait};

/// Runs a command on services.
///
/// # Errors
/// What is to be said to the user.
pub(crate) async fn run(command: ServiceCommand, client: &Client) -> Result<ExitCode> {
    match command {
        ServiceCommand::Create(args) => return create::create(&args, client).await,
        ServiceCommand::Update(args) => return update::update(&args, client).await,
        ServiceCommand::Rollback(args) => return update::rollback(&args, client).await,
        ServiceCommand::Logs(args) => return logs::service(args, client).await,
        ServiceCommand::Scale(args) => return scale(&args, client).await,
        ServiceCommand::Rebalance(args) => return rebalance::rebalance(&args, client).await,
        ServiceCommand::Ls(args) => ls(&args, client).await?,
        ServiceCommand::Ps(args) => ps(&args, client).await?,
        ServiceCommand::Inspect(args) => inspect(&args, client).await?,
        ServiceCommand::Rm(args) => rm(&args, client).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The service that a user means.
pub(super) fn resolve<'a>(name: &str, services: &'a [Service]) -> Result<&'a Service, ClientError> {
    find("service", name, services, |service| {
        (service.id.as_str(), service.spec.name.as_str())
    })
}

async fn ls(args: &ServiceLsArgs, client: &Client) -> Result<()> {
    check_filters(&args.filter, &["id", "name", "label", "mode"])?;
    let mut services = client.services().await?;
    services.retain(|service| {
        passes(&args.filter, |key, value| match key {
            "id" => service.id.as_str().starts_with(value),
            "name" => service.spec.name.starts_with(value),
            "label" => label_matches(&service.spec.labels, value),
            _ => service.spec.mode.kind().to_string() == value,
        })
    });
    let tasks = client.tasks("", "").await?;
    let rows = service_rows(&services, &tasks);
    print(&list(&rows, Style::new(args.quiet, args.format))?)?;
    Ok(())
}

async fn ps(args: &ServicePsArgs, client: &Client) -> Result<()> {
    check_filters(&args.filter, &["id", "name", "node", "desired-state"])?;
    let services = client.services().await?;
    let nodes = client.nodes_by_id().await?;
    let mut tasks = Vec::new();
    let mut published = Vec::new();
    let mut failures = Failures::default();
    for name in &args.services {
        match resolve(name, &services) {
            Ok(service) => {
                tasks.extend(client.tasks(service.id.as_str(), "").await?);
                let ports = service.spec.ports.iter();
                published.extend(
                    ports
                        .filter(|p| p.mode == PortMode::Ingress)
                        .map(|p| p.published),
                );
            }
            Err(error) => failures.note(&error),
        }
    }
    if failures.are_all_of(&args.services) {
        return failures.result();
    }
    filter_tasks(&mut tasks, &args.filter, &nodes);
    let style = Style::new(args.quiet, args.format);
    let shown: Vec<_> = tasks.iter().filter_map(|task| task.node.clone()).collect();
    Listing {
        no_trunc: args.no_trunc,
        style,
    }
    .print(tasks, &nodes, &services)?;
    if style == Style::Table {
        // A node that has none of the tasks has no line to show its problem in.
        let mut others: Vec<_> = nodes
            .into_values()
            .filter(|node| !shown.contains(&node.id))
            .collect();
        for node in &mut others {
            node.port_problems
                .retain(|problem| published.contains(&problem.port));
        }
        warn_of_ports(others.iter());
    }
    failures.result()
}

async fn inspect(args: &ServiceInspectArgs, client: &Client) -> Result<()> {
    let services = client.services().await?;
    let mut found = Vec::new();
    let mut failures = Failures::default();
    for name in &args.services {
        match resolve(name, &services) {
            Ok(service) => found.push(service),
            Err(error) => failures.note(&error),
        }
    }
    if args.pretty || args.format == Format::Table {
        let texts: Vec<_> = found
            .iter()
            .map(|service| pretty_service(service, now()))
            .collect();
        print(&texts.join("\n"))?;
    } else {
        print(&(serde_json::to_string_pretty(&found)? + "\n"))?;
    }
    failures.result()
}

/// How often `scale` starts again where somebody else has changed the service in between.
const SCALE_ATTEMPTS: u32 = 5;

/// Docker's words.
const NOT_SCALABLE: &str = "scale can only be used with replicated or replicated-job mode";

async fn scale(args: &ScaleArgs, client: &Client) -> Result<ExitCode> {
    if args.plan.dry_run {
        let services = client.services().await?;
        let changes = args.services.iter().map(|(name, replicas)| {
            let request = scaled(resolve(name, &services)?, *replicas)?;
            Ok(Change::UpdateService(request))
        });
        let changes = changes.collect::<Result<Vec<_>, ClientError>>()?;
        return plan::show(changes, &args.plan, client).await;
    }
    let mut scaled = Vec::new();
    let mut failures = Failures::default();
    for (name, replicas) in &args.services {
        match set_replicas(name, *replicas, client).await {
            Ok((service, version)) => {
                print(&format!("{name} scaled to {replicas}\n"))?;
                scaled.push((service, version));
            }
            Err(error) => failures.note(&error),
        }
    }
    if !args.detach {
        for (service, version) in scaled {
            let outcome =
                progress::follow(client, &service.id, version, Show::Progress, Wait::Tasks).await?;
            if outcome == Outcome::Interrupted {
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
    failures.result()?;
    Ok(ExitCode::SUCCESS)
}

async fn set_replicas(
    name: &str,
    replicas: u32,
    client: &Client,
) -> Result<(Service, Version), ClientError> {
    let mut attempt = 1;
    loop {
        let services = client.services().await?;
        let service = resolve(name, &services)?;
        let request = scaled(service, replicas)?;
        match call(client.control().update_service(request)).await {
            Ok(answer) => return Ok((service.clone(), Version(answer.version))),
            // The number of replicas depends on nothing that another writer could have changed.
            Err(ClientError::Refused(reason))
                if reason.contains("out of sequence") && attempt < SCALE_ATTEMPTS =>
            {
                attempt += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// What asks for another number of tasks.
fn scaled(service: &Service, replicas: u32) -> Result<v1::UpdateServiceRequest, ClientError> {
    let mut spec = service.spec.clone();
    spec.mode = spec
        .mode
        .scaled(replicas)
        .ok_or_else(|| ClientError::Refused(format!("{}: {NOT_SCALABLE}", spec.name)))?;
    spec.validate()
        .map_err(|error| ClientError::Refused(format!("{}: {error}", spec.name)))?;
    Ok(v1::UpdateServiceRequest {
        id: service.id.to_string(),
        expected: service.version.0,
        spec: Some((&spec).into()),
    })
}

async fn rm(args: &ServiceRmArgs, client: &Client) -> Result<()> {
    let services = client.services().await?;
    let mut failures = Failures::default();
    for name in &args.services {
        let removed = async {
            let request = v1::RemoveServiceRequest {
                id: resolve(name, &services)?.id.to_string(),
            };
            call(client.control().remove_service(request)).await
        };
        match removed.await {
            Ok(_) => print(&format!("{name}\n"))?,
            Err(error) => failures.note(&error),
        }
    }
    failures.result()
}
