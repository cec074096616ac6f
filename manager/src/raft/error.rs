//! What can go wrong with Raft, as seen from outside.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use swarmlet_core::recovery::RecoveryError;

/// Why Raft does not start, or has stopped for good.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RaftError {
    /// A file of Raft was changed by something other than swarmlet, or lost bytes.
    ///
    /// Going on would drop writes that were acknowledged, so there is no automatic way out.
    #[error(
        "the Raft data in {path} is damaged: {reason}; restore the data directory from a backup of this node, \
         or remove this manager from another one and join it again with an empty data directory"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// This node has been a manager before, but its log is not there.
    #[error(
        "the Raft log {path} is missing although this node has been a manager before; restore the data \
         directory, or remove this manager from another one and join it again with an empty data directory"
    )]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// Another process has the log open.
    #[error(
        "the Raft log {path} is in use by another process; is another swarmlet daemon running?"
    )]
    Locked {
        /// Which file.
        path: PathBuf,
    },
    /// The file system refused something.
    #[error("cannot {action} {path}: {reason}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// The timings contradict each other.
    #[error("the Raft timings do not fit together: {0}")]
    Timings(String),
    /// This node has been made part of a cluster before.
    #[error("this node's Raft log is already in use, a new cluster cannot be made of it")]
    AlreadyBootstrapped,
    /// Storage failed, or an entry could not be applied; this replica has stopped.
    #[error("Raft has stopped on this manager: {0}")]
    Failed(String),
    /// Its state is none to go on with alone.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// [`Raft::shutdown`](super::Raft::shutdown) was called.
    #[error("Raft has been shut down on this manager")]
    Stopped,
}

impl RaftError {
    pub(crate) fn file(action: &'static str, path: &std::path::Path, error: &io::Error) -> Self {
        Self::File {
            action,
            path: path.to_owned(),
            reason: error.to_string(),
        }
    }

    pub(crate) fn damaged(path: &std::path::Path, reason: impl ToString) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            reason: reason.to_string(),
        }
    }
}

/// A manager that leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leader {
    /// Its number among the voters.
    pub raft_id: u64,
    /// Where it listens.
    pub address: SocketAddr,
}

/// Why a proposal brought no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another manager leads, or none; nothing was written.
    #[error("this manager is not the leader")]
    NotLeader {
        /// Who leads, where that is known.
        leader: Option<Leader>,
    },
    /// Too few managers answered in time. The outcome is unknown: the proposal may still be
    /// applied once they do.
    #[error("more than half of the managers must answer, and they did not")]
    NoQuorum,
    /// The proposal is larger than a log entry may be.
    #[error("the proposal has {size} bytes, a log entry may have {limit}")]
    TooLarge {
        /// Encoded size in bytes.
        size: usize,
        /// The most there may be, in bytes.
        limit: usize,
    },
    /// The disk is almost full; nothing was written.
    #[error(
        "the disk of this manager has {free_mib} MiB left, writes are refused below {floor_mib} MiB: free some space"
    )]
    NoSpace {
        /// Free space in MiB.
        free_mib: u64,
        /// What has to be free, in MiB.
        floor_mib: u64,
    },
    /// Storage failed on this manager; the outcome is unknown.
    #[error("this manager's Raft storage has failed: {0}")]
    Storage(String),
    /// Raft has been shut down on this manager; the outcome is unknown.
    #[error("Raft has been shut down on this manager")]
    Stopped,
}

/// Why the voters stay as they are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembersError {
    /// The change itself could not be written.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// Fewer managers would answer than the new set of voters needs.
    #[error(
        "this would result in a loss of quorum: of {voters} managers {needed} must answer, only {reachable} would"
    )]
    LossOfQuorum {
        /// Voters after the change.
        voters: usize,
        /// How many of them decide.
        needed: usize,
        /// How many of them answer now.
        reachable: usize,
    },
    /// The last manager cannot go.
    #[error("manager {0} is the last one, it cannot be removed")]
    LastVoter(u64),
    /// The number or the address belongs to another manager.
    #[error("manager {raft_id} is at {address} already")]
    Taken {
        /// Whose it is.
        raft_id: u64,
        /// Where that one listens.
        address: SocketAddr,
    },
    /// The new manager did not get up to date in time.
    #[error(
        "manager {raft_id} at {address} did not catch up within {waited_s} s; does it run, and is its port open?"
    )]
    NotCaughtUp {
        /// Which.
        raft_id: u64,
        /// Where it should listen.
        address: SocketAddr,
        /// How long it had, in seconds.
        waited_s: u64,
    },
    /// Another change is under way.
    #[error("another change of the managers is under way, try again")]
    InProgress,
}
