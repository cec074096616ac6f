//! Carrying out one step.

use std::sync::Arc;
use std::time::Duration;

use swarmlet_core::model::{Task, TaskId, TaskPort};
use tokio::sync::watch;

use super::entry::{Outcome, Step};
use crate::runtime::{Runtime, RuntimeError, Scope};

/// One step with all that it needs.
pub(super) struct Job {
    pub(super) step: Step,
    pub(super) id: TaskId,
    pub(super) task: Option<Task>,
    pub(super) ports: Vec<TaskPort>,
    pub(super) grace: Duration,
    pub(super) scope: Arc<Scope>,
    pub(super) runtime: Arc<dyn Runtime>,
    /// What the balancer has of the node's own endpoints, and what it is to have.
    pub(super) routed: (watch::Receiver<u64>, u64),
}

/// How long a start waits for the balancer: one that is being replaced is back by then, and
/// one that is away sends nothing anywhere.
const ROUTED_WAIT: Duration = Duration::from_millis(500);

impl Job {
    /// Waits until the balancer has let go of the containers that are gone: the engine may give
    /// the address of any of them to a container that is started now.
    async fn wait_for_balancer(&self) {
        let (mut routed, number) = self.routed.clone();
        let has = routed.wait_for(|has| *has >= number);
        if tokio::time::timeout(ROUTED_WAIT, has).await.is_err() {
            tracing::debug!("the balancer is not up to date; a container is started all the same");
        }
    }

    pub(super) async fn run(self) -> Result<Outcome, RuntimeError> {
        let (runtime, scope) = (&self.runtime, &*self.scope);
        let without_task = || RuntimeError::Rejected("a container without a task".to_owned());
        match self.step {
            Step::Prepare => {
                let task = self.task.as_ref().ok_or_else(without_task)?;
                runtime.prepare(scope, task).await?;
                Ok(Outcome::Prepared)
            }
            Step::Start => {
                let task = self.task.as_ref().ok_or_else(without_task)?;
                self.wait_for_balancer().await;
                let container = runtime.start(scope, task, &self.ports).await?;
                Ok(Outcome::Found(Some(container)))
            }
            Step::Inspect => Ok(Outcome::Found(runtime.inspect(scope, &self.id).await?)),
            Step::Stop => {
                runtime.stop(scope, &self.id, self.grace).await?;
                Ok(Outcome::Found(runtime.inspect(scope, &self.id).await?))
            }
            Step::Remove => {
                runtime.remove(scope, &self.id).await?;
                Ok(Outcome::Removed)
            }
        }
    }
}
