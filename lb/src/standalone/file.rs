//! The configuration file: its format, and where its flaws are.

use std::{
    net::{IpAddr, SocketAddr},
    num::{NonZeroU16, NonZeroU32, NonZeroUsize},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use toml::Spanned;

use super::{FileError, flaw, page};
use crate::{
    access::AccessLog,
    network::Network,
    proxy,
    run::{Config, Timeouts},
    settings::Settings,
    sources::SourceLimits,
    table::{Endpoint, EndpointState, Listener, Policy, Table, TableError},
};

/// A file without flaws.
#[derive(Debug)]
pub(super) struct File {
    pub(super) fixed: Fixed,
    pub(super) settings: Settings,
    /// Where the page for Prometheus is.
    pub(super) metrics: Option<SocketAddr>,
    listeners: Vec<Listener>,
}

/// What is settled when the balancer starts.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Fixed {
    pub(super) control: Option<PathBuf>,
    ingress: Option<Vec<IpAddr>>,
    threads: Option<NonZeroUsize>,
    drain_timeout_ms: Option<u64>,
    timeouts: RawTimeouts,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    control: Option<PathBuf>,
    ingress: Option<Vec<IpAddr>>,
    threads: Option<NonZeroUsize>,
    max_connections: Option<NonZeroUsize>,
    max_buffered: Option<NonZeroUsize>,
    max_connections_per_source: Option<NonZeroU32>,
    max_rate_per_source: Option<NonZeroU32>,
    drain_timeout_ms: Option<u64>,
    access_log: Option<AccessLog>,
    #[serde(default, deserialize_with = "page::address")]
    metrics: Option<Spanned<SocketAddr>>,
    #[serde(default)]
    timeouts: RawTimeouts,
    #[serde(default)]
    listeners: Vec<Spanned<RawListener>>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTimeouts {
    connect_ms: Option<u64>,
    half_closed_ms: Option<u64>,
    idle_ms: Option<u64>,
    proxy_header_ms: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawListener {
    port: NonZeroU16,
    #[serde(default)]
    service: String,
    #[serde(default)]
    policy: Policy,
    #[serde(default)]
    prefer_local: bool,
    proxy_protocol: Option<proxy::Version>,
    #[serde(default)]
    accept_proxy: Vec<Network>,
    #[serde(default)]
    endpoints: Vec<Spanned<RawEndpoint>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEndpoint {
    address: SocketAddr,
    id: Option<String>,
    #[serde(default = "one")]
    weight: u32,
    #[serde(default)]
    local: bool,
    proxy_protocol: Option<proxy::Version>,
    #[serde(default)]
    draining: bool,
}

fn one() -> u32 {
    1
}

impl File {
    pub(super) fn read(path: &Path) -> Result<Self, FileError> {
        let text = std::fs::read_to_string(path).map_err(|source| FileError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text).map_err(|(at, reason)| FileError::Flaw {
            path: path.to_owned(),
            line: line_of(&text, at),
            reason,
        })
    }

    /// The offset of a flaw, and what it is.
    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let raw: RawFile = toml::from_str(text).map_err(|error| flaw::of(text, &error))?;
        let listeners: Vec<Listener> = raw.listeners.iter().map(listener).collect();
        let table = Table {
            version: 0,
            listeners: listeners.clone(),
            hosts: Vec::new(),
        };
        table
            .validate()
            .map_err(|error| (place_of(&error, &raw.listeners), in_a_file(&error)))?;
        if let Some(page) = &raw.metrics {
            apart(*page.get_ref(), raw.ingress.as_deref(), &listeners)
                .map_err(|reason| (page.span().start, reason))?;
        }
        Ok(Self {
            metrics: raw.metrics.map(Spanned::into_inner),
            fixed: Fixed {
                control: raw.control,
                ingress: raw.ingress,
                threads: raw.threads,
                drain_timeout_ms: raw.drain_timeout_ms,
                timeouts: raw.timeouts,
            },
            settings: Settings {
                max_connections: raw.max_connections.map(NonZeroUsize::get),
                max_buffered: raw.max_buffered.map(NonZeroUsize::get),
                per_source: SourceLimits {
                    connections: raw.max_connections_per_source.map(NonZeroU32::get),
                    rate: raw.max_rate_per_source.map(NonZeroU32::get),
                },
                access_log: raw.access_log,
            },
            listeners,
        })
    }

    pub(super) fn config(&self) -> Config {
        let (fixed, settings) = (&self.fixed, &self.settings);
        let mut config = Config::new(fixed.control.clone().unwrap_or_default());
        if let Some(ingress) = &fixed.ingress {
            config.ingress.clone_from(ingress);
        }
        config.threads = fixed.threads.map(NonZeroUsize::get);
        config.max_connections = settings.max_connections;
        config.max_buffered = settings.buffered();
        config.per_source = settings.per_source;
        config.access_log.clone_from(&settings.access_log);
        let set = |timeout: &mut Duration, ms: Option<u64>| {
            if let Some(ms) = ms {
                *timeout = Duration::from_millis(ms);
            }
        };
        set(&mut config.drain_timeout, fixed.drain_timeout_ms);
        let Timeouts {
            connect,
            half_closed,
            idle,
            proxy_header,
            ..
        } = &mut config.timeouts;
        set(connect, fixed.timeouts.connect_ms);
        set(half_closed, fixed.timeouts.half_closed_ms);
        set(idle, fixed.timeouts.idle_ms);
        set(proxy_header, fixed.timeouts.proxy_header_ms);
        config
    }

    pub(super) fn table(&self, version: u64) -> Table {
        Table {
            version,
            listeners: self.listeners.clone(),
            hosts: Vec::new(),
        }
    }
}

fn listener(raw: &Spanned<RawListener>) -> Listener {
    let raw = raw.get_ref();
    Listener {
        port: raw.port.get(),
        service: raw.service.clone(),
        policy: raw.policy,
        prefer_local: raw.prefer_local,
        accept_proxy: raw.accept_proxy.clone(),
        endpoints: raw
            .endpoints
            .iter()
            .map(|endpoint| Endpoint {
                proxy_protocol: endpoint.get_ref().proxy_protocol.or(raw.proxy_protocol),
                ..self::endpoint(endpoint)
            })
            .collect(),
    }
}

fn endpoint(raw: &Spanned<RawEndpoint>) -> Endpoint {
    let raw = raw.get_ref();
    Endpoint {
        id: raw.id.clone().unwrap_or_else(|| raw.address.to_string()),
        address: raw.address,
        weight: raw.weight,
        local: raw.local,
        proxy_protocol: raw.proxy_protocol,
        state: if raw.draining {
            EndpointState::Draining
        } else {
            EndpointState::Ready
        },
        host: None,
    }
}

/// The page for Prometheus may not be where clients go.
fn apart(
    page: SocketAddr,
    ingress: Option<&[IpAddr]>,
    listeners: &[Listener],
) -> Result<(), String> {
    let is_on = |ingress: &[IpAddr]| {
        let mut ingress = ingress.iter();
        page.ip().is_unspecified() || ingress.any(|ip| ip.is_unspecified() || *ip == page.ip())
    };
    if listeners.iter().any(|one| one.port == page.port()) && ingress.is_none_or(is_on) {
        return Err(format!(
            "metrics = \"{page}\": a listener has port {}, choose another",
            page.port()
        ));
    }
    Ok(())
}

/// Services in a file may have no names to tell them apart by.
fn in_a_file(error: &TableError) -> String {
    match error {
        TableError::DuplicatePort { port, .. } => {
            format!("port = {port}: another listener before this one has the same port")
        }
        other => other.to_string(),
    }
}

/// Where in the file a flaw of the table is: with two that are in each other's
/// way, the later one.
fn place_of(error: &TableError, listeners: &[Spanned<RawListener>]) -> usize {
    let (port, id) = match error {
        // The file has neither.
        TableError::PortZero { .. }
        | TableError::DuplicateHost { .. }
        | TableError::UnknownHost { .. } => (0, None),
        TableError::DuplicatePort { port, .. } => (*port, None),
        TableError::WeightZero { port, id }
        | TableError::AddressWithoutPort { port, id, .. }
        | TableError::DuplicateEndpoint { port, id } => (*port, Some(id)),
    };
    let Some(listener) = listeners
        .iter()
        .rfind(|listener| listener.get_ref().port.get() == port)
    else {
        return 0;
    };
    let found = id.and_then(|id| {
        let endpoints = &listener.get_ref().endpoints;
        endpoints.iter().rfind(|one| endpoint(one).id == *id)
    });
    found.map_or(listener.span().start, |endpoint| endpoint.span().start)
}

fn line_of(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or_default();
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests;
