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

pub mod convert;
pub mod expelled;
pub mod identity;
mod redacted;
pub mod tls;
pub mod token;
pub mod transport;
pub mod v1;

pub use convert::{decode_proposal, decode_snapshot, encode_proposal, encode_snapshot};
