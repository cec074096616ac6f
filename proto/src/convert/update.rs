//! Updates of services.

use std::time::Duration;

use swarmlet_core::model::{
    FailureAction, FailureRatio, TaskId, Timestamp, UpdateConfig, UpdateOrder, UpdateState,
    UpdateStatus,
};

use super::Malformed;
use super::field::{enumeration, id, malformed, mirrored, nanoseconds};
use crate::v1;

mirrored!(FailureAction {
    Pause,
    Continue,
    Rollback,
});
mirrored!(UpdateOrder {
    StopFirst,
    StartFirst,
});
mirrored!(UpdateState {
    Updating,
    Paused,
    Completed,
    RollbackStarted,
    RollbackPaused,
    RollbackCompleted,
});

impl From<&UpdateConfig> for v1::UpdateConfig {
    fn from(config: &UpdateConfig) -> Self {
        Self {
            parallelism: config.parallelism,
            delay_ns: nanoseconds(config.delay),
            monitor_ns: nanoseconds(config.monitor),
            max_failure_ratio: config.max_failure_ratio.millionths(),
            failure_action: v1::FailureAction::from(config.failure_action).into(),
            order: v1::UpdateOrder::from(config.order).into(),
            min_healthy_percent: config.min_healthy_percent,
            max_percent: config.max_percent,
            progress_deadline_ns: nanoseconds(config.progress_deadline),
        }
    }
}

impl TryFrom<v1::UpdateConfig> for UpdateConfig {
    type Error = Malformed;

    fn try_from(message: v1::UpdateConfig) -> Result<Self, Malformed> {
        let ratio = message.max_failure_ratio;
        Ok(Self {
            parallelism: message.parallelism,
            delay: Duration::from_nanos(message.delay_ns),
            monitor: Duration::from_nanos(message.monitor_ns),
            max_failure_ratio: FailureRatio::from_millionths(ratio).ok_or_else(|| {
                let reason = format!("{ratio} millionths are more than the whole");
                malformed("max_failure_ratio", reason)
            })?,
            failure_action: enumeration::<v1::FailureAction, _>(
                "failure_action",
                message.failure_action,
            )?,
            order: enumeration::<v1::UpdateOrder, _>("order", message.order)?,
            min_healthy_percent: message.min_healthy_percent,
            max_percent: message.max_percent,
            progress_deadline: Duration::from_nanos(message.progress_deadline_ns),
        })
    }
}

impl From<&UpdateStatus> for v1::UpdateStatus {
    fn from(status: &UpdateStatus) -> Self {
        Self {
            state: v1::UpdateState::from(status.state).into(),
            started_at_ms: status.started_at.0,
            completed_at_ms: status.completed_at.map(|at| at.0),
            message: status.message.clone(),
            slots: status.slots,
            failures: status.failures,
            failed_task_id: status.failed_task.as_ref().map(ToString::to_string),
        }
    }
}

impl TryFrom<v1::UpdateStatus> for UpdateStatus {
    type Error = Malformed;

    fn try_from(message: v1::UpdateStatus) -> Result<Self, Malformed> {
        let failed = message.failed_task_id.as_deref();
        Ok(Self {
            state: enumeration::<v1::UpdateState, _>("state", message.state)?,
            started_at: Timestamp(message.started_at_ms),
            completed_at: message.completed_at_ms.map(Timestamp),
            message: message.message,
            slots: message.slots,
            failures: message.failures,
            failed_task: failed
                .map(|text| id("failed_task_id", text, TaskId::parse))
                .transpose()?,
        })
    }
}
