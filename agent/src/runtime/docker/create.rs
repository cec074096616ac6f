//! The engine's words for a task.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, Mount as EngineMount,
    MountType, PortBinding, PortMap, RestartPolicy, RestartPolicyNameEnum,
};
use swarmlet_core::model::{
    ContainerSpec, HealthCheck, HealthTest, LogDriver, MountKind, PortMode, Task, TaskPort,
};

use super::label;
use super::observe::ports_to_text;
use crate::runtime::placeholder::{expand, expand_mount};
use crate::runtime::{RuntimeError, Scope, generic};

/// What to create for a task.
///
/// # Errors
/// [`RuntimeError::Rejected`] for a placeholder that does not exist.
pub(super) fn body(
    scope: &Scope,
    task: &Task,
    ports: &[TaskPort],
) -> Result<ContainerCreateBody, RuntimeError> {
    let Some(container) = task.spec.container() else {
        return Err(RuntimeError::Rejected(
            "the task has no container".to_owned(),
        ));
    };
    let mut env = container
        .env
        .iter()
        .map(|entry| expand(entry, scope, task))
        .collect::<Result<Vec<_>, _>>()?;
    env.extend(generic::variables(task).map(|(name, value)| format!("{name}={value}")));
    let hostname = container
        .hostname
        .as_deref()
        .map(|name| expand(name, scope, task))
        .transpose()?;
    let list = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    Ok(ContainerCreateBody {
        image: Some(container.image.clone()),
        // Without one the engine takes the container's own id, which tells tasks apart.
        hostname,
        user: container.user.clone(),
        env: Some(env),
        entrypoint: list(&container.entrypoint),
        cmd: list(&container.args),
        working_dir: container.workdir.clone(),
        stop_signal: container.stop_signal.clone(),
        stop_timeout: Some(seconds(container.stop_grace_period)),
        healthcheck: container.health.as_ref().map(health),
        labels: Some(labels(scope, task, container, ports)),
        exposed_ports: Some(ports.iter().map(port_key).collect()),
        host_config: Some(host_config(scope, task, container, ports)?),
        ..ContainerCreateBody::default()
    })
}

fn host_config(
    scope: &Scope,
    task: &Task,
    container: &ContainerSpec,
    ports: &[TaskPort],
) -> Result<HostConfig, RuntimeError> {
    let limits = &task.spec.resources.limits;
    let reservations = &task.spec.resources.reservations;
    let amount = |value: u64| (value != 0).then(|| i64::try_from(value).unwrap_or(i64::MAX));
    let mounts = container
        .mounts
        .iter()
        .map(|mount| Ok(engine_mount(&expand_mount(mount, scope, task)?)))
        .collect::<Result<Vec<_>, RuntimeError>>()?;
    Ok(HostConfig {
        nano_cpus: amount(limits.nano_cpus),
        memory: amount(limits.memory_bytes),
        pids_limit: amount(limits.pids),
        memory_reservation: amount(reservations.memory_bytes),
        // Never binds: those make a folder where the source is missing.
        mounts: (!mounts.is_empty()).then_some(mounts),
        port_bindings: Some(bindings(scope, ports)),
        // Without one the engine takes its own, as its administrator has set it.
        log_config: task.spec.log_driver.as_ref().map(log_config),
        // The orchestrator restarts, by another task; the engine must not do it as well.
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        ..HostConfig::default()
    })
}

fn bindings(scope: &Scope, ports: &[TaskPort]) -> PortMap {
    let mut bindings: PortMap = HashMap::new();
    for port in ports {
        let address = match port.mode {
            PortMode::Ingress => scope.advertise,
            PortMode::Host => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        };
        bindings
            .entry(port_key(port))
            .or_default()
            .get_or_insert_default()
            .push(PortBinding {
                host_ip: Some(address.to_string()),
                host_port: Some(port.host.to_string()),
            });
    }
    bindings
}

fn labels(
    scope: &Scope,
    task: &Task,
    container: &ContainerSpec,
    ports: &[TaskPort],
) -> HashMap<String, String> {
    let mut labels: HashMap<String, String> = container
        .labels
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let own = [
        (label::CLUSTER, scope.cluster.to_string()),
        (label::NODE, scope.node.to_string()),
        (label::SERVICE, task.service.to_string()),
        (label::SERVICE_NAME, task.service_name.clone()),
        (label::TASK, task.id.to_string()),
        (label::TASK_NAME, task.name()),
        (label::PORTS, ports_to_text(ports)),
    ];
    // Last, so that no label of the user's can hide a container from its agent.
    labels.extend(own.map(|(name, value)| (name.to_owned(), value)));
    labels
}

fn port_key(port: &TaskPort) -> String {
    format!("{}/{}", port.target, port.protocol)
}

fn engine_mount(mount: &swarmlet_core::model::Mount) -> EngineMount {
    EngineMount {
        target: Some(mount.target.clone()),
        source: (!mount.source.is_empty()).then(|| mount.source.clone()),
        typ: Some(match mount.kind {
            MountKind::Bind => MountType::BIND,
            MountKind::Volume => MountType::VOLUME,
            MountKind::Tmpfs => MountType::TMPFS,
        }),
        read_only: Some(mount.read_only),
        ..EngineMount::default()
    }
}

fn health(check: &HealthCheck) -> HealthConfig {
    let nanoseconds =
        |value: Option<Duration>| value.map(|d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX));
    HealthConfig {
        test: Some(match &check.test {
            // An empty list is the engine's word for "as the image says".
            HealthTest::Inherit => Vec::new(),
            HealthTest::Shell(command) => vec!["CMD-SHELL".to_owned(), command.clone()],
            HealthTest::Disabled => vec!["NONE".to_owned()],
        }),
        interval: nanoseconds(check.interval),
        timeout: nanoseconds(check.timeout),
        retries: check.retries.map(i64::from),
        start_period: nanoseconds(check.start_period),
        start_interval: nanoseconds(check.start_interval),
    }
}

fn log_config(driver: &LogDriver) -> HostConfigLogConfig {
    let options = driver.options.clone();
    HostConfigLogConfig {
        typ: Some(driver.name.clone()),
        config: Some(options.into_iter().collect()),
    }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis().div_ceil(1000)).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "create_tests.rs"]
mod tests;
