//! `service create/ls/ps/inspect/scale/rm`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use swarmlet_core::model::{Constraint, ContainerSpec, Mount, PortSpec, ServiceSpec};

use super::{Filter, Format, RollbackFlags, ServiceRollbackArgs, ServiceUpdateArgs, UpdateFlags};
use crate::values::{duration, key_value, memory, mount, nano_cpus, port};

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
    /// Show everything about services
    Inspect(ServiceInspectArgs),
    /// Set how many tasks services have
    Scale(ScaleArgs),
    /// Change a service
    Update(Box<ServiceUpdateArgs>),
    /// Go back to the last version of a service whose deployment completed
    Rollback(ServiceRollbackArgs),
    /// Remove services
    #[command(visible_alias = "remove")]
    Rm(ServiceRmArgs),
}

/// `service create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Name of the service [default: a random one]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Number of tasks
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) replicas: u32,
    /// How many tasks there are: only "replicated" for now
    #[arg(long, default_value = "replicated", value_parser = ["replicated"])]
    pub(crate) mode: String,
    /// Publish a port: 80:80, 8080:80/tcp or published=8080,target=80,mode=host,protocol=tcp
    #[arg(short, long, value_name = "PORT", value_parser = port)]
    pub(crate) publish: Vec<PortSpec>,
    /// Set an environment variable; a bare NAME takes its value from here
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
    /// Place tasks only on nodes for which this holds: node.labels.zone==a
    #[arg(long, value_name = "CONSTRAINT")]
    pub(crate) constraint: Vec<Constraint>,
    /// The most CPUs a task may use
    #[arg(long, value_name = "CPUS", value_parser = nano_cpus)]
    pub(crate) limit_cpu: Option<u64>,
    /// The most memory a task may use
    #[arg(long, value_name = "BYTES", value_parser = memory)]
    pub(crate) limit_memory: Option<u64>,
    /// CPUs that a node must have free for a task
    #[arg(long, value_name = "CPUS", value_parser = nano_cpus)]
    pub(crate) reserve_cpu: Option<u64>,
    /// Memory that a node must have free for a task
    #[arg(long, value_name = "BYTES", value_parser = memory)]
    pub(crate) reserve_memory: Option<u64>,
    /// When a task that ended is replaced
    #[arg(long, value_enum, default_value = "any", value_name = "CONDITION")]
    pub(crate) restart_condition: RestartConditionArg,
    /// Least time between the end of a task and its successor
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub(crate) restart_delay: Duration,
    /// Most restarts within the window, 0 for no limit
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) restart_max_attempts: u32,
    /// The time in which restarts are counted, 0s for ever
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub(crate) restart_window: Duration,
    /// Time a task has to finish before it is killed
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = duration,
        default_value = seconds(ContainerSpec::DEFAULT_STOP_GRACE_PERIOD)
    )]
    pub(crate) stop_grace_period: Duration,
    /// Signal that asks a task to finish
    #[arg(long, value_name = "SIGNAL")]
    pub(crate) stop_signal: Option<String>,
    /// Time that connections of a task have to end before it is stopped
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = duration,
        default_value = seconds(ServiceSpec::DEFAULT_DRAIN_TIMEOUT)
    )]
    pub(crate) drain_timeout: Duration,
    /// Command that checks the health of a container
    #[arg(long, value_name = "COMMAND")]
    pub(crate) health_cmd: Option<String>,
    /// Time between two checks
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) health_interval: Option<Duration>,
    /// Time one check may take
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) health_timeout: Option<Duration>,
    /// Failures do not count this long after the start
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) health_start_period: Option<Duration>,
    /// Failures in a row that make a container unhealthy
    #[arg(long, value_name = "N")]
    pub(crate) health_retries: Option<u32>,
    /// Use no health check, not even the image's
    #[arg(long)]
    pub(crate) no_healthcheck: bool,
    /// Host name of the containers
    #[arg(long)]
    pub(crate) hostname: Option<String>,
    /// User and group to run as (NAME|UID[:GROUP|GID])
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// Working directory
    #[arg(short, long, value_name = "PATH")]
    pub(crate) workdir: Option<String>,
    /// Replaces the image's entrypoint; split at spaces as a shell does
    #[arg(long, value_name = "COMMAND")]
    pub(crate) entrypoint: Option<String>,
    #[command(flatten)]
    pub(crate) update_config: UpdateFlags,
    #[command(flatten)]
    pub(crate) rollback_config: RollbackFlags,
    /// Send this machine's registry credentials to the nodes
    #[arg(long)]
    pub(crate) with_registry_auth: bool,
    /// Return at once instead of waiting until the tasks run
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Do not show progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Image (process runtime: path of an executable), and arguments for it
    #[arg(required = true, trailing_var_arg = true, value_names = ["IMAGE", "ARG"], num_args = 1..)]
    pub(crate) image: Vec<String>,
}

fn seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs())
}

/// Which ends of a task call for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RestartConditionArg {
    /// No end
    None,
    /// An end with a failure
    OnFailure,
    /// Every end
    Any,
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
    /// Do not shorten ids and errors
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

/// `service rm`.
#[derive(Debug, Args)]
pub(crate) struct ServiceRmArgs {
    /// Id, beginning of an id, or name
    #[arg(required = true, value_name = "SERVICE")]
    pub(crate) services: Vec<String>,
}
