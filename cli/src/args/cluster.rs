//! `init`, `join`, `leave`, `join-token`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use swarmlet_core::model::Role;

use super::daemon::{AvailabilityArg, DaemonFlags};

/// `swarmlet init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Address at which other nodes reach this one [default: that of --listen-addr, or the
    /// machine's only one]
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    pub(crate) advertise_addr: Option<String>,
    /// Whether the node takes tasks
    #[arg(long, value_enum, default_value = "active")]
    pub(crate) availability: AvailabilityArg,
    /// Ended tasks that are kept for each slot, and shown by `service ps`
    #[arg(
        long,
        default_value_t = 5,
        value_name = "N",
        conflicts_with = "force_new_cluster"
    )]
    pub(crate) task_history_limit: u32,
    /// How long a node is unknown before its tasks are replaced elsewhere
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "3s",
        value_parser = crate::values::duration,
        conflicts_with = "force_new_cluster"
    )]
    pub(crate) node_replace_delay: std::time::Duration,
    /// Go on with this manager alone, when most managers are lost for ever: services, tasks,
    /// workers and tokens stay, and the other managers are left behind
    #[arg(long, conflicts_with = "availability")]
    pub(crate) force_new_cluster: bool,
    #[command(flatten)]
    pub(crate) daemon: DaemonFlags,
}

/// `swarmlet join`.
#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// Managers to ask, by name or address, tried in turn [default port: 2377]
    #[arg(required = true, value_name = "HOST[:PORT]")]
    pub(crate) remotes: Vec<String>,
    /// Token that `swarmlet join-token` prints on a manager; it decides the role
    #[arg(long, required_unless_present = "token_file")]
    pub(crate) token: Option<String>,
    /// File that holds the token (other users of this machine can read a command line)
    #[arg(long, value_name = "PATH", conflicts_with = "token")]
    pub(crate) token_file: Option<PathBuf>,
    /// Address at which other nodes reach this one [default: that of --listen-addr, or the one
    /// from which the manager is reached]
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    pub(crate) advertise_addr: Option<String>,
    /// Whether the node takes tasks
    #[arg(long, value_enum, default_value = "active")]
    pub(crate) availability: AvailabilityArg,
    #[command(flatten)]
    pub(crate) daemon: DaemonFlags,
}

/// `swarmlet leave`.
#[derive(Debug, Args)]
pub(crate) struct LeaveArgs {
    /// Leave even if this node is a manager and the swarm or its state is lost by it
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// `swarmlet join-token`.
#[derive(Debug, Args)]
pub(crate) struct JoinTokenArgs {
    /// Replace the token; nodes that have joined stay
    #[arg(long)]
    pub(crate) rotate: bool,
    /// Print the token only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// What a node that joins with the token becomes
    #[arg(value_enum)]
    pub(crate) role: RoleArg,
}

/// Role of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleArg {
    /// Runs tasks
    Worker,
    /// Runs tasks and keeps a replica of the swarm's state
    Manager,
}

impl From<RoleArg> for Role {
    fn from(arg: RoleArg) -> Self {
        match arg {
            RoleArg::Worker => Self::Worker,
            RoleArg::Manager => Self::Manager,
        }
    }
}
