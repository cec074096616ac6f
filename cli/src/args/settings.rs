//! What `service create` and `service update` have in common: each of these flags sets one field
//! of the specification, or leaves it as it is.

use std::time::Duration;

use clap::{Args, ValueEnum};
use swarmlet_core::model::Strategy;

use super::{CheckFlags, DryRunFlags, RollbackFlags, UpdateFlags};
use crate::values::{duration, key_value, memory, nano_cpus};

/// Settings of a service. All of them are optional: a new service begins with the defaults, one
/// that is updated with what it has.
#[derive(Debug, Args)]
pub(crate) struct ServiceFlags {
    /// Number of tasks; of a replicated-job, those that are to complete [default: 1]
    #[arg(long, value_name = "N")]
    pub(crate) replicas: Option<u32>,
    /// Tasks of a replicated-job that run at the same time, 0 for all [default: all]
    #[arg(long, value_name = "N")]
    pub(crate) max_concurrent: Option<u32>,
    /// The most CPUs a task may use, such as 0.5; 0 for no limit [default: 0]
    #[arg(long, value_name = "CPUS", value_parser = nano_cpus)]
    pub(crate) limit_cpu: Option<u64>,
    /// The most memory a task may use, such as 512m; 0 for no limit [default: 0]
    #[arg(long, value_name = "BYTES", value_parser = memory)]
    pub(crate) limit_memory: Option<u64>,
    /// CPUs that a node must have free for a task [default: 0]
    #[arg(long, value_name = "CPUS", value_parser = nano_cpus)]
    pub(crate) reserve_cpu: Option<u64>,
    /// Memory that a node must have free for a task [default: 0]
    #[arg(long, value_name = "BYTES", value_parser = memory)]
    pub(crate) reserve_memory: Option<u64>,
    /// The most processes and threads a task may have, 0 for no limit [default: 0]
    #[arg(long, value_name = "N")]
    pub(crate) limit_pids: Option<u64>,
    /// The most tasks of the service on one node, 0 for no limit [default: 0]
    #[arg(long, value_name = "N")]
    pub(crate) replicas_max_per_node: Option<u32>,
    /// Which of the nodes that have room is preferred [default: spread]
    #[arg(long, value_enum, value_name = "STRATEGY")]
    pub(crate) placement_strategy: Option<StrategyArg>,
    /// When a task that ended is replaced [default: any; of jobs: on-failure]
    #[arg(long, value_enum, value_name = "CONDITION")]
    pub(crate) restart_condition: Option<RestartConditionArg>,
    /// Least time between the end of a task and its successor, which waits longer after repeated
    /// failures [default: 0s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) restart_delay: Option<Duration>,
    /// Most restarts within the window, 0 for no limit [default: 0]
    #[arg(long, value_name = "N")]
    pub(crate) restart_max_attempts: Option<u32>,
    /// The time in which restarts are counted, 0s for ever [default: 0s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) restart_window: Option<Duration>,
    /// Time a task has to finish before it is killed [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) stop_grace_period: Option<Duration>,
    /// Signal that asks a task to finish [default: the image's, or SIGTERM]
    #[arg(long, value_name = "SIGNAL")]
    pub(crate) stop_signal: Option<String>,
    /// How the balancer chooses a task for each connection [default: round-robin]
    #[arg(long, value_enum, value_name = "POLICY")]
    pub(crate) lb_policy: Option<LbPolicyArg>,
    /// Each node's balancer sends to the node's own tasks, as long as these have not clearly more
    /// connections than the others [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) lb_prefer_local: Option<bool>,
    /// Time that connections of a task have to end before it gets its stop signal [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) drain_timeout: Option<Duration>,
    /// Command that checks the health of a container, run in it by a shell [default: the image's]
    #[arg(long, value_name = "COMMAND")]
    pub(crate) health_cmd: Option<String>,
    /// Time between two checks [default: the image's, or 30s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) health_interval: Option<Duration>,
    /// Time one check may take [default: the image's, or 30s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) health_timeout: Option<Duration>,
    /// Failures do not count this long after the start [default: the image's, or 0s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) health_start_period: Option<Duration>,
    /// Time between two checks within the start period (engines from 25 on) [default: the image's, or 5s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) health_start_interval: Option<Duration>,
    /// Failures in a row that make a container unhealthy [default: the image's, or 3]
    #[arg(long, value_name = "N")]
    pub(crate) health_retries: Option<u32>,
    /// Use no health check, not even the image's
    #[arg(long)]
    pub(crate) no_healthcheck: bool,
    /// Host name of the containers; may hold {{.Node.Hostname}}, {{.Task.Slot}} and the like
    #[arg(long)]
    pub(crate) hostname: Option<String>,
    /// User and group to run as, NAME|UID[:GROUP|GID] [default: the image's]
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// Working directory [default: the image's]
    #[arg(short, long, value_name = "PATH")]
    pub(crate) workdir: Option<String>,
    /// Replaces the image's entrypoint; split at spaces as a shell does
    #[arg(long, value_name = "COMMAND")]
    pub(crate) entrypoint: Option<String>,
    /// Driver that keeps what the tasks write; an empty one is the engine's own [default: the
    /// engine's own; process runtime: json-file with max-size=10m and max-file=2]
    #[arg(long, value_name = "DRIVER")]
    pub(crate) log_driver: Option<String>,
    /// Option of the log driver, such as max-size=10m
    #[arg(long, value_name = "NAME=VALUE", value_parser = key_value)]
    pub(crate) log_opt: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) check: CheckFlags,
    #[command(flatten)]
    pub(crate) update_config: UpdateFlags,
    #[command(flatten)]
    pub(crate) rollback_config: RollbackFlags,
    /// Send this machine's registry credentials (of `docker login`) to the nodes
    #[arg(long)]
    pub(crate) with_registry_auth: bool,
    /// Do not ask the registry for the image's digest and platforms
    #[arg(long)]
    pub(crate) no_resolve_image: bool,
    #[command(flatten)]
    pub(crate) plan: DryRunFlags,
    /// Return at once instead of waiting until it is done
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Do not show progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// How the balancer chooses a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LbPolicyArg {
    /// Each in turn, exactly
    RoundRobin,
    /// Of two at random the one with fewer connections
    LeastConn,
    /// The same one for the same client address, on every node
    SourceHash,
}

/// Which of several nodes that have room is preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StrategyArg {
    /// The one with fewest tasks of the service, then the one with most room
    Spread,
    /// The one with least room, so that others stay empty (tasks should reserve CPU or memory)
    Binpack,
}

impl From<StrategyArg> for Strategy {
    fn from(arg: StrategyArg) -> Self {
        match arg {
            StrategyArg::Spread => Self::Spread,
            StrategyArg::Binpack => Self::Binpack,
        }
    }
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
