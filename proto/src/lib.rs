//! Wire formats of swarmlet, and the authenticated transport that carries them.
//!
//! [`v1`] is generated from the .proto files; [`convert`] turns its messages into the model
//! of `swarmlet-core` and back and refuses what the model cannot hold. [`token`] and
//! [`identity`] say who may talk, [`tls`] makes TLS configurations of an identity, and
//! [`transport`] makes channels and servers of those. [`expelled`] is how a node learns that it is
//! not one of the cluster's any more.
//!
//! This crate must not know what a call does: no decision, no state, no RPC implementation.
//! It does not issue certificates either; the managers' authority does.

pub mod clock;
pub mod convert;
pub mod expelled;
pub mod identity;
mod redacted;
pub mod tls;
pub mod token;
pub mod transport;
pub mod v1;

pub use convert::{decode_proposal, decode_snapshot, encode_proposal, encode_snapshot};

/// The largest request that managers take from users and nodes, in bytes: the specification of a
/// service is the largest thing in one. It is far below what a log entry may have, so that whatever
/// is taken can be written down.
pub const REQUEST_LIMIT_BYTES: usize = 1 << 20;

/// The largest message that users and nodes take from managers, whom they trust: all tasks of a
/// large cluster, or all of a node, each with its specification. Without a limit a manager that has
/// gone mad would take the memory of every node.
pub const ANSWER_LIMIT_BYTES: usize = 256 << 20;
