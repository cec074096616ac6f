//! Proposals of one command, which is what the services make, and of many, which the leader makes.

use tonic::Status;

use swarmlet_core::apply::{Rejection, RejectionKind};
use swarmlet_core::command::Command;
use swarmlet_core::event::Event;
use swarmlet_core::model::Version;

use crate::raft::{ProposeError, Raft};
use crate::status;

/// Commands of one proposal at most: an entry of so many statuses or tasks of a few hundred bytes
/// stays far below what an entry may have.
const MAX_COMMANDS: usize = 256;

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

/// Proposes commands in order, in as many proposals as they need, and tells what became of each.
///
/// # Errors
/// As a proposal's; those that were told of have been committed.
pub(crate) async fn in_order(
    raft: &Raft,
    mut commands: Vec<Command>,
    mut told: impl FnMut(&Command, Result<&[Event], &Rejection>),
) -> Result<(), ProposeError> {
    let mut most = MAX_COMMANDS;
    while !commands.is_empty() {
        let rest = commands.split_off(commands.len().min(most));
        match raft.propose(commands.clone()).await {
            Ok(committed) => {
                for (command, result) in commands.iter().zip(&committed.results) {
                    told(command, result.as_deref());
                }
                commands = rest;
            }
            // Each task carries its specification, and a user may have made that a large one.
            Err(ProposeError::TooLarge { .. }) if commands.len() > 1 => {
                most = commands.len().div_ceil(2);
                commands.extend(rest);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
