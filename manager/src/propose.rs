//! Proposals of one command, which is what the services make.

use tonic::Status;

use swarmlet_core::apply::{Rejection, RejectionKind};
use swarmlet_core::command::Command;
use swarmlet_core::model::Version;

use crate::raft::{ProposeError, Raft};
use crate::status;

/// Why a command did not take effect.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The object changed since it was read; reading again may help.
    OutOfSequence(Rejection),
    /// The state does not allow it.
    Rejected(Rejection),
    /// It was not committed, or nobody knows.
    Failed(ProposeError),
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::OutOfSequence(rejection) | Refused::Rejected(rejection) => {
                status::of_rejection(&rejection)
            }
            Refused::Failed(error) => status::of_proposal(&error),
        }
    }
}

/// Proposes a command; returns the version at which it took effect.
pub(crate) async fn one(raft: &Raft, command: Command) -> Result<Version, Refused> {
    let committed = raft.propose(vec![command]).await.map_err(Refused::Failed)?;
    let rejection = committed.results.into_iter().find_map(Result::err);
    match rejection {
        None => Ok(committed.version),
        Some(rejection) if rejection.kind() == RejectionKind::OutOfSequence => {
            Err(Refused::OutOfSequence(rejection))
        }
        Some(rejection) => Err(Refused::Rejected(rejection)),
    }
}
