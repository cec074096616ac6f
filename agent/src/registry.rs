//! Registry credentials from the configuration of Docker's command line, for
//! `--with-registry-auth`.
//!
//! Docker keeps them in `config.json`: as base64 of `user:password` for a registry, or in
//! the care of a helper program (`docker-credential-NAME`) for all or one of them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde::{Deserialize, Serialize};
use swarmlet_core::model::{ImageReference, RegistryAuth};
use tokio::io::AsyncWriteExt;

/// How long a helper may take. It may ask a cloud's API, but never the user.
const HELPER_DEADLINE: Duration = Duration::from_secs(30);

/// The name of Docker Hub among credentials, for reasons of history.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// What a helper says when it has no credentials, which is no error.
const NOT_FOUND: &str = "credentials not found";

/// Credentials that cannot be read. They are never part of it.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The configuration cannot be read.
    #[error("cannot read the Docker configuration {path}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is no JSON of the expected form.
    #[error("the Docker configuration {path} is malformed")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Where.
        #[source]
        source: serde_json::Error,
    },
    /// An entry is neither empty nor base64 of `user:password`.
    #[error(
        "the credentials for {0} in the Docker configuration are malformed: log in again with `docker login`"
    )]
    Credentials(String),
    /// A helper program failed.
    #[error("the credential helper {helper} failed for {registry}: {reason}")]
    Helper {
        /// Its name.
        helper: String,
        /// For which registry.
        registry: String,
        /// What it said.
        reason: String,
    },
}

/// The folder of Docker's configuration: `DOCKER_CONFIG`, or `.docker` in the home folder, which
/// the user database names where `HOME` does not, as in a unit of systemd's.
#[must_use]
pub fn config_dir() -> Option<PathBuf> {
    let set = std::env::var_os("DOCKER_CONFIG").filter(|value| !value.is_empty());
    set.map(PathBuf::from).or_else(|| {
        let home = std::env::home_dir().filter(|home| home.is_absolute())?;
        Some(home.join(".docker"))
    })
}

/// The credentials for an image's registry, `None` where there are none.
///
/// # Errors
/// [`RegistryError`] where there may be some that cannot be read: a service that cannot be
/// pulled later is harder to understand.
pub async fn credentials(dir: &Path, image: &str) -> Result<Option<RegistryAuth>, RegistryError> {
    let Some(config) = read(&dir.join("config.json"))? else {
        return Ok(None);
    };
    let Some(registry) = registry_of(image) else {
        return Ok(None);
    };
    let registry = registry.as_str();
    let helper = config.cred_helpers.get(registry).or(config
        .creds_store
        .as_ref()
        .filter(|store| !store.is_empty()));
    if let Some(helper) = helper {
        return Ok(ask(helper, registry).await?.map(|found| encode(&found)));
    }
    match config
        .auths
        .iter()
        .find(|(name, _)| same_registry(name, registry))
    {
        Some((_, entry)) => Ok(stored(registry, entry)?.map(|found| encode(&found))),
        None => Ok(None),
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

/// What the engine reads from the header.
#[derive(Serialize)]
struct Credentials {
    #[serde(skip_serializing_if = "String::is_empty")]
    username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    password: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    identitytoken: String,
    serveraddress: String,
}

/// What a helper answers.
#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

fn read(path: &Path) -> Result<Option<Config>, RegistryError> {
    match fs::read(path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|source| RegistryError::Malformed {
                    path: path.to_owned(),
                    source,
                })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(RegistryError::Unreadable {
            path: path.to_owned(),
            source,
        }),
    }
}

/// What an image's registry is called among credentials; `None` where it can be in none.
fn registry_of(image: &str) -> Option<String> {
    let reference = image.parse::<ImageReference>().ok()?;
    Some(match reference.registry() {
        "docker.io" => DOCKER_HUB.to_owned(),
        host => host.to_owned(),
    })
}

/// Keys were written with and without a scheme and a path over the years.
fn same_registry(key: &str, registry: &str) -> bool {
    let host = |text: &str| -> String {
        let text = text
            .strip_prefix("https://")
            .or_else(|| text.strip_prefix("http://"))
            .unwrap_or(text);
        text.split('/').next().unwrap_or(text).to_owned()
    };
    key == registry || host(key) == host(registry)
}

fn stored(registry: &str, entry: &Entry) -> Result<Option<Credentials>, RegistryError> {
    let malformed = || RegistryError::Credentials(registry.to_owned());
    let (mut username, mut password) = (entry.username.clone(), entry.password.clone());
    if !entry.auth.is_empty() {
        let bytes = STANDARD.decode(&entry.auth).map_err(|_| malformed())?;
        let text = String::from_utf8(bytes).map_err(|_| malformed())?;
        let (user, secret) = text.split_once(':').ok_or_else(malformed)?;
        username = user.to_owned();
        // Docker pads it with zeros on some platforms.
        password = secret.trim_end_matches('\0').to_owned();
    }
    if username.is_empty() && entry.identitytoken.is_empty() {
        return Ok(None);
    }
    Ok(Some(Credentials {
        username,
        password,
        identitytoken: entry.identitytoken.clone(),
        serveraddress: registry.to_owned(),
    }))
}

async fn ask(helper: &str, registry: &str) -> Result<Option<Credentials>, RegistryError> {
    let name = format!("docker-credential-{helper}");
    ask_program(name.as_ref(), &name, registry).await
}

async fn ask_program(
    program: &OsStr,
    name: &str,
    registry: &str,
) -> Result<Option<Credentials>, RegistryError> {
    let failed = |reason: String| RegistryError::Helper {
        helper: name.to_owned(),
        registry: registry.to_owned(),
        reason,
    };
    let run = async {
        let mut child = tokio::process::Command::new(program)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut input) = child.stdin.take() {
            match input.write_all(registry.as_bytes()).await {
                // One that fails at once reads nothing, and says why.
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(HELPER_DEADLINE, run)
        .await
        .map_err(|_| failed(format!("no answer within {} s", HELPER_DEADLINE.as_secs())))?
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        // Helpers say why on their standard output.
        let reason = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if reason.contains(NOT_FOUND) {
            return Ok(None);
        }
        return Err(failed(reason));
    }
    let answer: Answer = serde_json::from_slice(&output.stdout)
        .map_err(|_| failed("its answer is malformed".to_owned()))?;
    // A user name of this form says that the secret is a token.
    let token = answer.username == "<token>";
    Ok(Some(Credentials {
        username: if token {
            String::new()
        } else {
            answer.username
        },
        password: if token {
            String::new()
        } else {
            answer.secret.clone()
        },
        identitytoken: if token { answer.secret } else { String::new() },
        serveraddress: registry.to_owned(),
    }))
}

fn encode(credentials: &Credentials) -> RegistryAuth {
    // Strings and nothing else: this cannot fail, and an empty object would be no secret.
    let json = serde_json::to_vec(credentials).unwrap_or_default();
    RegistryAuth(URL_SAFE.encode(json))
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
