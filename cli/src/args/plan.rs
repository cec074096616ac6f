//! `--dry-run`.

use clap::Args;

use super::Format;

/// Flags of a command that can say what it would do.
#[derive(Debug, Clone, Args)]
pub(crate) struct DryRunFlags {
    /// Show what would happen and change nothing; exit code 0: nothing, 1: something, 255: error
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print the plan as table or json [default: table]
    #[arg(long, value_enum, requires = "dry_run")]
    pub(crate) format: Option<Format>,
}
