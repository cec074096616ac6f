//! `--update-*` and `--rollback-*`, and `service update` and `rollback`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use swarmlet_core::model::{
    Constraint, FailureAction, FailureRatio, Mount, Platform, PortSpec, Preference, Protocol,
    UpdateConfig, UpdateOrder,
};

use super::{DryRunFlags, ServiceFlags};
use crate::values::{duration, generic_resource, key_value, mount, platform, port};

/// How a service is updated.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct UpdateFlags {
    /// Tasks replaced at the same time, 0 for all [default: 1]
    #[arg(long, value_name = "N")]
    update_parallelism: Option<u32>,
    /// Time that a new task runs before the next one is replaced [default: 0s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    update_delay: Option<Duration>,
    /// Time after its start in which the end of a task is a failure [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    update_monitor: Option<Duration>,
    /// Share of the tasks that may fail, 0 to 1 [default: 0]
    #[arg(long, value_name = "RATIO")]
    update_max_failure_ratio: Option<FailureRatio>,
    /// What happens when more fail [default: pause]
    #[arg(long, value_enum, value_name = "ACTION")]
    update_failure_action: Option<ActionArg>,
    /// Which task of a slot waits for the other [default: stop-first]
    #[arg(long, value_enum, value_name = "ORDER")]
    update_order: Option<OrderArg>,
    /// Least share of the tasks that run throughout, as ECS has it [default: none]
    #[arg(long, value_name = "PERCENT")]
    update_min_healthy_percent: Option<u32>,
    /// Largest share of the tasks that is started, as ECS has it [default: none]
    #[arg(long, value_name = "PERCENT")]
    update_max_percent: Option<u32>,
    /// Time without progress after which it has failed, 0s for none [default: 10m]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    update_progress_deadline: Option<Duration>,
}

impl UpdateFlags {
    /// Sets what was given.
    pub(crate) fn apply(&self, config: &mut UpdateConfig) {
        let Self {
            update_parallelism,
            update_delay,
            update_monitor,
            update_max_failure_ratio,
            update_failure_action,
            update_order,
            update_min_healthy_percent,
            update_max_percent,
            update_progress_deadline,
        } = self;
        Given {
            parallelism: *update_parallelism,
            delay: *update_delay,
            monitor: *update_monitor,
            max_failure_ratio: *update_max_failure_ratio,
            failure_action: update_failure_action.map(Into::into),
            order: update_order.map(Into::into),
            min_healthy_percent: *update_min_healthy_percent,
            max_percent: *update_max_percent,
            progress_deadline: *update_progress_deadline,
        }
        .apply(config);
    }
}

/// How a service goes back to the version before.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct RollbackFlags {
    /// Tasks rolled back at the same time, 0 for all [default: 1]
    #[arg(long, value_name = "N")]
    rollback_parallelism: Option<u32>,
    /// Time that a new task runs before the next one is replaced [default: 0s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    rollback_delay: Option<Duration>,
    /// Time after its start in which the end of a task is a failure [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    rollback_monitor: Option<Duration>,
    /// Share of the tasks that may fail, 0 to 1 [default: 0]
    #[arg(long, value_name = "RATIO")]
    rollback_max_failure_ratio: Option<FailureRatio>,
    /// What happens when more fail [default: pause]
    #[arg(long, value_enum, value_name = "ACTION")]
    rollback_failure_action: Option<RollbackActionArg>,
    /// Which task of a slot waits for the other [default: stop-first]
    #[arg(long, value_enum, value_name = "ORDER")]
    rollback_order: Option<OrderArg>,
    /// Least share of the tasks that run throughout, as ECS has it [default: none]
    #[arg(long, value_name = "PERCENT")]
    rollback_min_healthy_percent: Option<u32>,
    /// Largest share of the tasks that is started, as ECS has it [default: none]
    #[arg(long, value_name = "PERCENT")]
    rollback_max_percent: Option<u32>,
    /// Time without progress after which it has failed, 0s for none [default: 10m]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    rollback_progress_deadline: Option<Duration>,
}

impl RollbackFlags {
    /// Sets what was given.
    pub(crate) fn apply(&self, config: &mut UpdateConfig) {
        let Self {
            rollback_parallelism,
            rollback_delay,
            rollback_monitor,
            rollback_max_failure_ratio,
            rollback_failure_action,
            rollback_order,
            rollback_min_healthy_percent,
            rollback_max_percent,
            rollback_progress_deadline,
        } = self;
        Given {
            parallelism: *rollback_parallelism,
            delay: *rollback_delay,
            monitor: *rollback_monitor,
            max_failure_ratio: *rollback_max_failure_ratio,
            failure_action: rollback_failure_action.map(Into::into),
            order: rollback_order.map(Into::into),
            min_healthy_percent: *rollback_min_healthy_percent,
            max_percent: *rollback_max_percent,
            progress_deadline: *rollback_progress_deadline,
        }
        .apply(config);
    }
}

/// Settings that were given on the command line.
struct Given {
    parallelism: Option<u32>,
    delay: Option<Duration>,
    monitor: Option<Duration>,
    max_failure_ratio: Option<FailureRatio>,
    failure_action: Option<FailureAction>,
    order: Option<UpdateOrder>,
    min_healthy_percent: Option<u32>,
    max_percent: Option<u32>,
    progress_deadline: Option<Duration>,
}

impl Given {
    /// Docker's way and that of ECS exclude each other, so that one who names Docker's
    /// parallelism or order does without percentages given earlier.
    fn apply(self, config: &mut UpdateConfig) {
        if self.parallelism.is_some() || self.order.is_some() {
            config.min_healthy_percent = None;
            config.max_percent = None;
        }
        *config = UpdateConfig {
            parallelism: self.parallelism.unwrap_or(config.parallelism),
            delay: self.delay.unwrap_or(config.delay),
            monitor: self.monitor.unwrap_or(config.monitor),
            max_failure_ratio: self.max_failure_ratio.unwrap_or(config.max_failure_ratio),
            failure_action: self.failure_action.unwrap_or(config.failure_action),
            order: self.order.unwrap_or(config.order),
            min_healthy_percent: self.min_healthy_percent.or(config.min_healthy_percent),
            max_percent: self.max_percent.or(config.max_percent),
            progress_deadline: self.progress_deadline.unwrap_or(config.progress_deadline),
        };
    }
}

/// What happens when too much of an update fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ActionArg {
    /// It stops where it is
    Pause,
    /// It goes on
    Continue,
    /// The service goes back to the version before
    Rollback,
}

impl From<ActionArg> for FailureAction {
    fn from(arg: ActionArg) -> Self {
        match arg {
            ActionArg::Pause => Self::Pause,
            ActionArg::Continue => Self::Continue,
            ActionArg::Rollback => Self::Rollback,
        }
    }
}

/// What happens when too much of a rollback fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RollbackActionArg {
    /// It stops where it is
    Pause,
    /// It goes on
    Continue,
}

impl From<RollbackActionArg> for FailureAction {
    fn from(arg: RollbackActionArg) -> Self {
        match arg {
            RollbackActionArg::Pause => Self::Pause,
            RollbackActionArg::Continue => Self::Continue,
        }
    }
}

/// Which task of a slot waits for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OrderArg {
    /// The new one starts once the old one has stopped
    StopFirst,
    /// The old one stops once the new one runs
    StartFirst,
}

impl From<OrderArg> for UpdateOrder {
    fn from(arg: OrderArg) -> Self {
        match arg {
            OrderArg::StopFirst => Self::StopFirst,
            OrderArg::StartFirst => Self::StartFirst,
        }
    }
}

/// `service update`.
#[derive(Debug, Args)]
pub(crate) struct ServiceUpdateArgs {
    /// Image of the tasks
    #[arg(long)]
    pub(crate) image: Option<String>,
    /// Arguments for the image; split at spaces as a shell does
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    pub(crate) args: Option<String>,
    /// Replace every task although nothing else changes
    #[arg(long)]
    pub(crate) force: bool,
    /// Go back to the last version whose deployment completed
    #[arg(long)]
    pub(crate) rollback: bool,
    /// Change the service only if it still has this version
    #[arg(long, value_name = "VERSION")]
    pub(crate) check_version: Option<u64>,
    /// Set an environment variable; a bare NAME takes its value from this shell
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) env_add: Vec<String>,
    /// Remove an environment variable
    #[arg(long, value_name = "NAME")]
    pub(crate) env_rm: Vec<String>,
    /// Set a label of the service
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) label_add: Vec<(String, String)>,
    /// Remove a label of the service
    #[arg(long, value_name = "KEY")]
    pub(crate) label_rm: Vec<String>,
    /// Set a label of the containers
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) container_label_add: Vec<(String, String)>,
    /// Remove a label of the containers
    #[arg(long, value_name = "KEY")]
    pub(crate) container_label_rm: Vec<String>,
    /// Add or replace a mount
    #[arg(long, value_name = "MOUNT", value_parser = mount)]
    pub(crate) mount_add: Vec<Mount>,
    /// Remove the mount at a path of the container
    #[arg(long, value_name = "TARGET")]
    pub(crate) mount_rm: Vec<String>,
    /// Publish another port, or the same one with other options; see create --publish
    #[arg(long, value_name = "PORT", value_parser = port)]
    pub(crate) publish_add: Vec<PortSpec>,
    /// Publish a port of the container no more
    #[arg(long, value_name = "TARGET[/PROTOCOL]", value_parser = target)]
    pub(crate) publish_rm: Vec<(u16, Protocol)>,
    /// Add a constraint on the nodes
    #[arg(long, value_name = "CONSTRAINT")]
    pub(crate) constraint_add: Vec<Constraint>,
    /// Remove a constraint on the nodes
    #[arg(long, value_name = "CONSTRAINT")]
    pub(crate) constraint_rm: Vec<Constraint>,
    /// Add a placement preference below those that are there
    #[arg(long, value_name = "PREFERENCE")]
    pub(crate) placement_pref_add: Vec<Preference>,
    /// Remove a placement preference
    #[arg(long, value_name = "PREFERENCE")]
    pub(crate) placement_pref_rm: Vec<Preference>,
    /// Allow nodes of another platform
    #[arg(long, value_name = "OS[/ARCH]", value_parser = platform)]
    pub(crate) platform_add: Vec<Platform>,
    /// Remove a platform; without any, nodes of every platform are allowed
    #[arg(long, value_name = "OS[/ARCH]", value_parser = platform)]
    pub(crate) platform_rm: Vec<Platform>,
    /// Add or change a resource that a node must have free for a task: gpu=2
    #[arg(long, value_name = "KIND=N", value_parser = generic_resource)]
    pub(crate) generic_resource_add: Vec<(String, u64)>,
    /// Reserve a resource no more
    #[arg(long, value_name = "KIND")]
    pub(crate) generic_resource_rm: Vec<String>,
    #[command(flatten)]
    pub(crate) flags: ServiceFlags,
    /// Id, beginning of an id, or name
    #[arg(value_name = "SERVICE")]
    pub(crate) service: String,
}

fn target(text: &str) -> Result<(u16, Protocol), String> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let number = number
        .parse()
        .map_err(|_| format!("invalid target port {number}: expected PORT or PORT/PROTOCOL"))?;
    match protocol {
        "tcp" => Ok((number, Protocol::Tcp)),
        "udp" => Ok((number, Protocol::Udp)),
        other => Err(format!("invalid proto: {other}: must be either tcp or udp")),
    }
}

/// `service rollback`.
#[derive(Debug, Args)]
pub(crate) struct ServiceRollbackArgs {
    #[command(flatten)]
    pub(crate) plan: DryRunFlags,
    /// Change the service only if it still has this version
    #[arg(long, value_name = "VERSION")]
    pub(crate) check_version: Option<u64>,
    /// Return at once instead of waiting until the rollback is over
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Do not show progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Id, beginning of an id, or name
    #[arg(value_name = "SERVICE")]
    pub(crate) service: String,
}
