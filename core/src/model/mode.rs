//! How many tasks a service has, and whether they are to end.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// How many tasks a service has. It is chosen once: a service never changes its mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub enum ServiceMode {
    /// A number of identical tasks, one in each slot.
    #[serde(rename_all = "PascalCase")]
    Replicated {
        /// How many.
        replicas: u32,
    },
    /// One task on each node that meets the constraints.
    Global {},
    /// A number of tasks that run to completion, each once.
    #[serde(rename_all = "PascalCase")]
    ReplicatedJob {
        /// How many may run at the same time; zero is all of them.
        max_concurrent: u32,
        /// How many are to complete.
        total_completions: u32,
    },
    /// One task on each node that meets the constraints, which runs to completion there.
    GlobalJob {},
}

impl ServiceMode {
    /// How many tasks the mode asks for by number; `None` where it is a matter of the nodes.
    #[must_use]
    pub fn replicas(self) -> Option<u32> {
        match self {
            Self::Replicated { replicas } => Some(replicas),
            Self::ReplicatedJob {
                total_completions, ..
            } => Some(total_completions),
            Self::Global {} | Self::GlobalJob {} => None,
        }
    }

    /// The same mode with another number of tasks; `None` where it is a matter of the nodes.
    #[must_use]
    pub fn scaled(self, replicas: u32) -> Option<Self> {
        match self {
            Self::Replicated { .. } => Some(Self::Replicated { replicas }),
            Self::ReplicatedJob { max_concurrent, .. } => Some(Self::ReplicatedJob {
                max_concurrent,
                total_completions: replicas,
            }),
            Self::Global {} | Self::GlobalJob {} => None,
        }
    }

    /// Whether its tasks are to end, and are not started again once they have completed.
    #[must_use]
    pub fn is_job(self) -> bool {
        matches!(self, Self::ReplicatedJob { .. } | Self::GlobalJob {})
    }

    /// Whether it has one task on each node.
    #[must_use]
    pub fn is_global(self) -> bool {
        matches!(self, Self::Global {} | Self::GlobalJob {})
    }

    /// What kind of mode it is.
    #[must_use]
    pub fn kind(self) -> ModeKind {
        match self {
            Self::Replicated { .. } => ModeKind::Replicated,
            Self::Global {} => ModeKind::Global,
            Self::ReplicatedJob { .. } => ModeKind::ReplicatedJob,
            Self::GlobalJob {} => ModeKind::GlobalJob,
        }
    }
}

/// A mode without its numbers, in Docker's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModeKind {
    /// `replicated`
    Replicated,
    /// `global`
    Global,
    /// `replicated-job`
    ReplicatedJob,
    /// `global-job`
    GlobalJob,
}

impl ModeKind {
    /// The mode of a new service before its numbers are set: one task, or one completion.
    #[must_use]
    pub fn initial(self) -> ServiceMode {
        match self {
            Self::Replicated => ServiceMode::Replicated { replicas: 1 },
            Self::Global => ServiceMode::Global {},
            Self::ReplicatedJob => ServiceMode::ReplicatedJob {
                max_concurrent: 0,
                total_completions: 1,
            },
            Self::GlobalJob => ServiceMode::GlobalJob {},
        }
    }
}

impl ModeKind {
    const ALL: [Self; 4] = [
        Self::Replicated,
        Self::Global,
        Self::ReplicatedJob,
        Self::GlobalJob,
    ];
}

impl fmt::Display for ModeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Replicated => "replicated",
            Self::Global => "global",
            Self::ReplicatedJob => "replicated-job",
            Self::GlobalJob => "global-job",
        })
    }
}

/// A text that is no mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid mode {0:?}: expected replicated, global, replicated-job or global-job")]
pub struct InvalidMode(pub String);

impl FromStr for ModeKind {
    type Err = InvalidMode;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.to_string() == text)
            .ok_or_else(|| InvalidMode(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_read_as_they_are_printed() {
        for kind in ModeKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert_eq!(
            "globl".parse::<ModeKind>().map_err(|e| e.to_string()),
            Err(
                "invalid mode \"globl\": expected replicated, global, replicated-job or \
                 global-job"
                    .to_owned()
            )
        );
    }

    #[test]
    fn only_modes_with_a_number_are_scaled() {
        let job = ServiceMode::ReplicatedJob {
            max_concurrent: 2,
            total_completions: 5,
        };
        assert_eq!(job.replicas(), Some(5));
        assert_eq!(job.scaled(7).and_then(ServiceMode::replicas), Some(7));
        assert_eq!(ServiceMode::Global {}.scaled(7), None);
        assert_eq!(ServiceMode::GlobalJob {}.replicas(), None);
    }
}
