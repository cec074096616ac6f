//! `install`, `uninstall`, and `halt`, which the latter and packages use.

use clap::Args;

/// `swarmlet install`.
#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    /// Print the files that would be written, and change nothing
    #[arg(long)]
    pub(crate) print: bool,
    /// Start the daemon only at the next boot, or by hand
    #[arg(long)]
    pub(crate) no_start: bool,
}

/// `swarmlet uninstall`.
#[derive(Debug, Args)]
pub(crate) struct UninstallArgs {
    /// Remove the settings and the node's state, too
    #[arg(long)]
    pub(crate) purge: bool,
    /// Purge even if the node belongs to a swarm
    #[arg(short, long, requires = "purge")]
    pub(crate) force: bool,
}
