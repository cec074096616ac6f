//! What can be changed while a balancer runs, without touching a connection.

use serde::{Deserialize, Serialize};

use crate::{
    access::{AccessLog, Format},
    sources::SourceLimits,
};

/// Limits and the access log. What is `None` has its default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Client connections at once; more wait in the kernel's queue. `None`
    /// takes what the limit of open files allows.
    pub max_connections: Option<usize>,
    /// Bytes that one side has sent and the other did not take, over all
    /// connections. Past it those that hold the most are reset. `None` takes
    /// [`Settings::DEFAULT_MAX_BUFFERED`].
    pub max_buffered: Option<usize>,
    /// What one source may do. Connections that were there before it was limited
    /// are not counted.
    pub per_source: SourceLimits,
    /// Where a line for each connection goes. `None`: nowhere.
    pub access_log: Option<AccessLog>,
}

impl Settings {
    /// 256 MiB: what 16,384 connections hold, each with 16 KiB that its reader
    /// does not take.
    pub const DEFAULT_MAX_BUFFERED: usize = 256 << 20;

    pub(crate) fn buffered(&self) -> usize {
        self.max_buffered.unwrap_or(Self::DEFAULT_MAX_BUFFERED)
    }
}

/// The settings that a balancer works by, its defaults filled in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InForce {
    /// Client connections at once.
    pub max_connections: u64,
    /// Bytes held over all connections.
    pub max_buffered: u64,
    /// What one source may do.
    pub per_source: SourceLimits,
    /// Where a line for each connection goes.
    pub access_log: Option<AccessLogState>,
}

/// An access log at work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessLogState {
    /// The file.
    pub path: std::path::PathBuf,
    /// How a record looks.
    pub format: Format,
    /// Why nothing can be written at present; it is tried again each second.
    pub error: Option<String>,
}
