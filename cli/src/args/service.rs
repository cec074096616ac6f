//! `service create/ls/ps/inspect/scale/rm`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use swarmlet_core::model::{Constraint, ModeKind, Mount, Platform, PortSpec, Preference};

use super::{
    DryRunFlags, Filter, Format, ServiceFlags, ServiceLogsArgs, ServiceRollbackArgs,
    ServiceUpdateArgs,
};
use crate::values::{generic_resource, key_value, mount, platform, port};

/// Commands on services.
#[derive(Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    /// Create a service
    Create(Box<CreateArgs>),
    /// List services
    #[command(visible_alias = "list")]
    Ls(ServiceLsArgs),
    /// List the tasks of services
    Ps(ServicePsArgs),
    /// Show everything about services, as JSON or for people
    Inspect(ServiceInspectArgs),
    /// Set how many tasks services have
    Scale(ScaleArgs),
    /// Move tasks of services to nodes that have fewer of them
    Rebalance(RebalanceArgs),
    /// Change a service
    ///
    /// What is not named stays as it is: the defaults below are those of a new service. A change of
    /// what the tasks are made of replaces them, as the --update-* flags say.
    Update(Box<ServiceUpdateArgs>),
    /// Go back to the last version of a service whose deployment completed
    Rollback(ServiceRollbackArgs),
    /// Show what the tasks of a service have written
    Logs(ServiceLogsArgs),
    /// Remove services
    #[command(visible_alias = "remove")]
    Rm(ServiceRmArgs),
}

/// `service create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Name of the service [default: the image's, with a random end]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// How many tasks there are, and whether they are to end: replicated, global,
    /// replicated-job or global-job
    #[arg(long, default_value_t = ModeKind::Replicated, value_name = "MODE")]
    pub(crate) mode: ModeKind,
    /// Publish a port: PUBLISHED:TARGET, such as 8080:80, or TARGET alone for a free published
    /// port of 30000-32767; in long form published=8080,target=80,protocol=tcp,mode=ingress|host.
    /// Options behind either: proxy-protocol=v1|v2 (tasks are told whose connection it is) and
    /// accept-proxy=NETWORK, also repeated (clients there must tell): 80:80,proxy-protocol=v2
    #[arg(short, long, value_name = "PORT", value_parser = port)]
    pub(crate) publish: Vec<PortSpec>,
    /// Set an environment variable; a bare NAME takes its value from this shell
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "PATH")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Mount a file system: type=bind|volume|tmpfs,source=…,target=…,readonly
    #[arg(long, value_name = "MOUNT", value_parser = mount)]
    pub(crate) mount: Vec<Mount>,
    /// Label of the service
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) label: Vec<(String, String)>,
    /// Label of the containers
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) container_label: Vec<(String, String)>,
    /// Place tasks only on nodes for which this holds: node.labels.zone==a, node.role!=manager
    #[arg(long, value_name = "CONSTRAINT")]
    pub(crate) constraint: Vec<Constraint>,
    /// Spread tasks over the values of an attribute: spread=node.labels.zone
    #[arg(long, value_name = "PREFERENCE")]
    pub(crate) placement_pref: Vec<Preference>,
    /// Place tasks only on nodes of this platform: linux/arm64
    #[arg(long, value_name = "OS[/ARCH]", value_parser = platform)]
    pub(crate) platform: Vec<Platform>,
    /// Resource that a node must have free for a task: gpu=2
    #[arg(long, value_name = "KIND=N", value_parser = generic_resource)]
    pub(crate) generic_resource: Vec<(String, u64)>,
    #[command(flatten)]
    pub(crate) flags: ServiceFlags,
    /// Image (process runtime: path of an executable), and arguments for it
    #[arg(required = true, trailing_var_arg = true, value_names = ["IMAGE", "ARG"], num_args = 1..)]
    pub(crate) image: Vec<String>,
}

/// `service ls`.
#[derive(Debug, Args)]
pub(crate) struct ServiceLsArgs {
    /// Show only services with id=, name=, label=, mode=
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<Filter>,
    /// Print ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print as table or json
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,
}

/// `service ps`.
#[derive(Debug, Args)]
pub(crate) struct ServicePsArgs {
    /// Show only tasks with id=, name=, node=, desired-state=
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
    /// Id, beginning of an id, or name
    #[arg(required = true, value_name = "SERVICE")]
    pub(crate) services: Vec<String>,
}

/// `service inspect`.
#[derive(Debug, Args)]
pub(crate) struct ServiceInspectArgs {
    /// Print for people
    #[arg(long)]
    pub(crate) pretty: bool,
    /// Print as table (for people) or json
    #[arg(long, value_enum, default_value = "json", conflicts_with = "pretty")]
    pub(crate) format: Format,
    /// Id, beginning of an id, or name
    #[arg(required = true, value_name = "SERVICE")]
    pub(crate) services: Vec<String>,
}

/// `service scale`.
#[derive(Debug, Args)]
pub(crate) struct ScaleArgs {
    #[command(flatten)]
    pub(crate) plan: DryRunFlags,
    /// Return at once instead of waiting until the tasks run
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Services and how many tasks each is to have
    #[arg(required = true, value_name = "SERVICE=REPLICAS", value_parser = scale)]
    pub(crate) services: Vec<(String, u32)>,
}

fn scale(text: &str) -> Result<(String, u32), String> {
    let (name, replicas) = text
        .split_once('=')
        .ok_or("invalid scale specifier: expected SERVICE=REPLICAS")?;
    let replicas = replicas
        .parse()
        .map_err(|_| format!("invalid replicas value {replicas}: expected a whole number"))?;
    Ok((name.to_owned(), replicas))
}

/// `service rebalance`.
#[derive(Debug, Args)]
pub(crate) struct RebalanceArgs {
    #[command(flatten)]
    pub(crate) plan: DryRunFlags,
    /// Return at once instead of waiting until the tasks have moved
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Do not show progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Id, beginning of an id, or name [default: all services]
    #[arg(value_name = "SERVICE")]
    pub(crate) services: Vec<String>,
}

/// `service rm`.
#[derive(Debug, Args)]
pub(crate) struct ServiceRmArgs {
    /// Id, beginning of an id, or name
    #[arg(required = true, value_name = "SERVICE")]
    pub(crate) services: Vec<String>,
}
