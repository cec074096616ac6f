//! `service logs` and `task logs`.

use clap::{Args, Subcommand};

use super::Format;
use crate::values::{Tail, moment, tail};

/// Commands on tasks.
#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    /// Show what a task has written
    Logs(TaskLogsArgs),
}

/// `service logs`.
#[derive(Debug, Args)]
pub(crate) struct ServiceLogsArgs {
    #[command(flatten)]
    pub(crate) flags: LogFlags,
    /// Id, beginning of an id, or name of a service, or of a task
    #[arg(value_name = "SERVICE|TASK")]
    pub(crate) target: String,
}

/// `task logs`.
#[derive(Debug, Args)]
pub(crate) struct TaskLogsArgs {
    #[command(flatten)]
    pub(crate) flags: LogFlags,
    /// Id, beginning of an id, or name (SERVICE.SLOT.ID) of a task
    #[arg(value_name = "TASK")]
    pub(crate) target: String,
}

/// Which lines, and how they look.
#[derive(Debug, Clone, Args)]
pub(crate) struct LogFlags {
    /// Go on with what is written from now on, by new tasks as well
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Show lines from this moment on: 2026-11-23T12:00:00Z, or 42m for that long ago (UTC where
    /// no zone is named)
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) since: Option<u64>,
    /// Show lines up to this moment
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) until: Option<u64>,
    /// How many lines to show from the end of each task's log
    #[arg(short = 'n', long, value_name = "N", default_value = "all", value_parser = tail)]
    pub(crate) tail: Tail,
    /// Show when each line was written
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    /// Show what the logging driver was told to add to each line
    #[arg(long)]
    pub(crate) details: bool,
    /// Show the lines as they were written
    #[arg(long)]
    pub(crate) raw: bool,
    /// Do not shorten task ids
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Do not show task ids
    #[arg(long)]
    pub(crate) no_task_ids: bool,
    /// Show ids instead of the names of services and nodes
    #[arg(long)]
    pub(crate) no_resolve: bool,
    /// Print as table (lines for people) or json
    #[arg(long, value_enum, default_value = "table", conflicts_with = "raw")]
    pub(crate) format: Format,
}
