//! Asking an image's registry which bytes its tag stands for at the moment, and which machines
//! they are made for.

use std::time::Duration;

use bollard::models::{DistributionInspect, OciPlatform};
use swarmlet_core::model::{ImageReference, Platform, RegistryAuth};

use super::image::with_credentials;
use super::{CALL_DEADLINE, DockerRuntime};
use crate::runtime::{Resolved, RuntimeError};

/// How long the registry may take. A user waits for it, who can do without: a registry that is
/// well answers in tenths of a second.
const RESOLVE_DEADLINE: Duration = Duration::from_secs(5);

/// What builders write where a manifest is not an image but says something about one.
const UNKNOWN: &str = "unknown";

impl DockerRuntime {
    /// Has the engine ask, with its own certificates, mirrors and insecure registries.
    pub(super) async fn resolve_image(
        &self,
        image: &str,
        auth: Option<&RegistryAuth>,
    ) -> Result<Option<Resolved>, RuntimeError> {
        // The path of a program, for the nodes of a mixed cluster that run such.
        let Ok(reference) = image.parse::<ImageReference>() else {
            return Ok(None);
        };
        let reference = reference.tagged();
        let mut client = self.client(CALL_DEADLINE)?;
        if let Some(auth) = auth {
            client = with_credentials(client, auth)
                .map_err(|error| RuntimeError::Rejected(error.to_string()))?;
        }
        let name = reference.to_string();
        let asked = self.call(CALL_DEADLINE, client.inspect_registry_image(&name, None));
        let late = |_| {
            let seconds = RESOLVE_DEADLINE.as_secs();
            RuntimeError::Unavailable(format!("no answer within {seconds} s"))
        };
        let answer = tokio::time::timeout(RESOLVE_DEADLINE, asked).await;
        let found = answer.map_err(late)??.value()?;
        resolved(reference, found).map(Some)
    }
}

fn resolved(
    reference: ImageReference,
    found: DistributionInspect,
) -> Result<Resolved, RuntimeError> {
    let digest = found.descriptor.digest.unwrap_or_default();
    let pinned = reference
        .pinned(&digest)
        .map_err(|error| RuntimeError::Refused(format!("the engine's answer: {error}")))?;
    let mut platforms: Vec<Platform> = Vec::new();
    for platform in found.platforms.into_iter().filter_map(platform) {
        // Several variants of one architecture are one.
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    Ok(Resolved {
        image: pinned.to_string(),
        platforms,
    })
}

fn platform(found: OciPlatform) -> Option<Platform> {
    let os = found.os.unwrap_or_default();
    let arch = found.architecture.unwrap_or_default();
    let says_nothing = os.is_empty() && arch.is_empty();
    (!says_nothing && os != UNKNOWN && arch != UNKNOWN).then_some(Platform { os, arch })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00";

    fn check(answer: &str) -> Result<(String, Vec<String>), String> {
        let found = serde_json::from_str(answer).unwrap();
        match resolved("ng".parse().unwrap(), found) {
            Ok(resolved) => {
                let platforms = resolved.platforms.iter().map(ToString::to_string);
                Ok((resolved.image, platforms.collect()))
            }
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn the_engines_answer_is_read() {
        let descriptor =
            format!(r#""Descriptor":{{"mediaType":"x","digest":"{DIGEST}","size":1}}"#);
        let list = r#""Platforms":[{"architecture":"amd64","os":"linux"},
            {"architecture":"arm","os":"linux","variant":"v6"},
            {"architecture":"arm","os":"linux","variant":"v7"},
            {"architecture":"unknown","os":"unknown"},{"architecture":"","os":""}]"#;
        let pinned = format!("ng:latest@{DIGEST}");
        let both = vec!["linux/amd64".to_owned(), "linux/arm".to_owned()];
        let listed = check(&format!("{{{descriptor},{list}}}"));
        assert_eq!(listed, Ok((pinned.clone(), both)));
        let nothing = check(&format!(r#"{{{descriptor},"Platforms":null}}"#));
        assert_eq!(nothing, Ok((pinned, Vec::new())));
        let lacking = check(r#"{"Descriptor":{},"Platforms":[]}"#).unwrap_err();
        assert!(lacking.contains("invalid image reference"), "{lacking}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_that_does_not_answer_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("docker.sock");
        let _listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let runtime = DockerRuntime::new(Some(&format!("unix://{}", socket.display()))).unwrap();
        let begun = tokio::time::Instant::now();
        let error = runtime.resolve_image("ng", None).await.unwrap_err();
        assert_eq!(error.to_string(), "no answer within 5 s");
        assert_eq!(begun.elapsed().as_secs(), 5);
        // A path is asked of nobody.
        let path = runtime.resolve_image("/usr/bin/ng", None).await;
        assert_eq!(path, Ok(None));
    }
}
