//! `service create`.

use std::process::ExitCode;

use anyhow::Result;
use swarmlet_core::model::{ServiceId, Version};
use swarmlet_proto::v1;
use swarmlet_proto::v1::planned_change::Change;

use super::{plan, resolve};
use crate::args::CreateArgs;
use crate::client::{Client, call};
use crate::output::print;
use crate::progress::{self, Show, Wait};
use crate::spec::service_spec;

/// Creates a service, prints its identifier and shows how it comes up.
///
/// # Errors
/// What is to be said to the user.
pub(super) async fn create(args: &CreateArgs, client: &Client) -> Result<ExitCode> {
    let mut spec = service_spec(args)?;
    if args.flags.with_registry_auth {
        resolve::add_credentials(&mut spec).await?;
    }
    let resolved = resolve::resolve(&spec, &args.flags, client).await?;
    resolved.set(&mut spec);
    let request = v1::CreateServiceRequest {
        spec: Some((&spec).into()),
    };
    if args.flags.plan.dry_run {
        let change = Change::CreateService(request);
        resolved.warn();
        return plan::show(vec![change], &args.flags.plan, client).await;
    }
    let answer = call(client.control().create_service(request)).await?;
    resolved.warn();
    print(&format!("{}\n", answer.id))?;
    if !args.flags.detach {
        let id = ServiceId::parse(&answer.id)?;
        let show = if args.flags.quiet {
            Show::Nothing
        } else {
            Show::Progress
        };
        progress::follow(client, &id, Version(answer.version), show, Wait::Tasks).await?;
    }
    Ok(ExitCode::SUCCESS)
}
