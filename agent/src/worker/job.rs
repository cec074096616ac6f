//! Carrying out one step.

use std::sync::Arc;
use std::time::Duration;

use swarmlet_core::model::{Task, TaskId, TaskPort};

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
}

impl Job {
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
