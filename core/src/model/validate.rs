//! What a service specification must fulfil, wherever it comes from.
//!
//! The leader checks it before a command is proposed, and the command line before it asks, so
//! that a mistake is answered with the same sentence everywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::check::{Check, InvalidProbe, Probe, is_path};
use super::container::{ContainerSpec, Mount, MountKind, RestartCondition, TaskSpec};
use super::mode::ServiceMode;
use super::placement::Placement;
use super::ports::{PortMode, PortSpec, Protocol};
use super::service::{LbPolicy, ServiceSpec};
use super::update::{FailureAction, UpdateConfig};

/// The largest service specification in bytes, as encoded: a log entry must hold it.
pub const MAX_SPEC_BYTES: usize = 1 << 20;

/// The longest name of a service: the container's name and its DNS label are made of it.
const MAX_NAME: usize = 63;

/// The most replicas of one service. A typing error (`ng=1000000`) must not fill the log.
const MAX_REPLICAS: u32 = 100_000;

/// Docker refuses a memory limit below this.
const MIN_MEMORY_BYTES: u64 = 6 << 20;

/// The longest time that a setting may ask for; beyond it a number was mistyped.
const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 3600);

/// More checks than ten a second of every task would be a load of their own.
const MIN_CHECK: Duration = Duration::from_millis(100);

/// The most results in a row that a threshold may ask for.
const MAX_RESULTS: u32 = 100;

/// Zone, rack, and whatever is below; each level multiplies the groups that are looked at.
const MAX_PREFERENCES: usize = 8;

/// More than twice is rarely of use; more than ten times is a mistyped number.
const MAX_PERCENT: u32 = 1000;

/// Docker's words: a job is run again, and never rolled over its tasks.
const JOB_WITH_UPDATE: &str = "update and rollback configuration is not supported for jobs";

/// A specification that cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidSpec(pub String);

impl ServiceSpec {
    /// Checks everything that does not depend on the rest of the cluster.
    ///
    /// # Errors
    /// [`InvalidSpec`] with the first thing found: what, which value, what is allowed.
    pub fn validate(&self) -> Result<(), InvalidSpec> {
        name(&self.name)?;
        mode(self.mode, &self.task)?;
        duration("drain timeout", self.drain_timeout)?;
        self.task.validate()?;
        ports(&self.ports)?;
        for container in &self.task.containers {
            if let Some(check) = &container.check {
                check_port(&check.probe, &self.ports)?;
            }
        }
        if self.lb_prefer_local && self.lb_policy == LbPolicy::SourceHash {
            return invalid(
                "local tasks cannot come first with the policy source-hash, by which a client has \
                 the same task on every node: choose round-robin or least-conn"
                    .to_owned(),
            );
        }
        update("update", &self.update, self.mode)?;
        if self.rollback.failure_action == FailureAction::Rollback {
            return invalid(
                "a rollback that fails can pause or continue, not roll back".to_owned(),
            );
        }
        update("rollback", &self.rollback, self.mode)
    }
}

impl TaskSpec {
    /// Checks the template of a task.
    ///
    /// # Errors
    /// As [`ServiceSpec::validate`].
    pub fn validate(&self) -> Result<(), InvalidSpec> {
        let [container] = self.containers.as_slice() else {
            return invalid(format!(
                "a task has exactly one container, not {}",
                self.containers.len()
            ));
        };
        container.validate()?;
        let (limits, reservations) = (&self.resources.limits, &self.resources.reservations);
        for (what, bytes) in [
            ("limit", limits.memory_bytes),
            ("reservation", reservations.memory_bytes),
        ] {
            if bytes != 0 && bytes < MIN_MEMORY_BYTES {
                return invalid(format!(
                    "memory {what} of {bytes} bytes is too small: at least 6MiB"
                ));
            }
        }
        if limits.nano_cpus != 0 && reservations.nano_cpus > limits.nano_cpus {
            return invalid("the CPU reservation is larger than the limit".to_owned());
        }
        if limits.memory_bytes != 0 && reservations.memory_bytes > limits.memory_bytes {
            return invalid("the memory reservation is larger than the limit".to_owned());
        }
        generic(&reservations.generic)?;
        self.placement.validate()?;
        if let Some(driver) = &self.log_driver
            && (driver.name.is_empty() || driver.options.keys().any(String::is_empty))
        {
            return invalid("a log driver and each of its options need a name".to_owned());
        }
        duration("restart delay", self.restart.delay)?;
        duration("restart window", self.restart.window)
    }
}

impl Placement {
    fn validate(&self) -> Result<(), InvalidSpec> {
        for constraint in &self.constraints {
            constraint
                .check()
                .map_err(|error| InvalidSpec(error.to_string()))?;
        }
        if self.preferences.len() > MAX_PREFERENCES {
            return invalid(format!(
                "{} placement preferences are too many: at most {MAX_PREFERENCES}",
                self.preferences.len()
            ));
        }
        for (index, preference) in self.preferences.iter().enumerate() {
            if self.preferences[..index].contains(preference) {
                return invalid(format!("placement preference {preference} is given twice"));
            }
        }
        Ok(())
    }
}

impl ContainerSpec {
    fn validate(&self) -> Result<(), InvalidSpec> {
        if self.image.is_empty() || self.image.contains(char::is_whitespace) {
            return invalid(format!("invalid image reference {:?}", self.image));
        }
        for entry in &self.env {
            if entry.starts_with('=') || entry.is_empty() || entry.contains('\0') {
                return invalid(format!(
                    "invalid environment variable {entry:?}: expected NAME=VALUE"
                ));
            }
        }
        duration("stop grace period", self.stop_grace_period)?;
        if let Some(health) = &self.health {
            for (what, value) in [
                ("health interval", health.interval),
                ("health timeout", health.timeout),
                ("health start period", health.start_period),
                ("health start interval", health.start_interval),
            ] {
                duration(what, value.unwrap_or_default())?;
            }
        }
        if let Some(check) = &self.check {
            check.validate()?;
        }
        let mut targets = BTreeSet::new();
        for mount in &self.mounts {
            mount.validate()?;
            if !targets.insert(&mount.target) {
                return invalid(format!("two mounts at {}", mount.target));
            }
        }
        Ok(())
    }
}

impl Check {
    fn validate(&self) -> Result<(), InvalidSpec> {
        duration("check start period", self.start_period)?;
        for (what, value) in [
            ("check interval", self.interval),
            ("check timeout", self.timeout),
        ] {
            duration(what, value)?;
            if value < MIN_CHECK {
                return invalid(format!(
                    "{what} of {value:?} is too short: at least {MIN_CHECK:?}"
                ));
            }
        }
        for (what, value) in [("rise", self.rise), ("fall", self.fall)] {
            if !(1..=MAX_RESULTS).contains(&value) {
                return invalid(format!(
                    "invalid check {what} {value}: expected 1 to {MAX_RESULTS}"
                ));
            }
        }
        match &self.probe {
            Probe::Http { path, .. } if !is_path(path) => {
                invalid(InvalidProbe(path.clone()).to_string())
            }
            Probe::Http { .. } | Probe::Tcp { .. } => Ok(()),
        }
    }
}

/// A check needs a way to the container that every runtime has, and that is a published port.
fn check_port(probe: &Probe, ports: &[PortSpec]) -> Result<(), InvalidSpec> {
    let targets = || {
        let tcp = ports.iter().filter(|port| port.protocol == Protocol::Tcp);
        tcp.map(|port| port.target)
    };
    match probe.port() {
        None if targets().next().is_none() => invalid(format!(
            "the check {probe} has no port to ask: publish a TCP port with --publish"
        )),
        Some(port) if !targets().any(|target| target == port) => invalid(format!(
            "the check {probe} asks port {port}, which is not published: publish it with \
             --publish (mode=host does), or name one of the published ports"
        )),
        _ => Ok(()),
    }
}

impl Mount {
    fn validate(&self) -> Result<(), InvalidSpec> {
        if !self.target.starts_with('/') {
            return invalid(format!(
                "invalid mount target {:?}: expected an absolute path",
                self.target
            ));
        }
        match self.kind {
            MountKind::Bind if !self.source.starts_with('/') => invalid(format!(
                "invalid bind source {:?}: expected an absolute path",
                self.source
            )),
            MountKind::Tmpfs if !self.source.is_empty() => invalid(format!(
                "a tmpfs mount has no source, but {:?} was given",
                self.source
            )),
            _ => Ok(()),
        }
    }
}

fn generic(generic: &BTreeMap<String, u64>) -> Result<(), InvalidSpec> {
    for (kind, &amount) in generic {
        let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/');
        if kind.is_empty() || !kind.bytes().all(inner) {
            return invalid(format!(
                "invalid generic resource {kind:?}: expected letters, digits, '-', '_', '.' or '/'"
            ));
        }
        if amount == 0 {
            return invalid(format!(
                "invalid generic resource {kind}=0: expected at least 1"
            ));
        }
    }
    Ok(())
}

fn name(name: &str) -> Result<(), InvalidSpec> {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let bytes = name.as_bytes();
    let well_formed = bytes.len() <= MAX_NAME
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|&b| inner(b));
    if well_formed {
        return Ok(());
    }
    invalid(format!(
        "invalid service name {name:?}: 1 to {MAX_NAME} letters, digits, '-' or '_', the first and last a letter or digit"
    ))
}

fn ports(ports: &[PortSpec]) -> Result<(), InvalidSpec> {
    let mut published = BTreeSet::new();
    for port in ports {
        if port.target == 0 {
            return invalid("invalid target port 0: expected 1 to 65535".to_owned());
        }
        if port.mode == PortMode::Ingress && port.protocol == Protocol::Udp {
            return invalid(format!(
                "port {}:{}/udp cannot be published through the ingress mesh: use mode=host",
                port.published, port.target
            ));
        }
        if port.mode == PortMode::Host
            && (port.proxy_protocol.is_some() || !port.accept_proxy.is_empty())
        {
            return invalid(format!(
                "port {}:{} cannot have the PROXY protocol with mode=host: it is the balancer's, \
                 which that mode goes without: use mode=ingress",
                port.published, port.target
            ));
        }
        if port.published != 0 && !published.insert((port.published, port.protocol)) {
            return invalid(format!(
                "port {}/{} is published twice",
                port.published, port.protocol
            ));
        }
    }
    Ok(())
}

fn mode(mode: ServiceMode, task: &TaskSpec) -> Result<(), InvalidSpec> {
    let replicas = mode.replicas().unwrap_or(0);
    if replicas > MAX_REPLICAS {
        return invalid(format!(
            "{replicas} replicas are too many: a service has at most {MAX_REPLICAS}"
        ));
    }
    if mode.is_global() && task.placement.max_replicas != 0 {
        return invalid(
            "replicas-max-per-node can only be used with replicated or replicated-job mode"
                .to_owned(),
        );
    }
    if mode.is_job() && task.restart.condition == RestartCondition::Any {
        return invalid(
            "restart condition any is not supported for jobs: a task that has completed is not \
             started again; use on-failure or none"
                .to_owned(),
        );
    }
    Ok(())
}

fn update(what: &str, config: &UpdateConfig, mode: ServiceMode) -> Result<(), InvalidSpec> {
    if mode.is_job() {
        return if *config == UpdateConfig::default() {
            Ok(())
        } else {
            invalid(JOB_WITH_UPDATE.to_owned())
        };
    }
    duration(&format!("{what} delay"), config.delay)?;
    duration(&format!("{what} monitor"), config.monitor)?;
    duration(
        &format!("{what} progress deadline"),
        config.progress_deadline,
    )?;
    if let Some(percent) = config.min_healthy_percent.filter(|&percent| percent > 100) {
        return invalid(format!(
            "{what} min healthy percent of {percent} cannot be met: at most 100"
        ));
    }
    if let Some(percent) = config.max_percent
        && !(100..=MAX_PERCENT).contains(&percent)
    {
        return invalid(format!(
            "invalid {what} max percent {percent}: expected 100 to {MAX_PERCENT}"
        ));
    }
    let Some(replicas) = mode.replicas() else {
        return global_update(what, config);
    };
    let Some(bounds) = config
        .bounds(mode, replicas as usize)
        .filter(|_| replicas > 0)
    else {
        return Ok(());
    };
    if bounds.min >= u64::from(replicas) && bounds.max <= u64::from(replicas) {
        return invalid(format!(
            "the {what} could never move: of {replicas} tasks at least {} must stay healthy and \
             at most {} may be started, so that none can be stopped and none added: lower the min \
             healthy percent, or raise the max percent",
            bounds.min, bounds.max
        ));
    }
    Ok(())
}

/// How many nodes there will be is not known, but with all of them healthy and none added there
/// is no number that could move.
fn global_update(what: &str, config: &UpdateConfig) -> Result<(), InvalidSpec> {
    let adds = config.max_percent.is_some_and(|percent| percent > 100);
    if adds || config.min_healthy_percent != Some(100) {
        return Ok(());
    }
    invalid(format!(
        "the {what} could never move: the task of each node must stay healthy and no other one \
         may be started beside it: lower the min healthy percent, or raise the max percent"
    ))
}

fn duration(what: &str, value: Duration) -> Result<(), InvalidSpec> {
    if value <= MAX_DURATION {
        return Ok(());
    }
    invalid(format!("{what} of {value:?} is too long: at most a year"))
}

fn invalid(message: String) -> Result<(), InvalidSpec> {
    Err(InvalidSpec(message))
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
