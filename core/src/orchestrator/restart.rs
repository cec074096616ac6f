//! Whether and when a task that ended is succeeded by another one in its slot.
//!
//! Ends in a row without a stable run in between make the pause grow: none after the first,
//! then 1 s, 2 s, 4 s … up to five minutes, each with up to a quarter of jitter on top so that
//! the slots of a service do not restart in step. That is at most eight starts of a slot
//! in any minute. What the pause grows from is in the state, so a new leader goes on with it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Pass;
use crate::model::{
    NodeId, RestartCondition, RestartHistory, RestartPolicy, Service, Task, TaskId, TaskState,
    TaskStatus, Timestamp, Version,
};
use crate::random::Random;

/// A run of this length makes up for the failures before it.
const STABLE_RUN: Duration = Duration::from_secs(60);

/// The pause after the second end in a row; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause. A cause that somebody removes is then noticed within minutes.
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);

/// The shortest pause after a task could not be started at all: most often its image is
/// missing, and the registry is to be asked at most once in this time.
const REJECTED_PAUSE: Duration = Duration::from_secs(10);

/// How a new task starts.
#[derive(Debug)]
pub(super) struct Plan {
    history: RestartHistory,
    message: String,
    waits: bool,
}

impl Plan {
    /// The first task of its slot.
    pub(super) fn fresh() -> Self {
        Self {
            history: RestartHistory::default(),
            message: "created".to_owned(),
            waits: false,
        }
    }

    /// The task of a slot in its next version: what befell those before it is over.
    pub(super) fn update() -> Self {
        Self {
            message: "created by an update".to_owned(),
            ..Self::fresh()
        }
    }

    /// The same, but prepared only and not started yet where another task has to stop first.
    pub(super) fn behind(mut self, another: bool) -> Self {
        self.waits |= another;
        self
    }

    /// A replacement on another node. It was not the task's fault, so there is no pause; but
    /// its failures are not forgotten.
    pub(super) fn replace(task: &Task, now: Timestamp) -> Self {
        let mut history = RestartHistory {
            not_before: Timestamp::default(),
            ..task.restart
        };
        if was_stable(&task.status, now) {
            history.failures = 0;
        }
        Self {
            history,
            message: if task.moving {
                "created to move a task to another node".to_owned()
            } else {
                "created to replace a task that its node does not keep".to_owned()
            },
            waits: false,
        }
    }

    /// The successor of a task that ended, or `None` where the policy wants none.
    pub(super) fn after(ended: &Task, policy: &RestartPolicy, pass: &mut Pass<'_>) -> Option<Self> {
        if ended.status.state == TaskState::Orphaned {
            return Some(Self::replace(ended, pass.now));
        }
        let (history, pause) = next(ended, policy, pass.now, &mut pass.random)?;
        let failures = history.failures;
        Some(Self {
            history,
            waits: false,
            message: if pause.is_zero() {
                "restarted".to_owned()
            } else {
                let seconds = pause.as_secs_f64();
                format!("restart {failures} in a row, after a pause of {seconds:.1} s")
            },
        })
    }
}

/// When a task that ended is started again by its own node, which no manager answers: as its
/// successor would be, had a manager made one. `ran_for` is how long it ran; `None` where the
/// policy wants no restart.
#[must_use]
pub fn restart_in_place(
    ended: &Task,
    ran_for: Duration,
    now: Timestamp,
    seed: u64,
) -> Option<RestartHistory> {
    let mut ended = ended.clone();
    if ran_for >= STABLE_RUN {
        ended.restart.failures = 0;
    }
    let policy = ended.spec.restart;
    next(&ended, &policy, now, &mut Random::new(seed)).map(|(history, _)| history)
}

/// The history with a restart after this end, and the pause before it.
fn next(
    ended: &Task,
    policy: &RestartPolicy,
    now: Timestamp,
    random: &mut Random,
) -> Option<(RestartHistory, Duration)> {
    let (attempts, window_start) = attempts_before(ended, policy)?;
    let mut pause = back_off(ended.restart.failures, random);
    if ended.status.state == TaskState::Rejected {
        pause = pause.max(REJECTED_PAUSE);
    }
    pause = pause.saturating_add(policy.delay);
    let history = RestartHistory {
        failures: ended.restart.failures.saturating_add(1),
        attempts: attempts.saturating_add(1),
        window_start,
        not_before: now.after(pause),
    };
    Some((history, pause))
}

/// Whether a slot is left as it is after the end of its task: the policy wants no other one.
#[must_use]
pub fn is_over(ended: &Task, policy: &RestartPolicy) -> bool {
    ended.status.state != TaskState::Orphaned && attempts_before(ended, policy).is_none()
}

/// The restarts that count in the window, and its beginning; `None` where the policy wants no
/// further one.
fn attempts_before(ended: &Task, policy: &RestartPolicy) -> Option<(u32, Timestamp)> {
    if !wants_restart(policy.condition, ended.status.state) {
        return None;
    }
    let history = &ended.restart;
    // Measured at the task's end and not now, so that a decision against a restart stays.
    let expired =
        !policy.window.is_zero() && ended.status.at.since(history.window_start) >= policy.window;
    let (attempts, window_start) = if history.attempts == 0 || expired {
        (0, ended.status.at)
    } else {
        (history.attempts, history.window_start)
    };
    let exhausted = policy.max_attempts != 0 && attempts >= policy.max_attempts;
    (!exhausted).then_some((attempts, window_start))
}

/// Whether a task had run long enough by `at` for its failures to be forgotten.
pub(crate) fn was_stable(before: &TaskStatus, at: Timestamp) -> bool {
    before.state == TaskState::Running && at.since(before.at) >= STABLE_RUN
}

/// Makes the task that a plan is for.
pub(super) fn task(
    service: &Service,
    plan: Plan,
    (slot, home): (u32, Option<NodeId>),
    now: Timestamp,
    random: &mut Random,
) -> Task {
    let waits = plan.waits || plan.history.not_before > now;
    Task {
        id: TaskId::from_random(random.next_u128()),
        version: Version::default(),
        service: service.id.clone(),
        service_name: service.spec.name.clone(),
        slot,
        home,
        node: None,
        generic_names: BTreeMap::new(),
        spec: service.spec.task.clone(),
        ports: service.spec.ports.clone(),
        spec_version: service.spec_version,
        created_at: now,
        desired: if waits {
            TaskState::Ready
        } else {
            TaskState::Running
        },
        status: TaskStatus {
            state: TaskState::New,
            at: now,
            message: plan.message,
            error: None,
            container: None,
            ports: Vec::new(),
        },
        restart: plan.history,
        moving: false,
        draining: None,
    }
}

/// Nobody asked a member of a slot to stop, so one that was shut down was stopped by its node
/// on leaving, or by somebody at the engine: that is no end which a policy speaks of, and the
/// slot is filled again.
fn wants_restart(condition: RestartCondition, ended: TaskState) -> bool {
    ended == TaskState::Shutdown
        || match condition {
            RestartCondition::Any => true,
            RestartCondition::OnFailure => ended > TaskState::Complete,
            RestartCondition::None => false,
        }
}

pub(super) fn back_off(failures: u32, random: &mut Random) -> Duration {
    let Some(doublings) = failures.checked_sub(1) else {
        return Duration::ZERO;
    };
    let pause = FIRST_PAUSE
        .saturating_mul(1u32.checked_shl(doublings).unwrap_or(u32::MAX))
        .min(LONGEST_PAUSE);
    let quarter_ms = u64::try_from(pause.as_millis() / 4).unwrap_or(u64::MAX);
    pause + Duration::from_millis(random.below(quarter_ms))
}
