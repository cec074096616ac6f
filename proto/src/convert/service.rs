//! Services.

use std::time::Duration;

use swarmlet_core::model::{
    LbPolicy, Rebalance, Service, ServiceId, ServiceMode, ServiceSpec, Timestamp, Version,
};

use super::Malformed;
use super::field::{
    enumeration, id, list, malformed, messages, mirrored, nanoseconds, optional, required,
};
use crate::v1;
use crate::v1::service_spec::Mode;

mirrored!(LbPolicy {
    RoundRobin,
    LeastConn,
    SourceHash
});

impl From<&Service> for v1::Service {
    fn from(service: &Service) -> Self {
        Self {
            id: service.id.to_string(),
            version: service.version.0,
            created_at_ms: service.created_at.0,
            updated_at_ms: service.updated_at.0,
            spec: Some((&service.spec).into()),
            spec_version: service.spec_version.0,
            removing: service.removing,
            previous_spec: service.previous_spec.as_deref().map(Into::into),
            update_status: service.update_status.as_ref().map(Into::into),
            rebalance: service.rebalance.map(|rebalance| v1::Rebalance {
                started_at_ms: rebalance.started_at.0,
                moves_left: rebalance.moves_left,
            }),
        }
    }
}

impl TryFrom<v1::Service> for Service {
    type Error = Malformed;

    fn try_from(message: v1::Service) -> Result<Self, Malformed> {
        Ok(Self {
            id: id("id", &message.id, ServiceId::parse)?,
            version: Version(message.version),
            created_at: Timestamp(message.created_at_ms),
            updated_at: Timestamp(message.updated_at_ms),
            spec: required("spec", message.spec)?,
            spec_version: Version(message.spec_version),
            removing: message.removing,
            previous_spec: optional("previous_spec", message.previous_spec)?.map(Box::new),
            update_status: optional("update_status", message.update_status)?,
            rebalance: message.rebalance.map(|rebalance| Rebalance {
                started_at: Timestamp(rebalance.started_at_ms),
                moves_left: rebalance.moves_left,
            }),
        })
    }
}

impl From<&ServiceSpec> for v1::ServiceSpec {
    fn from(spec: &ServiceSpec) -> Self {
        Self {
            name: spec.name.clone(),
            labels: spec.labels.clone(),
            mode: Some(mode_message(spec.mode)),
            task: Some((&spec.task).into()),
            ports: messages(&spec.ports),
            lb_policy: v1::LbPolicy::from(spec.lb_policy).into(),
            lb_prefer_local: spec.lb_prefer_local,
            drain_timeout_ns: nanoseconds(spec.drain_timeout),
            update: Some((&spec.update).into()),
            rollback: Some((&spec.rollback).into()),
        }
    }
}

impl TryFrom<v1::ServiceSpec> for ServiceSpec {
    type Error = Malformed;

    fn try_from(message: v1::ServiceSpec) -> Result<Self, Malformed> {
        Ok(Self {
            name: message.name,
            labels: message.labels,
            mode: mode(message.mode)?,
            task: required("task", message.task)?,
            ports: list("ports", message.ports)?,
            lb_policy: enumeration::<v1::LbPolicy, _>("lb_policy", message.lb_policy)?,
            lb_prefer_local: message.lb_prefer_local,
            drain_timeout: Duration::from_nanos(message.drain_timeout_ns),
            update: optional("update", message.update)?.unwrap_or_default(),
            rollback: optional("rollback", message.rollback)?.unwrap_or_default(),
        })
    }
}

fn mode_message(mode: ServiceMode) -> Mode {
    match mode {
        ServiceMode::Replicated { replicas } => Mode::Replicated(v1::Replicated { replicas }),
        ServiceMode::Global {} => Mode::Global(v1::Global {}),
        ServiceMode::ReplicatedJob {
            max_concurrent,
            total_completions,
        } => Mode::ReplicatedJob(v1::ReplicatedJob {
            max_concurrent,
            total_completions,
        }),
        ServiceMode::GlobalJob {} => Mode::GlobalJob(v1::GlobalJob {}),
    }
}

fn mode(message: Option<Mode>) -> Result<ServiceMode, Malformed> {
    Ok(match message {
        Some(Mode::Replicated(v1::Replicated { replicas })) => ServiceMode::Replicated { replicas },
        Some(Mode::Global(v1::Global {})) => ServiceMode::Global {},
        Some(Mode::ReplicatedJob(job)) => ServiceMode::ReplicatedJob {
            max_concurrent: job.max_concurrent,
            total_completions: job.total_completions,
        },
        Some(Mode::GlobalJob(v1::GlobalJob {})) => ServiceMode::GlobalJob {},
        None => return Err(malformed("mode", "missing, or unknown")),
    })
}
