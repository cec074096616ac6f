//! `node ls/inspect/ps/update/rm`.

use clap::{Args, Subcommand};

use super::RoleArg;
use super::daemon::AvailabilityArg;
use super::{DryRunFlags, Filter, Format};
use crate::values::key_value;

/// Commands on nodes.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List nodes
    #[command(visible_alias = "list")]
    Ls(NodeLsArgs),
    /// Show everything about nodes, as JSON or for people
    Inspect(NodeInspectArgs),
    /// List the tasks on nodes
    Ps(NodePsArgs),
    /// Change a node's availability, labels or role
    Update(NodeUpdateArgs),
    /// Make workers managers
    Promote(NodeRoleArgs),
    /// Make managers workers
    Demote(NodeRoleArgs),
    /// Forget nodes that are down
    #[command(visible_alias = "remove")]
    Rm(NodeRmArgs),
}

/// `node ls`.
#[derive(Debug, Args)]
pub(crate) struct NodeLsArgs {
    /// Show only nodes with id=, name=, role=, availability=, node.label=, label= (of the
    /// engine), membership=
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<Filter>,
    /// Print ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print as table or json
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,
}

/// `node inspect`.
#[derive(Debug, Args)]
pub(crate) struct NodeInspectArgs {
    /// Print for people
    #[arg(long)]
    pub(crate) pretty: bool,
    /// Print as table (for people) or json
    #[arg(long, value_enum, default_value = "json", conflicts_with = "pretty")]
    pub(crate) format: Format,
    /// Id, beginning of an id, host name, or "self"
    #[arg(required = true, value_name = "NODE")]
    pub(crate) nodes: Vec<String>,
}

/// `node ps`.
#[derive(Debug, Args)]
pub(crate) struct NodePsArgs {
    /// Show only tasks with id=, name=, desired-state=
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<Filter>,
    /// Do not shorten ids, errors and images
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Print ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print as table or json
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,
    /// Id, beginning of an id, host name, or "self"
    #[arg(default_value = "self", value_name = "NODE")]
    pub(crate) nodes: Vec<String>,
}

/// `node update`.
#[derive(Debug, Args)]
pub(crate) struct NodeUpdateArgs {
    #[command(flatten)]
    pub(crate) plan: DryRunFlags,
    /// Whether the node takes tasks
    #[arg(long, value_enum)]
    pub(crate) availability: Option<AvailabilityArg>,
    /// What the node is: a manager decides, every node runs tasks
    #[arg(long, value_enum)]
    pub(crate) role: Option<RoleArg>,
    /// Add or change a label of the node
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) label_add: Vec<(String, String)>,
    /// Remove a label of the node
    #[arg(long, value_name = "KEY")]
    pub(crate) label_rm: Vec<String>,
    /// Id, beginning of an id, host name, or "self"
    #[arg(value_name = "NODE")]
    pub(crate) node: String,
}

/// `node promote` and `node demote`.
#[derive(Debug, Args)]
pub(crate) struct NodeRoleArgs {
    /// Id, beginning of an id, host name, or "self"
    #[arg(required = true, value_name = "NODE")]
    pub(crate) nodes: Vec<String>,
}

/// `node rm`.
#[derive(Debug, Args)]
pub(crate) struct NodeRmArgs {
    /// Remove nodes that are not down, and managers, too
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Id, beginning of an id, or host name
    #[arg(required = true, value_name = "NODE")]
    pub(crate) nodes: Vec<String>,
}
