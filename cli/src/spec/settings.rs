//! What the flags that `service create` and `service update` share do to a specification.

use anyhow::{Result, bail};
use swarmlet_core::model::{
    ContainerSpec, HealthCheck, HealthTest, LbPolicy, LogDriver, RestartCondition, ServiceSpec,
    TaskSpec,
};

use super::check::set_check;
use super::mode::set_numbers;
use crate::args::{LbPolicyArg, RestartConditionArg, ServiceFlags};

/// Sets each field that was given, and leaves the others.
///
/// # Errors
/// One sentence on the first mistake.
pub(super) fn set_fields(spec: &mut ServiceSpec, flags: &ServiceFlags) -> Result<()> {
    set_numbers(&mut spec.mode, flags)?;
    set(&mut spec.drain_timeout, flags.drain_timeout);
    set(&mut spec.lb_policy, flags.lb_policy.map(Into::into));
    set(&mut spec.lb_prefer_local, flags.lb_prefer_local);
    flags.update_config.apply(&mut spec.update);
    flags.rollback_config.apply(&mut spec.rollback);
    set_task(&mut spec.task, flags);
    set_log_driver(&mut spec.task, flags)?;
    for container in &mut spec.task.containers {
        set_container(container, flags)?;
    }
    Ok(())
}

fn set_task(task: &mut TaskSpec, flags: &ServiceFlags) {
    let (limits, reservations) = (&mut task.resources.limits, &mut task.resources.reservations);
    set(&mut limits.nano_cpus, flags.limit_cpu);
    set(&mut limits.memory_bytes, flags.limit_memory);
    set(&mut reservations.nano_cpus, flags.reserve_cpu);
    set(&mut reservations.memory_bytes, flags.reserve_memory);
    set(&mut limits.pids, flags.limit_pids);
    let placement = &mut task.placement;
    set(&mut placement.max_replicas, flags.replicas_max_per_node);
    set(
        &mut placement.strategy,
        flags.placement_strategy.map(Into::into),
    );
    let restart = &mut task.restart;
    set(
        &mut restart.condition,
        flags.restart_condition.map(Into::into),
    );
    set(&mut restart.delay, flags.restart_delay);
    set(&mut restart.max_attempts, flags.restart_max_attempts);
    set(&mut restart.window, flags.restart_window);
}

/// Options replace those that were there, as with Docker. Docker ignores options without a
/// driver; here that is a mistake, or a log without bounds would come as a surprise.
fn set_log_driver(task: &mut TaskSpec, flags: &ServiceFlags) -> Result<()> {
    let options = || flags.log_opt.iter().cloned().collect();
    match (&flags.log_driver, &mut task.log_driver) {
        (Some(name), driver) if name.is_empty() && flags.log_opt.is_empty() => *driver = None,
        (Some(name), driver) if !name.is_empty() => {
            *driver = Some(LogDriver {
                name: name.clone(),
                options: options(),
            });
        }
        (None, _) if flags.log_opt.is_empty() => {}
        (None, Some(driver)) => driver.options = options(),
        (Some(_), _) | (None, None) => bail!("--log-opt needs --log-driver"),
    }
    Ok(())
}

fn set_container(container: &mut ContainerSpec, flags: &ServiceFlags) -> Result<()> {
    if let Some(text) = &flags.entrypoint {
        container.entrypoint = words(text)?;
    }
    set(&mut container.stop_grace_period, flags.stop_grace_period);
    for (field, value) in [
        (&mut container.stop_signal, &flags.stop_signal),
        (&mut container.hostname, &flags.hostname),
        (&mut container.user, &flags.user),
        (&mut container.workdir, &flags.workdir),
    ] {
        // An empty text takes back what was set, as with Docker.
        if let Some(value) = value {
            *field = Some(value.clone()).filter(|value| !value.is_empty());
        }
    }
    set_health(container, flags)?;
    set_check(container, &flags.check)
}

fn set_health(container: &mut ContainerSpec, flags: &ServiceFlags) -> Result<()> {
    let timing = flags.health_interval.is_some()
        || flags.health_timeout.is_some()
        || flags.health_start_period.is_some()
        || flags.health_start_interval.is_some()
        || flags.health_retries.is_some();
    if flags.no_healthcheck && (timing || flags.health_cmd.is_some()) {
        bail!("--no-healthcheck conflicts with --health-* options");
    }
    if !flags.no_healthcheck && !timing && flags.health_cmd.is_none() {
        return Ok(());
    }
    let old = container.health.take().filter(|_| !flags.no_healthcheck);
    let mut check = old.unwrap_or(HealthCheck {
        test: HealthTest::Inherit,
        interval: None,
        timeout: None,
        start_period: None,
        start_interval: None,
        retries: None,
    });
    check.test = match (&flags.health_cmd, flags.no_healthcheck) {
        (_, true) => HealthTest::Disabled,
        (Some(command), _) if command.is_empty() => HealthTest::Inherit,
        (Some(command), _) => HealthTest::Shell(command.clone()),
        (None, _) if check.test == HealthTest::Disabled => HealthTest::Inherit,
        (None, _) => check.test,
    };
    check.interval = flags.health_interval.or(check.interval);
    check.timeout = flags.health_timeout.or(check.timeout);
    check.start_period = flags.health_start_period.or(check.start_period);
    check.start_interval = flags.health_start_interval.or(check.start_interval);
    check.retries = flags.health_retries.or(check.retries);
    container.health = Some(check);
    Ok(())
}

impl From<LbPolicyArg> for LbPolicy {
    fn from(arg: LbPolicyArg) -> Self {
        match arg {
            LbPolicyArg::RoundRobin => Self::RoundRobin,
            LbPolicyArg::LeastConn => Self::LeastConn,
            LbPolicyArg::SourceHash => Self::SourceHash,
        }
    }
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

/// Replaces a value where another one was given.
pub(super) fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

/// Splits a command at spaces, but for those in quotes or behind a backslash, as a shell does.
pub(super) fn words(text: &str) -> Result<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('\\', None | Some('"')) => match chars.next() {
                Some(next) => word.get_or_insert_default().push(next),
                None => bail!("invalid command {text:?}: a backslash at the end"),
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
        bail!("invalid command {text:?}: a quote is not closed");
    }
    words.extend(word);
    Ok(words)
}
