//! Getting a task's image.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use bollard::Docker;
use bollard::errors::Error;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::StreamExt;
use swarmlet_core::model::{ContainerSpec, ImageReference, Platform, RegistryAuth};

use super::{Answer, CALL_DEADLINE, DockerRuntime};
use crate::cause::chain;
use crate::registry::{self, RegistryError};
use crate::runtime::RuntimeError;

/// How long a pull may stand still. There is no limit to the whole: images are large and
/// links slow.
const PULL_STALL: Duration = Duration::from_secs(120);

/// Where the kernel lists what runs the programs of other machines.
const EMULATORS: &str = "/proc/sys/fs/binfmt_misc";

/// Header that carries registry credentials.
const AUTH_HEADER: &str = "X-Registry-Auth";

impl DockerRuntime {
    /// Makes sure that the image is there, pulling it where it is not.
    pub(super) async fn have_image(&self, container: &ContainerSpec) -> Result<(), RuntimeError> {
        let image = &container.image;
        if self.image_is_here(image).await? {
            return Ok(());
        }
        let auth = container.registry_auth.as_ref();
        let pull = || self.pull_until_here(image, auth);
        self.pulls.share(image, auth, pull).await
    }

    /// Pulls with the service's credentials, and, where the registry does not take them, with those
    /// of this node: tokens end after hours, and a node with a credential helper always has a fresh
    /// one.
    async fn pull_until_here(
        &self,
        image: &str,
        auth: Option<&RegistryAuth>,
    ) -> Result<(), RuntimeError> {
        tracing::info!(image, "pulling");
        let Some(refused) = self.pull_once(image, auth).await? else {
            return Ok(());
        };
        let reason = match self.own_credentials(image).await {
            Ok(Some(own)) if Some(&own) != auth => {
                tracing::info!(
                    image,
                    reason = refused,
                    "pulling with this node's credentials"
                );
                match self.pull_once(image, Some(&own)).await? {
                    None => return Ok(()),
                    Some(again) if again == refused => refused,
                    Some(again) => format!("{refused}; with this node's credentials: {again}"),
                }
            }
            Ok(_) => refused,
            Err(error) => format!("{refused}; {}", chain(&error)),
        };
        Err(RuntimeError::Rejected(format!(
            "No such image: {image} ({reason})"
        )))
    }

    /// Why the image is not there after a pull, if it is not.
    async fn pull_once(
        &self,
        image: &str,
        auth: Option<&RegistryAuth>,
    ) -> Result<Option<String>, RuntimeError> {
        let failure = match self.pull(image, auth).await {
            Ok(()) => None,
            Err(PullError::Unanswered(error)) => return Err(error),
            Err(PullError::Refused(reason)) => Some(reason),
        };
        // A pull that succeeded can end with an error, and one that failed without.
        if self.image_is_here(image).await? {
            return Ok(None);
        }
        Ok(failure.or_else(|| Some("the pull ended without it".to_owned())))
    }

    async fn own_credentials(&self, image: &str) -> Result<Option<RegistryAuth>, RegistryError> {
        match &self.docker_config {
            Some(dir) => registry::credentials(dir, image).await,
            None => Ok(None),
        }
    }

    async fn image_is_here(&self, image: &str) -> Result<bool, RuntimeError> {
        let client = self.client(CALL_DEADLINE)?;
        match self
            .call(CALL_DEADLINE, client.inspect_image(image))
            .await?
        {
            Answer::Value(found) => {
                if found.repo_digests.unwrap_or_default().is_empty() {
                    tracing::warn!(
                        image,
                        "the image is only on this machine: it has no digest, and other nodes may have another one of that name"
                    );
                }
                let made_for = Platform {
                    os: found.os.unwrap_or_default(),
                    arch: found.architecture.unwrap_or_default(),
                };
                check_platform(image, &made_for, &host_platform(), Path::new(EMULATORS))?;
                Ok(true)
            }
            Answer::Error(404, _) => Ok(false),
            Answer::Error(400, message) => Err(RuntimeError::Rejected(message)),
            Answer::Error(_, message) => Err(RuntimeError::Refused(message)),
        }
    }

    async fn pull(&self, image: &str, auth: Option<&RegistryAuth>) -> Result<(), PullError> {
        let mut client = self.client(PULL_STALL).map_err(PullError::Unanswered)?;
        if let Some(auth) = auth {
            client = with_credentials(client, auth)
                .map_err(|error| PullError::Refused(error.to_string()))?;
        }
        let options = CreateImageOptionsBuilder::new()
            .from_image(&tagged(image))
            .build();
        let mut progress = std::pin::pin!(client.create_image(Some(options), None, None));
        loop {
            match tokio::time::timeout(PULL_STALL, progress.next()).await {
                Ok(None) => return Ok(()),
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(
                    Error::DockerResponseServerError { message, .. }
                    | Error::DockerStreamError { error: message },
                ))) => return Err(PullError::Refused(message)),
                Ok(Some(Err(error))) => return Err(PullError::Unanswered(self.away(&error))),
                Err(_) => {
                    return Err(PullError::Unanswered(RuntimeError::Unavailable(format!(
                        "the pull of {image} stands still"
                    ))));
                }
            }
        }
    }
}

/// What containers of this machine run on: an engine shares its kernel.
fn host_platform() -> Platform {
    Platform {
        os: std::env::consts::OS.to_owned(),
        arch: std::env::consts::ARCH.to_owned(),
    }
}

/// Refuses an image that is made for other machines. The engine would start it, and its end would
/// say nothing: `exec format error` in its log, and exit code 255. (Where a registry has an image
/// for several platforms and none is this one, the engine refuses the pull by itself.)
fn check_platform(
    image: &str,
    made_for: &Platform,
    host: &Platform,
    emulators: &Path,
) -> Result<(), RuntimeError> {
    let emulated = || {
        let machine = match made_for.go_arch() {
            "amd64" => "x86_64",
            "arm64" => "aarch64",
            "386" => "i386",
            other => other,
        };
        emulators.join(format!("qemu-{machine}")).exists()
    };
    if made_for.runs_on(host) || (made_for.os == host.os && emulated()) {
        return Ok(());
    }
    Err(RuntimeError::Rejected(format!(
        "no matching platform: {image} is for {made_for}, this node is {}/{}",
        host.os,
        host.go_arch()
    )))
}

enum PullError {
    /// The engine says why.
    Refused(String),
    /// It says nothing.
    Unanswered(RuntimeError),
}

/// Credentials that no engine reads.
#[derive(Debug, thiserror::Error)]
#[error("the registry credentials of the service are malformed")]
pub(super) struct Malformed;

/// The client itself would encode credentials in the alphabet that the engine does not read,
/// and the engine takes unreadable credentials for none.
pub(super) fn with_credentials(client: Docker, auth: &RegistryAuth) -> Result<Docker, Malformed> {
    let json = decode(&auth.0).ok_or(Malformed)?;
    let header = URL_SAFE.encode(json);
    Ok(client.with_request_modifier(move |mut request| {
        if let Ok(mut value) = header.parse::<tonic::codegen::http::HeaderValue>() {
            value.set_sensitive(true);
            request.headers_mut().insert(AUTH_HEADER, value);
        }
        request
    }))
}

fn decode(text: &str) -> Option<Vec<u8>> {
    [URL_SAFE, STANDARD, URL_SAFE_NO_PAD, STANDARD_NO_PAD]
        .iter()
        .find_map(|alphabet| alphabet.decode(text).ok())
}

/// The reference with the tag that it means: without one the engine would pull all of them.
fn tagged(image: &str) -> String {
    match image.parse::<ImageReference>() {
        Ok(reference) => reference.tagged().to_string(),
        // The engine will say what is wrong with it.
        Err(_) => image.to_owned(),
    }
}

#[cfg(test)]
#[path = "image_tests.rs"]
mod tests;
