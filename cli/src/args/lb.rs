//! `lb`: the balancer by itself, and what can be asked of this node's.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::Format;
use crate::values;

/// `swarmlet lb`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    // Whoever asks for nothing is told of all that there is, and not of --config alone.
    arg_required_else_help = true
)]
pub(crate) struct LbArgs {
    #[command(subcommand)]
    pub(crate) command: Option<LbCommand>,
    /// Run a balancer over the listeners and endpoints of this TOML file; SIGHUP has it read again
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "control",
        conflicts_with_all = ["ingress_addr", "detached"]
    )]
    pub(crate) config: Option<PathBuf>,
    /// Replace the balancer that runs at the file's control socket, without refusing a
    /// connection; it ends with the connections that it has
    #[arg(long, requires = "config")]
    pub(crate) takeover: bool,
    /// Socket on which it takes tables of a daemon
    #[arg(long, value_name = "PATH", hide = true, conflicts_with = "config")]
    pub(crate) control: Option<PathBuf>,
    /// Address on which published ports answer [default: all, IPv4 and IPv6]
    #[arg(long, value_name = "ADDRESS", hide = true)]
    pub(crate) ingress_addr: Vec<IpAddr>,
    /// Run in a session of its own, so that it outlives the daemon
    #[arg(long, hide = true)]
    pub(crate) detached: bool,
}

/// What can be asked of a balancer that runs.
#[derive(Debug, Subcommand)]
pub(crate) enum LbCommand {
    /// Show what this node's balancer listens on, and how its endpoints are
    Status(LbStatusArgs),
    /// Replace this node's balancer by a new process, without refusing a connection
    Restart(LbRestartArgs),
}

/// `swarmlet lb status`.
#[derive(Debug, Args)]
pub(crate) struct LbStatusArgs {
    /// Print as table or json
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,
    /// Ask the balancer at this control socket instead of the daemon's
    #[arg(long, value_name = "PATH")]
    pub(crate) control: Option<PathBuf>,
}

/// `swarmlet lb restart`.
#[derive(Debug, Args)]
pub(crate) struct LbRestartArgs {
    /// Time for the connections of the process that is replaced [default: 1h]
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub(crate) drain_timeout: Option<Duration>,
}
