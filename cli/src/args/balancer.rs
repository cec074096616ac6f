//! How a node's balancer is to run: options of its daemon.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use swarmlet_lb::access::Format;

use crate::values;

/// A value, or the word that brings the default back: a setting that is left out keeps what it
/// was at the daemon's last run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish<T> {
    Default,
    Value(T),
}

/// What brings a default back.
const DEFAULT: &str = "default";

/// Limits and the access log of a node's balancer.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Daemon options")]
pub(crate) struct BalancerFlags {
    /// Connections of clients at once, over all published ports; more wait
    /// [default: what the limit of open files allows]
    #[arg(
        long,
        env = "SWARMLET_LB_MAX_CONNECTIONS",
        value_name = "N",
        value_parser = count::<usize>,
        hide_env_values = true
    )]
    pub(crate) lb_max_connections: Option<Wish<usize>>,
    /// Memory for bytes that one side has sent and the other does not take; past it the
    /// connections that hold the most are reset [default: 256m]
    #[arg(
        long,
        env = "SWARMLET_LB_MAX_BUFFERED",
        value_name = "BYTES",
        value_parser = bytes,
        hide_env_values = true
    )]
    pub(crate) lb_max_buffered: Option<Wish<usize>>,
    /// Connections of one client at a time; more are reset [default: no limit]
    #[arg(
        long,
        env = "SWARMLET_LB_MAX_CONNECTIONS_PER_SOURCE",
        value_name = "N",
        value_parser = count::<u32>,
        hide_env_values = true
    )]
    pub(crate) lb_max_connections_per_source: Option<Wish<u32>>,
    /// New connections of one client in a second; more are reset [default: no limit]
    #[arg(
        long,
        env = "SWARMLET_LB_MAX_RATE_PER_SOURCE",
        value_name = "N",
        value_parser = count::<u32>,
        hide_env_values = true
    )]
    pub(crate) lb_max_rate_per_source: Option<Wish<u32>>,
    /// File that gets a line for each connection through a published port [default: none]
    #[arg(
        long,
        env = "SWARMLET_LB_ACCESS_LOG",
        value_name = "PATH",
        value_parser = file,
        hide_env_values = true
    )]
    pub(crate) lb_access_log: Option<Wish<PathBuf>>,
    /// How such a line looks: line or json [default: line]
    #[arg(
        long,
        env = "SWARMLET_LB_ACCESS_LOG_FORMAT",
        value_name = "FORMAT",
        value_parser = format,
        hide_env_values = true
    )]
    pub(crate) lb_access_log_format: Option<Wish<Format>>,
}

impl BalancerFlags {
    /// The same settings as arguments for a daemon that is to be started with them.
    pub(super) fn to_args(&self) -> Vec<OsString> {
        let mut args = Vec::new();
        let mut add = |flag: &str, value: Option<OsString>| {
            if let Some(value) = value {
                args.extend([OsString::from(flag), value]);
            }
        };
        let count = self.lb_max_connections.map(text);
        add("--lb-max-connections", count);
        add("--lb-max-buffered", self.lb_max_buffered.map(text));
        let count = self.lb_max_connections_per_source.map(text);
        add("--lb-max-connections-per-source", count);
        let count = self.lb_max_rate_per_source.map(text);
        add("--lb-max-rate-per-source", count);
        let path = self.lb_access_log.clone().map(|wish| match wish {
            Wish::Default => DEFAULT.into(),
            Wish::Value(path) => path.into_os_string(),
        });
        add("--lb-access-log", path);
        let format = self.lb_access_log_format.map(|wish| match wish {
            Wish::Default => DEFAULT.into(),
            Wish::Value(Format::Line) => "line".into(),
            Wish::Value(Format::Json) => "json".into(),
        });
        add("--lb-access-log-format", format);
        args
    }
}

fn text<T: fmt::Display>(wish: Wish<T>) -> OsString {
    match wish {
        Wish::Default => DEFAULT.into(),
        Wish::Value(value) => value.to_string().into(),
    }
}

/// The empty text is how a variable of a file is taken back.
fn wish<T>(text: &str, value: impl FnOnce(&str) -> Result<T, String>) -> Result<Wish<T>, String> {
    match text {
        "" | DEFAULT => Ok(Wish::Default),
        text => value(text).map(Wish::Value),
    }
}

fn count<T: FromStr + Default + PartialEq>(text: &str) -> Result<Wish<T>, String> {
    wish(text, |text| {
        let count = text.parse().ok().filter(|count| *count != T::default());
        count.ok_or_else(|| "expected a whole number from 1 on, or \"default\"".to_owned())
    })
}

fn bytes(text: &str) -> Result<Wish<usize>, String> {
    wish(text, |text| {
        let bytes = usize::try_from(values::memory(text)?).ok();
        bytes
            .filter(|bytes| *bytes > 0)
            .ok_or_else(|| "expected an amount such as 256m, or \"default\"".to_owned())
    })
}

/// The balancer has another working directory than who types this.
fn file(text: &str) -> Result<Wish<PathBuf>, String> {
    wish(text, |text| {
        let path = PathBuf::from(text);
        match path.is_absolute() && !text.ends_with('/') {
            true => Ok(path),
            false => {
                Err("expected the absolute path of a file, or \"default\" for none".to_owned())
            }
        }
    })
}

fn format(text: &str) -> Result<Wish<Format>, String> {
    wish(text, |text| match text {
        "line" => Ok(Format::Line),
        "json" => Ok(Format::Json),
        _ => Err("expected line or json".to_owned()),
    })
}
