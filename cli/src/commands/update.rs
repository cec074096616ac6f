//! `service update` and `service rollback`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use swarmlet_core::model::{Service, Version};
use swarmlet_proto::v1;
use swarmlet_proto::v1::planned_change::Change;

use super::service::resolve;
use super::{plan, resolve as image};
use crate::args::{ServiceRollbackArgs, ServiceUpdateArgs};
use crate::client::{Client, ClientError, call};
use crate::output::print;
use crate::progress::{self, Show, Since, Wait};
use crate::spec::edited;

/// How often a change starts again where somebody else (most often an update that goes on) has
/// changed the service in between.
const ATTEMPTS: u32 = 5;

/// Changes a service and shows how its tasks are replaced.
///
/// # Errors
/// What is to be said to the user; that the update paused or was rolled back, too.
pub(super) async fn update(args: &ServiceUpdateArgs, client: &Client) -> Result<ExitCode> {
    let show = show(args.flags.quiet);
    if args.rollback {
        return roll_back_by_update(args, client, show).await;
    }
    let mut attempt = 1;
    let mut resolved = None;
    let (service, version) = loop {
        let services = client.services().await?;
        let service = resolve(&args.service, &services)?;
        let mut spec = edited(&service.spec, args)?;
        if args.flags.with_registry_auth {
            image::add_credentials(&mut spec).await?;
        }
        // An image that is not named stays what it is pinned to, even where its tag has moved.
        if args.image.is_some() && resolved.is_none() {
            resolved = Some(image::resolve(&spec, &args.flags, client).await?);
        }
        if let Some(resolved) = &resolved {
            resolved.set(&mut spec);
        }
        let request = v1::UpdateServiceRequest {
            id: service.id.to_string(),
            expected: expected(service, args.check_version).0,
            spec: Some((&spec).into()),
        };
        if args.flags.plan.dry_run {
            let change = Change::UpdateService(request);
            resolved.iter().for_each(image::Resolution::warn);
            return plan::show(vec![change], &args.flags.plan, client).await;
        }
        match call(client.control().update_service(request)).await {
            Ok(answer) => break (service.clone(), Version(answer.version)),
            Err(error) if may_retry(&error, args.check_version, attempt) => attempt += 1,
            Err(error) => return Err(error.into()),
        }
    };
    resolved.iter().for_each(image::Resolution::warn);
    print(&format!("{}\n", args.service))?;
    if !args.flags.detach {
        let since = Since {
            version,
            earlier_update: service.update_status.map(|status| status.started_at),
        };
        progress::follow(client, &service.id, since, show, Wait::Update).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Goes back to the version before and shows how.
///
/// # Errors
/// As [`update`].
pub(super) async fn rollback(args: &ServiceRollbackArgs, client: &Client) -> Result<ExitCode> {
    let mut attempt = 1;
    let (service, version) = loop {
        let services = client.services().await?;
        let service = resolve(&args.service, &services)?;
        let request = v1::RollbackServiceRequest {
            id: service.id.to_string(),
            expected: expected(service, args.check_version).0,
        };
        if args.plan.dry_run {
            let change = Change::RollbackService(request);
            return plan::show(vec![change], &args.plan, client).await;
        }
        match call(client.control().rollback_service(request)).await {
            Ok(answer) => break (service.clone(), Version(answer.version)),
            Err(error) if may_retry(&error, args.check_version, attempt) => attempt += 1,
            Err(error) => return Err(error.into()),
        }
    };
    print(&format!("{}\n", args.service))?;
    if !args.detach {
        let show = show(args.quiet);
        progress::follow(client, &service.id, version, show, Wait::Rollback).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `service update --rollback`.
async fn roll_back_by_update(
    args: &ServiceUpdateArgs,
    client: &Client,
    show: Show,
) -> Result<ExitCode> {
    let services = client.services().await?;
    let service = resolve(&args.service, &services)?;
    if edited(&service.spec, args)? != service.spec {
        bail!("other flags may not be combined with --rollback");
    }
    let args = ServiceRollbackArgs {
        plan: args.flags.plan.clone(),
        check_version: args.check_version,
        detach: args.flags.detach,
        quiet: show == Show::Nothing,
        service: args.service.clone(),
    };
    rollback(&args, client).await
}

fn show(quiet: bool) -> Show {
    if quiet { Show::Nothing } else { Show::Progress }
}

fn expected(service: &Service, check: Option<u64>) -> Version {
    check.map_or(service.version, Version)
}

/// The arguments are applied to what the service has become; whoever named a version wants to
/// see that first.
fn may_retry(error: &ClientError, check: Option<u64>, attempt: u32) -> bool {
    let overtaken =
        matches!(error, ClientError::Refused(reason) if reason.contains("out of sequence"));
    overtaken && check.is_none() && attempt < ATTEMPTS
}
