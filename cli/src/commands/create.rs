//! `service create`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use swarmlet_agent::registry;
use swarmlet_core::model::{ServiceId, Version};
use swarmlet_proto::v1;

use crate::args::CreateArgs;
use crate::client::{Client, call};
use crate::output::print;
use crate::progress::{self, Show};
use crate::spec::service_spec;

/// Creates a service, prints its identifier and shows how it comes up.
///
/// # Errors
/// What is to be said to the user.
pub(super) async fn create(args: &CreateArgs, client: &Client) -> Result<ExitCode> {
    let mut spec = service_spec(args)?;
    if args.with_registry_auth {
        let dir = registry::config_dir()
            .context("cannot find Docker's configuration: neither DOCKER_CONFIG nor HOME is set")?;
        for container in &mut spec.task.containers {
            container.registry_auth = registry::credentials(&dir, &container.image).await?;
        }
    }
    let request = v1::CreateServiceRequest {
        spec: Some((&spec).into()),
    };
    let answer = call(client.control().create_service(request)).await?;
    print(&format!("{}\n", answer.id))?;
    if !args.detach {
        let id = ServiceId::parse(&answer.id)?;
        let show = if args.quiet {
            Show::Nothing
        } else {
            Show::Progress
        };
        progress::follow(client, &id, Version(answer.version), show).await?;
    }
    Ok(ExitCode::SUCCESS)
}
