//! Arguments of `service create` → what is asked of the cluster; those of `service update` are
//! in [`edit`].

mod edit;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;

use anyhow::{Context, Result, bail};
use swarmlet_core::model::{
    ContainerSpec, HealthCheck, HealthTest, LbPolicy, Placement, ResourceRequirements, Resources,
    RestartCondition, RestartPolicy, ServiceMode, ServiceSpec, TaskSpec, UpdateConfig,
};

use crate::args::{CreateArgs, RestartConditionArg};
use crate::values::{env_file, env_variable};

pub(crate) use edit::edited;

/// The specification that the arguments ask for, checked as far as it can be without asking
/// the cluster.
///
/// # Errors
/// One sentence on the first mistake.
pub(crate) fn service_spec(args: &CreateArgs) -> Result<ServiceSpec> {
    let Some((image, image_args)) = args.image.split_first() else {
        bail!("an image is required");
    };
    let container = ContainerSpec {
        image: image.clone(),
        entrypoint: args.entrypoint.as_deref().map_or(Ok(Vec::new()), words)?,
        args: image_args.to_vec(),
        env: environment(args)?,
        labels: args.container_label.iter().cloned().collect(),
        hostname: args.hostname.clone(),
        user: args.user.clone(),
        workdir: args.workdir.clone(),
        mounts: args.mount.clone(),
        stop_signal: args.stop_signal.clone(),
        stop_grace_period: args.stop_grace_period,
        health: health(args)?,
        registry_auth: None,
    };
    let mut spec = ServiceSpec {
        name: args.name.clone().unwrap_or_else(|| random_name(image)),
        labels: args.label.iter().cloned().collect(),
        mode: ServiceMode::Replicated {
            replicas: args.replicas,
        },
        task: TaskSpec {
            containers: vec![container],
            resources: ResourceRequirements {
                limits: resources(args.limit_cpu, args.limit_memory),
                reservations: resources(args.reserve_cpu, args.reserve_memory),
            },
            restart: RestartPolicy {
                condition: args.restart_condition.into(),
                delay: args.restart_delay,
                max_attempts: args.restart_max_attempts,
                window: args.restart_window,
            },
            placement: Placement {
                constraints: args.constraint.clone(),
            },
            force_update: 0,
        },
        ports: args.publish.clone(),
        lb_policy: LbPolicy::RoundRobin,
        drain_timeout: args.drain_timeout,
        update: UpdateConfig::default(),
        rollback: UpdateConfig::default(),
    };
    args.update_config.apply(&mut spec.update);
    args.rollback_config.apply(&mut spec.rollback);
    spec.validate()?;
    Ok(spec)
}

impl From<RestartConditionArg> for RestartCondition {
    fn from(arg: RestartConditionArg) -> Self {
        match arg {
            RestartConditionArg::None => Self::None,
            RestartConditionArg::OnFailure => Self::OnFailure,
            RestartConditionArg::Any => Self::Any,
        }
    }
}

fn resources(nano_cpus: Option<u64>, memory_bytes: Option<u64>) -> Resources {
    Resources {
        nano_cpus: nano_cpus.unwrap_or_default(),
        memory_bytes: memory_bytes.unwrap_or_default(),
    }
}

fn health(args: &CreateArgs) -> Result<Option<HealthCheck>> {
    let timing = args.health_interval.is_some()
        || args.health_timeout.is_some()
        || args.health_start_period.is_some()
        || args.health_retries.is_some();
    let test = match (&args.health_cmd, args.no_healthcheck) {
        (None, true) if !timing => HealthTest::Disabled,
        (_, true) => bail!("--no-healthcheck conflicts with --health-* options"),
        (Some(command), false) if command.is_empty() => bail!("--health-cmd is empty"),
        (Some(command), false) => HealthTest::Shell(command.clone()),
        (None, false) if timing => HealthTest::Inherit,
        (None, false) => return Ok(None),
    };
    Ok(Some(HealthCheck {
        test,
        interval: args.health_interval,
        timeout: args.health_timeout,
        start_period: args.health_start_period,
        retries: args.health_retries,
    }))
}

/// Variables of the files, then those of the flags; a later one replaces an earlier one of the
/// same name.
fn environment(args: &CreateArgs) -> Result<Vec<String>> {
    let lookup = |name: &str| std::env::var(name).ok();
    let mut variables: Vec<String> = Vec::new();
    for path in &args.env_file {
        variables.extend(read_env_file(path)?);
    }
    for text in &args.env {
        variables.extend(env_variable(text, lookup).map_err(anyhow::Error::msg)?);
    }
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let last: BTreeMap<String, usize> = variables
        .iter()
        .enumerate()
        .map(|(index, v)| (name(v), index))
        .collect();
    Ok(variables
        .iter()
        .enumerate()
        .filter(|(index, variable)| last.get(&name(variable)) == Some(index))
        .map(|(_, variable)| variable.clone())
        .collect())
}

fn read_env_file(path: &Path) -> Result<Vec<String>> {
    let content = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the environment file {}", path.display()))?;
    env_file(&content, |name| std::env::var(name).ok())
        .map_err(anyhow::Error::msg)
        .with_context(|| format!("poorly formatted environment file {}", path.display()))
}

/// Splits a command at spaces, but for those in quotes or behind a backslash, as a shell does.
fn words(text: &str) -> Result<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('\\', None | Some('"')) => match chars.next() {
                Some(next) => word.get_or_insert_default().push(next),
                None => bail!("invalid entrypoint {text:?}: a backslash at the end"),
            },
            (c, Some(_)) => word.get_or_insert_default().push(c),
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        bail!("invalid entrypoint {text:?}: a quote is not closed");
    }
    words.extend(word);
    Ok(words)
}

/// A name for a service that was given none: the image's, and a few random digits. The hasher's
/// keys are random, and nothing secret hangs on the name.
fn random_name(image: &str) -> String {
    let base = image.rsplit('/').next().unwrap_or_default();
    let base = base.split([':', '@']).next().unwrap_or_default();
    let base: String = base
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(40)
        .collect();
    let random = RandomState::new().build_hasher().finish();
    format!(
        "{}-{:06x}",
        if base.is_empty() { "service" } else { &base },
        random & 0xff_ffff
    )
}

#[cfg(test)]
mod tests;
