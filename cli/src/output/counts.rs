//! The REPLICAS column of `service ls`, as Docker counts them.

use std::fmt;

use swarmlet_core::model::{Service, ServiceMode, Task, TaskState};

/// How many tasks of a service run, how many should, and, of a job, how many have completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    running: usize,
    wanted: usize,
    /// Of how many.
    completed: Option<(usize, usize)>,
}

impl Counts {
    pub(crate) fn of<'a>(service: &Service, tasks: impl Iterator<Item = &'a Task>) -> Self {
        let (mut running, mut wanted, mut completed) = (0, 0, 0);
        for task in tasks {
            let state = task.status.state;
            let done = service.spec.mode.is_job()
                && state == TaskState::Complete
                && !service.is_outdated(task);
            // One that was told to stop has completed all the same.
            if task.desired > TaskState::Running && !done {
                continue;
            }
            running += usize::from(state == TaskState::Running);
            completed += usize::from(done);
            // One that is on its way out of the balancers is not wanted any more.
            wanted += usize::from(task.draining.is_none() && !done);
        }
        let (wanted, completed) = match service.spec.mode {
            ServiceMode::Replicated { replicas } => (replicas as usize, None),
            // The nodes that are to have a task are those that have one.
            ServiceMode::Global {} => (wanted, None),
            ServiceMode::ReplicatedJob {
                max_concurrent,
                total_completions,
            } => {
                let at_once = at_once(max_concurrent, total_completions) as usize;
                (at_once, Some((completed, total_completions as usize)))
            }
            ServiceMode::GlobalJob {} => (wanted, Some((completed, wanted + completed))),
        };
        Self {
            running,
            wanted,
            completed,
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.running, self.wanted)?;
        match self.completed {
            Some((completed, total)) => write!(f, " ({completed}/{total} completed)"),
            None => Ok(()),
        }
    }
}

/// How many tasks of a job may run at the same time: all of them where no number was given.
pub(crate) fn at_once(max_concurrent: u32, total_completions: u32) -> u32 {
    match max_concurrent {
        0 => total_completions,
        limit => limit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::samples::{service, task};

    #[track_caller]
    fn check(mode: ServiceMode, states: &[TaskState], expected: &str) {
        let mut service = service(1, "ng", 1);
        service.spec.mode = mode;
        let tasks: Vec<Task> = (1..)
            .zip(states)
            .map(|(slot, &state)| task(&service, slot.into(), slot, state))
            .collect();
        let found = Counts::of(&service, tasks.iter()).to_string();
        assert_eq!(found, expected, "{mode:?} {states:?}");
    }

    #[test]
    fn each_mode_counts_in_its_way() {
        use TaskState::{Complete, Failed, Pending, Running};
        let job = |max_concurrent| ServiceMode::ReplicatedJob {
            max_concurrent,
            total_completions: 5,
        };
        let replicated = ServiceMode::Replicated { replicas: 3 };
        check(replicated, &[Running, Pending], "1/3");
        check(replicated, &[Complete], "0/3");
        check(ServiceMode::Global {}, &[Running, Running, Pending], "2/3");
        check(ServiceMode::Global {}, &[], "0/0");
        check(job(2), &[Complete, Running, Pending], "1/2 (1/5 completed)");
        check(job(0), &[Complete; 5], "0/5 (5/5 completed)");
        let one_each = ServiceMode::GlobalJob {};
        check(
            one_each,
            &[Complete, Running, Failed],
            "1/2 (1/3 completed)",
        );
        check(one_each, &[Complete; 3], "0/0 (3/3 completed)");
    }

    #[test]
    fn a_run_before_counts_no_more() {
        let mut service = service(1, "job", 1);
        service.spec.mode = ServiceMode::GlobalJob {};
        let before = task(&service, 1, 1, TaskState::Complete);
        service.spec_version.0 += 1;
        let found = Counts::of(&service, std::iter::once(&before)).to_string();
        assert_eq!(found, "0/1 (0/1 completed)");
    }
}
