//! The command line as clap sees it: what may be written, and how it is explained.
//!
//! Each group of commands has a file. Nothing here asks the cluster; what a text means as a
//! value is in [`crate::values`], and what a command does in [`crate::commands`].

mod balancer;
mod check;
mod cluster;
mod daemon;
mod doctor;
mod install;
mod lb;
mod logs;
mod node;
mod plan;
mod service;
mod settings;
mod update;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use balancer::{BalancerFlags, Wish};
pub(crate) use check::CheckFlags;
pub(crate) use cluster::{InitArgs, JoinArgs, JoinTokenArgs, LeaveArgs, RoleArg};
pub(crate) use daemon::{DaemonArgs, DaemonFlags, DemoArgs, RuntimeArg, ShimArgs, WhoamiArgs};
pub(crate) use doctor::DoctorArgs;
pub(crate) use install::{InstallArgs, UninstallArgs};
pub(crate) use lb::{LbArgs, LbCommand, LbRestartArgs, LbStatusArgs};
pub(crate) use logs::{LogFlags, ServiceLogsArgs, TaskCommand, TaskLogsArgs};
pub(crate) use node::{
    NodeCommand, NodeInspectArgs, NodeLsArgs, NodePsArgs, NodeRmArgs, NodeRoleArgs, NodeUpdateArgs,
};
pub(crate) use plan::DryRunFlags;
pub(crate) use service::{
    CreateArgs, RebalanceArgs, ScaleArgs, ServiceCommand, ServiceInspectArgs, ServiceLsArgs,
    ServicePsArgs, ServiceRmArgs,
};
pub(crate) use settings::{LbPolicyArg, RestartConditionArg, ServiceFlags};
pub(crate) use update::{RollbackFlags, ServiceRollbackArgs, ServiceUpdateArgs, UpdateFlags};

/// Turns a handful of Linux hosts into one.
///
/// Containers run anywhere, and every host answers for all of them.
#[derive(Debug, Parser)]
#[command(
    name = "swarmlet",
    version,
    propagate_version = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Socket of this node's daemon
    #[arg(
        long,
        global = true,
        env = "SWARMLET_SOCKET",
        value_name = "PATH",
        default_value = "/run/swarmlet/swarmlet.sock",
        hide_env_values = true,
        help_heading = "Global options"
    )]
    pub(crate) socket: PathBuf,
}

/// Every command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Initialize a swarm
    Init(Box<InitArgs>),
    /// Join a swarm as a worker or manager, whichever the token is for
    Join(Box<JoinArgs>),
    /// Leave the swarm
    Leave(LeaveArgs),
    /// Show or rotate the token that lets nodes join
    JoinToken(JoinTokenArgs),
    /// Show this node: its swarm, role, address and runtime, and its daemon
    Info(InfoArgs),
    /// Say what is wrong with this host, its node and its swarm, and what to do about it
    Doctor(Box<DoctorArgs>),
    /// Manage nodes
    #[command(subcommand)]
    Node(NodeCommand),
    /// Manage services
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Look at tasks
    #[command(subcommand)]
    Task(TaskCommand),
    /// Run three nodes on this machine and show what they do
    Demo(DemoArgs),
    /// Print the completion script for a shell
    Completion(CompletionArgs),
    /// Install swarmlet on this machine, as a service of systemd
    Install(InstallArgs),
    /// Remove what `install` has installed, and end what runs of it
    Uninstall(UninstallArgs),
    /// Run this node's daemon in the foreground
    Daemon(Box<DaemonArgs>),
    /// End daemon, balancer and tasks of this machine's node (packages do so when removed)
    #[command(hide = true)]
    Halt,
    /// Look at this node's balancer, or run one by itself over endpoints in a file
    Lb(LbArgs),
    /// Answer HTTP requests with the host name
    #[command(hide = true)]
    Whoami(WhoamiArgs),
    /// Hold a task of the process runtime (the agent starts it)
    #[command(hide = true)]
    Shim(ShimArgs),
}

impl Command {
    /// Whether it is only asked what would happen.
    pub(crate) fn is_dry_run(&self) -> bool {
        let flags = match self {
            Self::Service(ServiceCommand::Create(args)) => &args.flags.plan,
            Self::Service(ServiceCommand::Update(args)) => &args.flags.plan,
            Self::Service(ServiceCommand::Rollback(args)) => &args.plan,
            Self::Service(ServiceCommand::Scale(args)) => &args.plan,
            Self::Service(ServiceCommand::Rebalance(args)) => &args.plan,
            Self::Node(NodeCommand::Update(args)) => &args.plan,
            _ => return false,
        };
        flags.dry_run
    }
}

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people
    Table,
    /// One JSON object to a line
    Json,
}

/// `swarmlet info`.
#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// Print as table or json
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,
}

/// `swarmlet completion`.
#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    /// Shell to print the script for
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// A filter of a list, `KEY=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    /// What is looked at.
    pub(crate) key: String,
    /// What it should be.
    pub(crate) value: String,
}

impl std::str::FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text
            .split_once('=')
            .ok_or("invalid filter: expected KEY=VALUE")?;
        Ok(Self {
            key: key.trim().to_lowercase(),
            value: value.trim().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests;
