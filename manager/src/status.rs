//! The one place where refusals and failures become gRPC status codes.

use tonic::Status;
use tonic::metadata::MetadataValue;

use swarmlet_core::apply::{Rejection, RejectionKind};
use swarmlet_core::model::InvalidSpec;

use crate::ca::CaError;
use crate::raft::{MembersError, ProposeError};
use crate::random::NoRandomness;

/// Docker's text for managers without a quorum.
pub(crate) const NO_LEADER: &str = "The swarm does not have a leader. It's possible that too \
    few managers are online. Make sure more than half of the managers are online.";

/// Present in answers of a manager that does not lead and has done nothing.
pub(crate) const NOT_LEADER_KEY: &str = "x-swarmlet-not-leader";

/// The answer of a manager that does not lead; nothing was done, so asking again is safe.
pub(crate) fn not_leader() -> Status {
    let mut status = Status::unavailable(NO_LEADER);
    status
        .metadata_mut()
        .insert(NOT_LEADER_KEY, MetadataValue::from_static("1"));
    status
}

/// Why a proposal was not taken.
pub(crate) fn of_proposal(error: &ProposeError) -> Status {
    match error {
        ProposeError::NotLeader { .. } => not_leader(),
        ProposeError::NoQuorum => Status::unavailable(NO_LEADER),
        ProposeError::TooLarge { .. } => Status::out_of_range(error.to_string()),
        ProposeError::Stopped => Status::unavailable("this manager is stopping"),
        ProposeError::NoSpace { .. } => Status::resource_exhausted(error.to_string()),
        ProposeError::Storage(_) => Status::internal(chain(error)),
    }
}

/// Why the latest state could not be read. Nothing was done by that, so whoever asked may ask
/// again: a leader that was taken out of the voters has no quorum, and soon knows that another
/// one leads.
pub(crate) fn of_read(error: &ProposeError) -> Status {
    match error {
        ProposeError::NoQuorum => not_leader(),
        other => of_proposal(other),
    }
}

/// Why the voters stay as they are.
pub(crate) fn of_members(error: &MembersError) -> Status {
    match error {
        MembersError::Propose(error) => of_proposal(error),
        MembersError::InProgress => Status::aborted(error.to_string()),
        MembersError::NotCaughtUp { .. } => Status::deadline_exceeded(error.to_string()),
        MembersError::LossOfQuorum { .. }
        | MembersError::LastVoter(_)
        | MembersError::Taken { .. } => Status::failed_precondition(error.to_string()),
    }
}

/// Why a command was refused.
pub(crate) fn of_rejection(rejection: &Rejection) -> Status {
    let text = rejection.to_string();
    match rejection.kind() {
        RejectionKind::NotFound => Status::not_found(text),
        RejectionKind::AlreadyExists => Status::already_exists(text),
        RejectionKind::OutOfSequence => Status::aborted(text),
        RejectionKind::FailedPrecondition => Status::failed_precondition(text),
        RejectionKind::Invalid => Status::invalid_argument(text),
    }
}

/// Why a specification cannot be carried out.
pub(crate) fn of_spec(error: &InvalidSpec) -> Status {
    Status::invalid_argument(error.to_string())
}

/// Why there is no certificate.
pub(crate) fn of_ca(error: &CaError) -> Status {
    match error {
        CaError::Request(_) | CaError::Algorithm => Status::invalid_argument(chain(error)),
        CaError::Root(_) => Status::internal(chain(error)),
    }
}

/// Why there is no identifier.
pub(crate) fn of_randomness(error: NoRandomness) -> Status {
    Status::internal(error.to_string())
}

/// An error with its causes, for those that cross the wire as text.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
