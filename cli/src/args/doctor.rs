//! `doctor`.

use std::path::PathBuf;

use clap::Args;

use super::Format;
use super::daemon::DaemonFlags;

/// `swarmlet doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print as table or json
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,
    /// Manager that this host is to join: also look whether it can be reached
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) join: Vec<String>,
    /// Token to join with: also look at the clocks, and have the manager try this host's ports
    #[arg(long, requires = "join")]
    pub(crate) token: Option<String>,
    /// File that holds the token (other users of this machine can read a command line)
    #[arg(long, value_name = "PATH", conflicts_with = "token", requires = "join")]
    pub(crate) token_file: Option<PathBuf>,
    /// Address that `join` would be told to advertise: the manager tries the ports there
    /// [default: that of --listen-addr, or the one from which the manager is reached]
    #[arg(long, value_name = "ADDRESS[:PORT]", requires = "join")]
    pub(crate) advertise_addr: Option<String>,
    #[command(flatten)]
    pub(crate) daemon: DaemonFlags,
}
