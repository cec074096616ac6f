//! What an image's tag stands for at the moment, asked of its registry before a service is
//! created or given another image, so that every node runs the same bytes.
//!
//! As in Docker it is the command that asks, by this node's engine; what it learns is in the
//! specification that it sends, and a rollback brings back what was learnt before.

use std::time::Duration;

use anyhow::{Context, Result};
use swarmlet_agent::registry;
use swarmlet_core::model::{ContainerSpec, ImageReference, Platform, RegistryAuth, ServiceSpec};
use swarmlet_proto::v1;

use crate::args::ServiceFlags;
use crate::client::{Client, ClientError, call, read};

/// How long the question may take in all. A user waits for the answer and can do without it.
const DEADLINE: Duration = Duration::from_secs(5);

/// What was learnt of a service's images.
#[derive(Default)]
pub(super) struct Resolution {
    /// By container, where its registry told.
    found: Vec<Option<Resolved>>,
    /// What the user is to know of the others.
    warnings: Vec<String>,
}

/// An image as its registry knows it.
struct Resolved {
    image: String,
    platforms: Vec<Platform>,
}

impl Resolution {
    /// Has the containers run what was found.
    pub(super) fn set(&self, spec: &mut ServiceSpec) {
        for (container, found) in spec.task.containers.iter_mut().zip(&self.found) {
            if let Some(found) = found {
                container.image.clone_from(&found.image);
                container.platforms.clone_from(&found.platforms);
            }
        }
    }

    /// Tells the user what was not found. As Docker does once the cluster has taken the service:
    /// of one that is refused nobody wants to know.
    pub(super) fn warn(&self) {
        for warning in &self.warnings {
            eprintln!("{warning}");
        }
    }
}

/// Reads this machine's credentials for the images of a service.
///
/// # Errors
/// They cannot be read.
pub(super) async fn add_credentials(spec: &mut ServiceSpec) -> Result<()> {
    let dir = registry::config_dir()
        .context("cannot find Docker's configuration: set DOCKER_CONFIG or HOME")?;
    for container in &mut spec.task.containers {
        container.registry_auth = registry::credentials(&dir, &container.image).await?;
    }
    Ok(())
}

/// Asks for the images of a service, as far as the user wants that.
///
/// # Errors
/// The daemon refuses: the node is no manager.
pub(super) async fn resolve(
    spec: &ServiceSpec,
    flags: &ServiceFlags,
    client: &Client,
) -> Result<Resolution> {
    let mut all = Resolution::default();
    if flags.no_resolve_image {
        return Ok(all);
    }
    for container in &spec.task.containers {
        let found = match resolve_one(container, client).await? {
            Ok(found) => Some(found),
            Err(failure) => {
                let reference = container.image.parse::<ImageReference>();
                // Of one with a digest every node runs the same bytes anyway.
                if !reference.is_ok_and(|reference| reference.has_digest()) {
                    all.warnings.push(warning(&container.image, &failure));
                }
                None
            }
        };
        all.found.push(found);
    }
    Ok(all)
}

/// One image; within, why its registry does not tell.
async fn resolve_one(
    container: &ContainerSpec,
    client: &Client,
) -> Result<Result<Resolved, String>> {
    let Ok(answer) = tokio::time::timeout(DEADLINE, ask(container, client)).await else {
        return Ok(Err(format!("no answer within {} s", DEADLINE.as_secs())));
    };
    let answer = answer?;
    if !answer.failure.is_empty() {
        return Ok(Err(answer.failure));
    }
    let platforms = answer.platforms.into_iter().map(read);
    Ok(Ok(Resolved {
        image: answer.image,
        platforms: platforms.collect::<Result<_, _>>()?,
    }))
}

async fn ask(
    container: &ContainerSpec,
    client: &Client,
) -> Result<v1::ResolveImageResponse, ClientError> {
    let (auth, flaw) = match &container.registry_auth {
        Some(auth) => (Some(auth.clone()), None),
        None => own_credentials(&container.image).await,
    };
    let request = v1::ResolveImageRequest {
        image: container.image.clone(),
        registry_auth: auth.map(|auth| v1::RegistryAuth { header: auth.0 }),
    };
    let mut answer = call(client.local().resolve_image(request)).await?;
    if let Some(flaw) = flaw.filter(|_| !answer.failure.is_empty()) {
        answer.failure = format!("{}; {flaw}", answer.failure);
    }
    Ok(answer)
}

/// The credentials of the shell's user, for this question only. Nobody asked for them, so that
/// what is wrong with them is of interest only where the registry refuses.
async fn own_credentials(image: &str) -> (Option<RegistryAuth>, Option<String>) {
    let Some(dir) = registry::config_dir() else {
        return (None, None);
    };
    match registry::credentials(&dir, image).await {
        Ok(auth) => (auth, None),
        Err(error) => (None, Some(error.to_string())),
    }
}

/// Docker's words, and why.
fn warning(image: &str, failure: &str) -> String {
    format!(
        "image {image} could not be accessed on a registry to record\n\
         its digest. Each node will access {image} independently,\n\
         possibly leading to different nodes running different\n\
         versions of the image.\n\
         Reason: {failure}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_warning_is_dockers_with_a_reason() {
        assert_eq!(
            warning("ng:1", "manifest unknown"),
            "image ng:1 could not be accessed on a registry to record\n\
             its digest. Each node will access ng:1 independently,\n\
             possibly leading to different nodes running different\n\
             versions of the image.\n\
             Reason: manifest unknown\n"
        );
    }
}
