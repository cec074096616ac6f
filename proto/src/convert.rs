//! Between wire messages and the model: `v1::X::from(&model)` and `Model::try_from(message)`.
//!
//! The way out cannot fail. The way in refuses whatever the model cannot hold, and says which
//! field it was; nothing that a peer or a disk sends panics or turns into a default.

mod check;
mod cluster;
mod command;
mod container;
mod endpoints;
mod field;
mod log;
mod node;
mod placement;
mod ports;
mod problem;
mod service;
mod snapshot;
mod task;
mod update;

pub use command::{decode_proposal, encode_proposal};
pub use snapshot::{decode_snapshot, encode_snapshot};

/// A message that the model cannot hold.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Malformed {
    /// A field is missing, or its value is none that it can have.
    #[error("malformed {field}: {reason}")]
    Field {
        /// The way to it from the message that was converted: `spec.ports[1].target`.
        field: String,
        /// What is wrong, with the value unless that may be a secret.
        reason: String,
    },
    /// A command of a kind that this program does not know. A newer manager wrote it; going on
    /// without it would let this replica's state diverge from the others'.
    #[error(
        "command {position} of the log entry is of a kind that this version of swarmlet does \
         not know: upgrade it"
    )]
    UnknownCommand {
        /// Its place in the entry, from 0.
        position: usize,
    },
    /// The bytes are no message at all.
    #[error("undecodable {what}")]
    Bytes {
        /// What they should have been.
        what: &'static str,
        /// Why they cannot be decoded.
        #[source]
        source: prost::DecodeError,
    },
}

impl From<Malformed> for tonic::Status {
    fn from(error: Malformed) -> Self {
        Self::invalid_argument(error.to_string())
    }
}
