//! Checks that a task's node runs itself: they need no shell in the image.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

use super::time::nanoseconds;

/// How a node's agent finds out whether a task takes connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Check {
    /// What is asked.
    pub probe: Probe,
    /// Time from the start of one check to that of the next.
    #[serde(serialize_with = "nanoseconds")]
    pub interval: Duration,
    /// Time that one check may take.
    #[serde(serialize_with = "nanoseconds")]
    pub timeout: Duration,
    /// Passes in a row that make a task healthy.
    pub rise: u32,
    /// Failures in a row that make it unhealthy.
    pub fall: u32,
    /// Until this long after its start, failures of a task that never passed do not count.
    #[serde(serialize_with = "nanoseconds")]
    pub start_period: Duration,
}

impl Check {
    /// A check with the intervals and thresholds that stand where none are given: those of the
    /// balancer's own probes, and a minute for a slow program to start.
    #[must_use]
    pub fn new(probe: Probe) -> Self {
        Self {
            probe,
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
            start_period: Duration::from_secs(60),
        }
    }
}

/// What a check asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub enum Probe {
    /// `GET` of a path; a status of 200 to 399 passes.
    Http {
        /// Port of the container; the first published one where none is named.
        #[serde(rename = "Port")]
        port: Option<u16>,
        /// Path and query.
        #[serde(rename = "Path")]
        path: String,
    },
    /// A connection that is accepted passes.
    Tcp {
        /// Port of the container; the first published one where none is named.
        #[serde(rename = "Port")]
        port: Option<u16>,
    },
}

impl Probe {
    /// The port that is named.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Http { port, .. } | Self::Tcp { port } => *port,
        }
    }
}

/// `http /healthz`, `http 8080/healthz`, `tcp 6379`, as people read it.
impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = |port: &Option<u16>| port.map(|port| port.to_string()).unwrap_or_default();
        match self {
            Self::Http { port: named, path } => write!(f, "http {}{path}", port(named)),
            Self::Tcp { port: Some(named) } => write!(f, "tcp {named}"),
            Self::Tcp { port: None } => f.write_str("tcp"),
        }
    }
}

/// A text that is no port and path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid path {0:?} of a check: expected /PATH or PORT/PATH, such as /healthz or 8080/healthz"
)]
pub struct InvalidProbe(pub String);

impl Probe {
    /// An HTTP check from `/PATH` or `PORT/PATH`.
    ///
    /// # Errors
    /// [`InvalidProbe`] where it is neither, or has characters that a path must escape.
    pub fn http(text: &str) -> Result<Self, InvalidProbe> {
        let invalid = || InvalidProbe(text.to_owned());
        let slash = text.find('/').ok_or_else(invalid)?;
        let (port, path) = text.split_at(slash);
        let port = match port {
            "" => None,
            port => Some(u16::from_str(port).map_err(|_| invalid())?),
        };
        if !is_path(path) {
            return Err(invalid());
        }
        Ok(Self::Http {
            port,
            path: path.to_owned(),
        })
    }
}

/// Whether a text can stand as it is in the first line of a request.
pub(super) fn is_path(path: &str) -> bool {
    path.starts_with('/') && path.len() <= MAX_PATH && path.bytes().all(|b| b.is_ascii_graphic())
}

/// The longest path of a check, in bytes.
const MAX_PATH: usize = 1024;

/// What happens to a task that runs and turns unhealthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnhealthyAction {
    /// It is stopped and replaced, as Docker Swarm does.
    #[default]
    Restart,
    /// It gets no connections until it is healthy again, and runs on.
    Eject,
}

impl fmt::Display for UnhealthyAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Restart => "restart",
            Self::Eject => "eject",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_may_name_a_port() {
        let http = |port, path: &str| {
            Ok(Probe::Http {
                port,
                path: path.to_owned(),
            })
        };
        assert_eq!(Probe::http("/"), http(None, "/"));
        assert_eq!(Probe::http("/a?b=c"), http(None, "/a?b=c"));
        assert_eq!(Probe::http("8080/healthz"), http(Some(8080), "/healthz"));
        for text in [
            "",
            "healthz",
            "80000/x",
            "x/y",
            "/a b",
            "/a\r\nHost: x",
            "/ä",
        ] {
            assert_eq!(Probe::http(text), Err(InvalidProbe(text.to_owned())));
        }
    }
}
