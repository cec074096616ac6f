//! Why a manager cannot be started, joined to the others, or taken away.

use swarmlet_core::apply::Rejection;
use swarmlet_proto::identity::IdentityError;
use swarmlet_proto::tls::TlsError;

use crate::ca::CaError;
use crate::raft::{MembersError, ProposeError, RaftError};
use crate::random::NoRandomness;

/// What went wrong with this manager as a whole.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// The replicated log cannot be used.
    #[error(transparent)]
    Raft(#[from] RaftError),
    /// The first certificate could not be made.
    #[error("cannot make the cluster's certificates")]
    Ca(#[from] CaError),
    /// The first identity could not be made.
    #[error("cannot make the node's identity")]
    Identity(#[from] IdentityError),
    /// The identity is of no use for TLS.
    #[error("cannot use the node's identity")]
    Tls(#[from] TlsError),
    /// No identifier could be drawn.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    /// The cluster's first entry was not committed.
    #[error("cannot write the new cluster's state")]
    Propose(#[from] ProposeError),
    /// The cluster's first entry was refused.
    #[error("the new cluster's state was refused")]
    Rejected(#[from] Rejection),
    /// The voters did not change.
    #[error(transparent)]
    Members(#[from] MembersError),
    /// No manager did what was asked.
    #[error("{what}: {reason}")]
    Managers {
        /// What was asked.
        what: &'static str,
        /// What the last one answered.
        reason: String,
    },
}
