//! What a task runs.

use std::time::Duration;

use swarmlet_core::model::{
    ContainerSpec, HealthCheck, HealthTest, Mount, MountKind, RegistryAuth, ResourceRequirements,
    Resources, RestartCondition, RestartPolicy, TaskSpec,
};

use super::Malformed;
use super::field::{
    enumeration, list, malformed, messages, mirrored, nanoseconds, optional, required,
};
use crate::v1;
use crate::v1::health_check::{Disabled, Inherit, Test};

mirrored!(MountKind {
    Bind,
    Volume,
    Tmpfs,
});
mirrored!(RestartCondition {
    Any,
    OnFailure,
    None,
});

impl From<&TaskSpec> for v1::TaskSpec {
    fn from(spec: &TaskSpec) -> Self {
        Self {
            containers: messages(&spec.containers),
            resources: Some((&spec.resources).into()),
            restart: Some((&spec.restart).into()),
            placement: Some((&spec.placement).into()),
            force_update: spec.force_update,
            log_driver: spec.log_driver.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<v1::TaskSpec> for TaskSpec {
    type Error = Malformed;

    fn try_from(message: v1::TaskSpec) -> Result<Self, Malformed> {
        Ok(Self {
            containers: list("containers", message.containers)?,
            resources: required("resources", message.resources)?,
            restart: required("restart", message.restart)?,
            placement: required("placement", message.placement)?,
            force_update: message.force_update,
            log_driver: optional("log_driver", message.log_driver)?,
        })
    }
}

impl From<&ContainerSpec> for v1::ContainerSpec {
    fn from(spec: &ContainerSpec) -> Self {
        Self {
            image: spec.image.clone(),
            entrypoint: spec.entrypoint.clone(),
            args: spec.args.clone(),
            env: spec.env.clone(),
            labels: spec.labels.clone(),
            hostname: spec.hostname.clone(),
            user: spec.user.clone(),
            workdir: spec.workdir.clone(),
            mounts: messages(&spec.mounts),
            stop_signal: spec.stop_signal.clone(),
            stop_grace_period_ns: nanoseconds(spec.stop_grace_period),
            health: spec.health.as_ref().map(Into::into),
            registry_auth: spec.registry_auth.as_ref().map(|auth| v1::RegistryAuth {
                header: auth.0.clone(),
            }),
            check: spec.check.as_ref().map(Into::into),
            unhealthy_action: v1::UnhealthyAction::from(spec.unhealthy_action).into(),
            platforms: messages(&spec.platforms),
        }
    }
}

impl TryFrom<v1::ContainerSpec> for ContainerSpec {
    type Error = Malformed;

    fn try_from(message: v1::ContainerSpec) -> Result<Self, Malformed> {
        Ok(Self {
            image: message.image,
            entrypoint: message.entrypoint,
            args: message.args,
            env: message.env,
            labels: message.labels,
            hostname: message.hostname,
            user: message.user,
            workdir: message.workdir,
            mounts: list("mounts", message.mounts)?,
            stop_signal: message.stop_signal,
            stop_grace_period: Duration::from_nanos(message.stop_grace_period_ns),
            health: optional("health", message.health)?,
            registry_auth: message.registry_auth.map(|auth| RegistryAuth(auth.header)),
            check: optional("check", message.check)?,
            unhealthy_action: enumeration::<v1::UnhealthyAction, _>(
                "unhealthy_action",
                message.unhealthy_action,
            )?,
            platforms: list("platforms", message.platforms)?,
        })
    }
}

impl From<&Mount> for v1::Mount {
    fn from(mount: &Mount) -> Self {
        Self {
            kind: v1::MountKind::from(mount.kind).into(),
            source: mount.source.clone(),
            target: mount.target.clone(),
            read_only: mount.read_only,
        }
    }
}

impl TryFrom<v1::Mount> for Mount {
    type Error = Malformed;

    fn try_from(message: v1::Mount) -> Result<Self, Malformed> {
        Ok(Self {
            kind: enumeration::<v1::MountKind, _>("kind", message.kind)?,
            source: message.source,
            target: message.target,
            read_only: message.read_only,
        })
    }
}

impl From<&HealthCheck> for v1::HealthCheck {
    fn from(check: &HealthCheck) -> Self {
        let test = match &check.test {
            HealthTest::Inherit => Test::Inherit(Inherit {}),
            HealthTest::Shell(command) => Test::Shell(command.clone()),
            HealthTest::Disabled => Test::Disabled(Disabled {}),
        };
        Self {
            test: Some(test),
            interval_ns: check.interval.map(nanoseconds),
            timeout_ns: check.timeout.map(nanoseconds),
            start_period_ns: check.start_period.map(nanoseconds),
            start_interval_ns: check.start_interval.map(nanoseconds),
            retries: check.retries,
        }
    }
}

impl TryFrom<v1::HealthCheck> for HealthCheck {
    type Error = Malformed;

    fn try_from(message: v1::HealthCheck) -> Result<Self, Malformed> {
        let test = match message.test {
            Some(Test::Inherit(Inherit {})) => HealthTest::Inherit,
            Some(Test::Shell(command)) => HealthTest::Shell(command),
            Some(Test::Disabled(Disabled {})) => HealthTest::Disabled,
            None => return Err(malformed("test", "missing, or unknown")),
        };
        Ok(Self {
            test,
            interval: message.interval_ns.map(Duration::from_nanos),
            timeout: message.timeout_ns.map(Duration::from_nanos),
            start_period: message.start_period_ns.map(Duration::from_nanos),
            start_interval: message.start_interval_ns.map(Duration::from_nanos),
            retries: message.retries,
        })
    }
}

impl From<&ResourceRequirements> for v1::ResourceRequirements {
    fn from(requirements: &ResourceRequirements) -> Self {
        Self {
            limits: Some((&requirements.limits).into()),
            reservations: Some((&requirements.reservations).into()),
        }
    }
}

impl TryFrom<v1::ResourceRequirements> for ResourceRequirements {
    type Error = Malformed;

    fn try_from(message: v1::ResourceRequirements) -> Result<Self, Malformed> {
        Ok(Self {
            limits: required("limits", message.limits)?,
            reservations: required("reservations", message.reservations)?,
        })
    }
}

impl From<&Resources> for v1::Resources {
    fn from(resources: &Resources) -> Self {
        Self {
            nano_cpus: resources.nano_cpus,
            memory_bytes: resources.memory_bytes,
            pids: resources.pids,
            generic: resources.generic.clone(),
        }
    }
}

impl TryFrom<v1::Resources> for Resources {
    type Error = Malformed;

    fn try_from(message: v1::Resources) -> Result<Self, Malformed> {
        Ok(Self {
            nano_cpus: message.nano_cpus,
            memory_bytes: message.memory_bytes,
            pids: message.pids,
            generic: message.generic,
        })
    }
}

impl From<&RestartPolicy> for v1::RestartPolicy {
    fn from(policy: &RestartPolicy) -> Self {
        Self {
            condition: v1::RestartCondition::from(policy.condition).into(),
            delay_ns: nanoseconds(policy.delay),
            max_attempts: policy.max_attempts,
            window_ns: nanoseconds(policy.window),
        }
    }
}

impl TryFrom<v1::RestartPolicy> for RestartPolicy {
    type Error = Malformed;

    fn try_from(message: v1::RestartPolicy) -> Result<Self, Malformed> {
        Ok(Self {
            condition: enumeration::<v1::RestartCondition, _>("condition", message.condition)?,
            delay: Duration::from_nanos(message.delay_ns),
            max_attempts: message.max_attempts,
            window: Duration::from_nanos(message.window_ns),
        })
    }
}
