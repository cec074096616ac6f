//! The types that the consensus library is set up with, and the short names for its own.

use std::io::Cursor;
use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use swarmlet_core::apply::Rejection;
use swarmlet_core::event::Event;

openraft::declare_raft_types!(
    /// What the entries, answers, nodes and snapshots of swarmlet's Raft are.
    pub(crate) TypeConfig:
        D = Payload,
        R = Outcome,
        NodeId = u64,
        Node = Peer,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = Cursor<Vec<u8>>,
        Responder = openraft::impls::OneshotResponder<TypeConfig>,
        AsyncRuntime = openraft::TokioRuntime,
);

pub(crate) type Entry = openraft::Entry<TypeConfig>;
pub(crate) type LogId = openraft::LogId<u64>;
pub(crate) type Vote = openraft::Vote<u64>;
pub(crate) type StoredMembership = openraft::StoredMembership<u64, Peer>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<u64, Peer>;
pub(crate) type Snapshot = openraft::Snapshot<TypeConfig>;
pub(crate) type StorageError = openraft::StorageError<u64>;
pub(crate) type Consensus = openraft::Raft<TypeConfig>;

/// An encoded `Proposal`, as it came.
///
/// Entries stay bytes on their way through the log and over the network, so that a replica
/// never writes an entry other than the one it was given, not even where a newer program put
/// fields into it that this one does not know.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Payload(pub(crate) Bytes);

impl std::fmt::Debug for Payload {
    /// The length alone: entries hold the root key and registry credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_bytes::serialize(self.0.as_ref(), serializer)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes: Vec<u8> = serde_bytes::deserialize(deserializer)?;
        Ok(Self(bytes.into()))
    }
}

/// What applying an entry brought, one result for each command in it.
///
/// The library asks for a serialisable type although it never sends one: the results go from
/// the state machine to the proposer within one process, and are left out of any encoding.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    #[serde(skip)]
    pub(crate) results: Vec<Result<Vec<Event>, Rejection>>,
}

/// Where a manager listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
}

impl Default for Peer {
    /// Nowhere; the library wants a default for members that it was given no node for, which
    /// never happens here.
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        }
    }
}
