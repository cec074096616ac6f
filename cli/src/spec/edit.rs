//! Arguments of `service update`: a specification, and what is to change of it.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use swarmlet_core::model::{
    ContainerSpec, HealthCheck, HealthTest, ServiceMode, ServiceSpec, TaskSpec,
};

use super::words;
use crate::args::ServiceUpdateArgs;
use crate::values::env_variable;

/// The specification with what the arguments change. What is to be removed goes first, so that
/// one command can replace it.
///
/// # Errors
/// One sentence on the first mistake.
pub(crate) fn edited(spec: &ServiceSpec, args: &ServiceUpdateArgs) -> Result<ServiceSpec> {
    let mut spec = spec.clone();
    if let Some(replicas) = args.replicas {
        spec.mode = ServiceMode::Replicated { replicas };
    }
    edit_map(&mut spec.labels, &args.label_rm, &args.label_add);
    edit_ports(&mut spec, args);
    if let Some(timeout) = args.drain_timeout {
        spec.drain_timeout = timeout;
    }
    args.update_config.apply(&mut spec.update);
    args.rollback_config.apply(&mut spec.rollback);
    edit_task(&mut spec.task, args);
    for container in &mut spec.task.containers {
        edit_container(container, args)?;
    }
    spec.validate()?;
    Ok(spec)
}

fn edit_task(task: &mut TaskSpec, args: &ServiceUpdateArgs) {
    if args.force {
        task.force_update = task.force_update.wrapping_add(1);
    }
    let constraints = &mut task.placement.constraints;
    constraints.retain(|constraint| !args.constraint_rm.contains(constraint));
    for constraint in &args.constraint_add {
        if !constraints.contains(constraint) {
            constraints.push(constraint.clone());
        }
    }
    let (limits, reservations) = (&mut task.resources.limits, &mut task.resources.reservations);
    set(&mut limits.nano_cpus, args.limit_cpu);
    set(&mut limits.memory_bytes, args.limit_memory);
    set(&mut reservations.nano_cpus, args.reserve_cpu);
    set(&mut reservations.memory_bytes, args.reserve_memory);
    let restart = &mut task.restart;
    set(
        &mut restart.condition,
        args.restart_condition.map(Into::into),
    );
    set(&mut restart.delay, args.restart_delay);
    set(&mut restart.max_attempts, args.restart_max_attempts);
    set(&mut restart.window, args.restart_window);
}

fn edit_container(container: &mut ContainerSpec, args: &ServiceUpdateArgs) -> Result<()> {
    set(&mut container.image, args.image.clone());
    if let Some(text) = &args.args {
        container.args = words(text)?;
    }
    if let Some(text) = &args.entrypoint {
        container.entrypoint = words(text)?;
    }
    edit_environment(&mut container.env, args)?;
    edit_map(
        &mut container.labels,
        &args.container_label_rm,
        &args.container_label_add,
    );
    container.mounts.retain(|mount| {
        let replaced = args.mount_add.iter().any(|new| new.target == mount.target);
        !replaced && !args.mount_rm.contains(&mount.target)
    });
    container.mounts.extend(args.mount_add.iter().cloned());
    set(&mut container.stop_grace_period, args.stop_grace_period);
    for (field, value) in [
        (&mut container.stop_signal, &args.stop_signal),
        (&mut container.hostname, &args.hostname),
        (&mut container.user, &args.user),
        (&mut container.workdir, &args.workdir),
    ] {
        // An empty text takes back what was set, as with Docker.
        if let Some(value) = value {
            *field = Some(value.clone()).filter(|value| !value.is_empty());
        }
    }
    edit_health(container, args)
}

fn edit_environment(env: &mut Vec<String>, args: &ServiceUpdateArgs) -> Result<()> {
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    env.retain(|variable| !args.env_rm.contains(&name(variable)));
    for text in &args.env_add {
        let lookup = |name: &str| std::env::var(name).ok();
        if let Some(variable) = env_variable(text, lookup).map_err(anyhow::Error::msg)? {
            env.retain(|other| name(other) != name(&variable));
            env.push(variable);
        }
    }
    Ok(())
}

fn edit_ports(spec: &mut ServiceSpec, args: &ServiceUpdateArgs) {
    spec.ports
        .retain(|port| !args.publish_rm.contains(&(port.target, port.protocol)));
    for port in &args.publish_add {
        spec.ports.retain(|other| {
            (other.target, other.published, other.protocol)
                != (port.target, port.published, port.protocol)
        });
        spec.ports.push(port.clone());
    }
}

fn edit_health(container: &mut ContainerSpec, args: &ServiceUpdateArgs) -> Result<()> {
    let timing = args.health_interval.is_some()
        || args.health_timeout.is_some()
        || args.health_start_period.is_some()
        || args.health_retries.is_some();
    if args.no_healthcheck && (timing || args.health_cmd.is_some()) {
        bail!("--no-healthcheck conflicts with --health-* options");
    }
    if !args.no_healthcheck && !timing && args.health_cmd.is_none() {
        return Ok(());
    }
    let old = container.health.take().filter(|_| !args.no_healthcheck);
    let mut check = old.unwrap_or(HealthCheck {
        test: HealthTest::Inherit,
        interval: None,
        timeout: None,
        start_period: None,
        retries: None,
    });
    check.test = match (&args.health_cmd, args.no_healthcheck) {
        (_, true) => HealthTest::Disabled,
        (Some(command), _) if command.is_empty() => HealthTest::Inherit,
        (Some(command), _) => HealthTest::Shell(command.clone()),
        (None, _) if check.test == HealthTest::Disabled => HealthTest::Inherit,
        (None, _) => check.test,
    };
    check.interval = args.health_interval.or(check.interval);
    check.timeout = args.health_timeout.or(check.timeout);
    check.start_period = args.health_start_period.or(check.start_period);
    check.retries = args.health_retries.or(check.retries);
    container.health = Some(check);
    Ok(())
}

fn edit_map(map: &mut BTreeMap<String, String>, removed: &[String], added: &[(String, String)]) {
    map.retain(|key, _| !removed.contains(key));
    map.extend(added.iter().cloned());
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

#[cfg(test)]
mod tests;
