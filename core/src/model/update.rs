//! How a service goes from one version to the next, and how far it has come.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::id::TaskId;
use super::mode::ServiceMode;
use super::time::{Timestamp, nanoseconds};

/// How tasks are replaced by those of another specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateConfig {
    /// How many slots are replaced at the same time; zero is all of them. It does not count
    /// where `min_healthy_percent` or `max_percent` is given.
    pub parallelism: u32,
    /// The least time between a new task that runs and the next slot.
    #[serde(serialize_with = "nanoseconds")]
    pub delay: Duration,
    /// A new task that ends within this time after it began to run has failed the update.
    #[serde(serialize_with = "nanoseconds")]
    pub monitor: Duration,
    /// The share of the changed slots that may fail.
    pub max_failure_ratio: FailureRatio,
    /// What happens when more of them fail.
    pub failure_action: FailureAction,
    /// Which of the two tasks of a slot has to wait. It does not count where
    /// `min_healthy_percent` or `max_percent` is given.
    pub order: UpdateOrder,
    /// The least share of the tasks that run throughout (100 where only the other one is given,
    /// 0 with one task on each node), rounded up as ECS does.
    pub min_healthy_percent: Option<u32>,
    /// The largest share of the tasks that are started (200 where only the other one is given,
    /// 100 with one task on each node), rounded down as ECS does.
    pub max_percent: Option<u32>,
    /// An update in which nothing got ahead for this long, `delay` and `monitor` apart, has
    /// failed; zero is for ever.
    #[serde(serialize_with = "nanoseconds")]
    pub progress_deadline: Duration,
}

impl Default for UpdateConfig {
    /// Docker's values, and Nomad's progress deadline: Docker has none and hangs for ever.
    fn default() -> Self {
        Self {
            parallelism: 1,
            delay: Duration::ZERO,
            monitor: Duration::from_secs(5),
            max_failure_ratio: FailureRatio::default(),
            failure_action: FailureAction::default(),
            order: UpdateOrder::default(),
            min_healthy_percent: None,
            max_percent: None,
            progress_deadline: Duration::from_secs(600),
        }
    }
}

impl UpdateConfig {
    /// ECS's values for a percentage that is not given while the other one is: of services with
    /// a number of tasks, and of those with one on each node.
    const ECS_DEFAULTS: (u32, u32) = (100, 200);
    const ECS_GLOBAL_DEFAULTS: (u32, u32) = (0, 100);

    /// The bounds on the running ones of so many tasks, where percentages were given.
    ///
    /// How many nodes there are is not known when the percentages are checked, and it changes.
    /// So that no number of them stops an update for good, one task of a global service may
    /// stop even where the shares are rounded to all of them.
    #[must_use]
    pub fn bounds(&self, mode: ServiceMode, tasks: usize) -> Option<Bounds> {
        if self.min_healthy_percent.is_none() && self.max_percent.is_none() {
            return None;
        }
        let tasks = u64::try_from(tasks).unwrap_or(u64::MAX);
        let share = |percent: u32| tasks.saturating_mul(u64::from(percent));
        let (min, max) = if mode.is_global() {
            Self::ECS_GLOBAL_DEFAULTS
        } else {
            Self::ECS_DEFAULTS
        };
        let mut bounds = Bounds {
            min: share(self.min_healthy_percent.unwrap_or(min)).div_ceil(100),
            max: share(self.max_percent.unwrap_or(max)) / 100,
        };
        if mode.is_global() && bounds.max <= tasks {
            bounds.min = bounds.min.min(tasks.saturating_sub(1));
        }
        Some(bounds)
    }
}

/// How many tasks of a service run while it is updated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// At least so many are healthy.
    pub min: u64,
    /// At most so many have been started and not ended.
    pub max: u64,
}

/// A share from 0 to 1, kept in millionths: equal on every machine, as a float may not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct FailureRatio(u32);

impl FailureRatio {
    const ONE: u32 = 1_000_000;

    /// A share in millionths; `None` above the whole.
    #[must_use]
    pub fn from_millionths(millionths: u32) -> Option<Self> {
        (millionths <= Self::ONE).then_some(Self(millionths))
    }

    /// The share in millionths.
    #[must_use]
    pub fn millionths(self) -> u32 {
        self.0
    }

    /// Whether so many failures among so many slots are more than this share.
    #[must_use]
    pub fn is_exceeded(self, failures: u32, slots: u32) -> bool {
        let allowed = u64::from(self.0) * u64::from(slots.max(1));
        u64::from(failures) * u64::from(Self::ONE) > allowed
    }
}

/// A text that is no share.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid ratio {0:?}: expected a number from 0 to 1, such as 0.25")]
pub struct InvalidRatio(pub String);

impl FromStr for FailureRatio {
    type Err = InvalidRatio;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidRatio(text.to_owned());
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
            return Err(invalid());
        }
        let whole: u32 = match whole.trim_start_matches('0') {
            "" => 0,
            "1" => Self::ONE,
            _ => return Err(invalid()),
        };
        // Digits beyond a millionth are cut off: no service has so many slots.
        let fraction: u32 = fraction
            .bytes()
            .chain(std::iter::repeat(b'0'))
            .take(6)
            .fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
        Self::from_millionths(whole + fraction).ok_or_else(invalid)
    }
}

impl fmt::Display for FailureRatio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (f64::from(self.0) / f64::from(Self::ONE)).fmt(f)
    }
}

impl Serialize for FailureRatio {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(f64::from(self.0) / f64::from(Self::ONE))
    }
}

/// What happens when too much of an update fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FailureAction {
    /// It stops where it is.
    #[default]
    Pause,
    /// It goes on.
    Continue,
    /// The service goes back to the last version whose deployment completed.
    Rollback,
}

impl fmt::Display for FailureAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pause => "pause",
            Self::Continue => "continue",
            Self::Rollback => "rollback",
        })
    }
}

/// Which task of a slot has to wait for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateOrder {
    /// The new one starts once the old one has stopped. Its image is there before.
    #[default]
    StopFirst,
    /// The old one stops once the new one runs.
    StartFirst,
}

impl fmt::Display for UpdateOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::StopFirst => "stop-first",
            Self::StartFirst => "start-first",
        })
    }
}

/// How far the latest update of a service has come. Everything that a new leader has to know
/// to go on with it is in here and in the tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateStatus {
    /// Where it stands.
    pub state: UpdateState,
    /// When it was begun, or begun again after a pause.
    pub started_at: Timestamp,
    /// When it came to an end.
    pub completed_at: Option<Timestamp>,
    /// What is going on, in Docker's words.
    pub message: String,
    /// How many slots there were to change at its begin.
    pub slots: u32,
    /// New tasks that failed at the first attempt.
    pub failures: u32,
    /// The last of them.
    #[serde(rename = "FailedTaskID")]
    pub failed_task: Option<TaskId>,
}

impl UpdateStatus {
    /// Whether tasks are being replaced.
    #[must_use]
    pub fn is_active(&self) -> bool {
        matches!(
            self.state,
            UpdateState::Updating | UpdateState::RollbackStarted
        )
    }

    /// Whether it stopped in the middle.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        matches!(
            self.state,
            UpdateState::Paused | UpdateState::RollbackPaused
        )
    }
}

/// Where an update stands.
///
/// ```text
/// updating → completed
///     │  ↘ paused (→ updating, once the user asks again)
///     ↓
/// rollback_started → rollback_completed
///                  ↘ rollback_paused (→ rollback_started, likewise)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdateState {
    /// Tasks are being replaced.
    Updating,
    /// Too many of the new ones failed; nothing more is replaced.
    Paused,
    /// Every task is of the newest version.
    Completed,
    /// Tasks are being replaced by those of the version before.
    RollbackStarted,
    /// Too many of those failed as well.
    RollbackPaused,
    /// Every task is of the version before.
    RollbackCompleted,
}

impl fmt::Display for UpdateState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Updating => "updating",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::RollbackStarted => "rollback_started",
            Self::RollbackPaused => "rollback_paused",
            Self::RollbackCompleted => "rollback_completed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_read_and_printed() {
        for (text, millionths) in [
            ("0", Some(0)),
            ("1", Some(1_000_000)),
            ("0.25", Some(250_000)),
            (".5", Some(500_000)),
            ("1.0", Some(1_000_000)),
            ("0.1234567", Some(123_456)),
            ("1.1", None),
            ("2", None),
            ("-1", None),
            ("", None),
            (".", None),
            ("x", None),
            ("0.5x", None),
        ] {
            let ratio = text.parse::<FailureRatio>();
            assert_eq!(
                ratio.clone().ok().map(FailureRatio::millionths),
                millionths,
                "{text:?}"
            );
        }
        assert_eq!("0.25".parse::<FailureRatio>().unwrap().to_string(), "0.25");
        assert_eq!(FailureRatio::default().to_string(), "0");
    }

    #[test]
    fn a_ratio_is_exceeded_by_more_than_it() {
        let quarter: FailureRatio = "0.25".parse().unwrap();
        assert!(!quarter.is_exceeded(1, 4));
        assert!(!quarter.is_exceeded(1, 5));
        assert!(quarter.is_exceeded(2, 5));
        assert!(FailureRatio::default().is_exceeded(1, 100_000));
        assert!(!FailureRatio::default().is_exceeded(0, 0));
        assert!(FailureRatio::default().is_exceeded(1, 0));
    }

    #[test]
    fn bounds_are_rounded_as_ecs_does() {
        let global = ServiceMode::Global {};
        let counted = ServiceMode::Replicated { replicas: 0 };
        let bounds_of = |mode, min, max, tasks| {
            let config = UpdateConfig {
                min_healthy_percent: min,
                max_percent: max,
                ..UpdateConfig::default()
            };
            config
                .bounds(mode, tasks)
                .map(|bounds| (bounds.min, bounds.max))
        };
        let bounds = |min, max, tasks| bounds_of(counted, min, max, tasks);
        assert_eq!(bounds(None, None, 5), None);
        assert_eq!(bounds(Some(50), Some(200), 2), Some((1, 4)));
        assert_eq!(bounds(Some(20), Some(100), 5), Some((1, 5)));
        assert_eq!(bounds(Some(50), Some(150), 3), Some((2, 4)));
        assert_eq!(bounds(Some(50), None, 3), Some((2, 6)));
        assert_eq!(bounds(None, Some(125), 4), Some((4, 5)));
        let bounds = |min, max, tasks| bounds_of(global, min, max, tasks);
        assert_eq!(bounds(None, None, 5), None);
        assert_eq!(bounds(None, Some(100), 5), Some((0, 5)));
        assert_eq!(bounds(Some(50), None, 5), Some((3, 5)));
        assert_eq!(
            bounds(Some(50), None, 1),
            Some((0, 1)),
            "it must not stand still"
        );
        assert_eq!(bounds(Some(100), Some(200), 1), Some((1, 2)));
    }
}
