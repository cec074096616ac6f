//! `--mode`, `--replicas` and `--max-concurrent`, with Docker's refusals.

use anyhow::{Context, Result, bail};
use swarmlet_core::model::{ModeKind, RestartCondition, RestartPolicy, ServiceMode};

use crate::args::ServiceFlags;

/// The restart policy of a new service: what has completed is not started again where that was
/// the purpose.
pub(super) fn restart(kind: ModeKind) -> RestartPolicy {
    let mut policy = RestartPolicy::default();
    if kind.initial().is_job() {
        policy.condition = RestartCondition::OnFailure;
    }
    policy
}

/// Sets the numbers that were given.
///
/// # Errors
/// The mode has no such number.
pub(super) fn set_numbers(mode: &mut ServiceMode, flags: &ServiceFlags) -> Result<()> {
    if let Some(replicas) = flags.replicas {
        *mode = mode
            .scaled(replicas)
            .context("replicas can only be used with replicated or replicated-job mode")?;
    }
    if let Some(limit) = flags.max_concurrent {
        let ServiceMode::ReplicatedJob { max_concurrent, .. } = mode else {
            bail!("max-concurrent can only be used with replicated-job mode");
        };
        *max_concurrent = limit;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
