//! Raft's messages as bytes.
//!
//! ```text
//! version (1) | receiver's raft id (8, big endian) | incarnation (8, big endian) | MessagePack
//! ```
//!
//! The receiver's number goes along because an address may have been given to another manager
//! since: an entry acknowledged by the wrong one would count for a quorum that there is not. So would
//! one of a manager whose state is of another incarnation of the cluster ([`super::lineage`]).

use bytes::Bytes;
use openraft::raft::InstallSnapshotRequest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::types::{SnapshotMeta, TypeConfig, Vote};

/// The layout above.
const VERSION: u8 = 2;

/// The library's `InstallSnapshotRequest` with the data as bytes: its own encoding makes an
/// array of four million numbers of a chunk, which takes seconds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Chunk {
    vote: Vote,
    meta: SnapshotMeta,
    offset: u64,
    #[serde(with = "serde_bytes")]
    data: Vec<u8>,
    done: bool,
}

impl From<InstallSnapshotRequest<TypeConfig>> for Chunk {
    fn from(request: InstallSnapshotRequest<TypeConfig>) -> Self {
        Self {
            vote: request.vote,
            meta: request.meta,
            offset: request.offset,
            data: request.data,
            done: request.done,
        }
    }
}

impl From<Chunk> for InstallSnapshotRequest<TypeConfig> {
    fn from(chunk: Chunk) -> Self {
        Self {
            vote: chunk.vote,
            meta: chunk.meta,
            offset: chunk.offset,
            data: chunk.data,
            done: chunk.done,
        }
    }
}

/// Why a message is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error("the message is too short")]
    Short,
    #[error("the message has format {0}, this manager knows format {VERSION}")]
    Version(u8),
    #[error("the message is for manager {wanted}, this is manager {this}")]
    Receiver { wanted: u64, this: u64 },
    #[error("the message is of incarnation {theirs} of the cluster, this manager is of {own}")]
    Incarnation { theirs: u64, own: u64 },
    #[error("the message cannot be decoded: {0}")]
    Decode(#[from] rmp_serde::decode::Error),
    #[error("the message cannot be encoded: {0}")]
    Encode(#[from] rmp_serde::encode::Error),
}

/// The two ends of a message: the manager that it is to or from, and the incarnation that both
/// are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) raft_id: u64,
    pub(crate) incarnation: u64,
}

/// Encodes a message to, or an answer from, a manager.
pub(crate) fn encode<T: Serialize>(ends: Ends, message: &T) -> Result<Bytes, WireError> {
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(&ends.raft_id.to_be_bytes());
    bytes.extend_from_slice(&ends.incarnation.to_be_bytes());
    rmp_serde::encode::write(&mut bytes, message)?;
    Ok(bytes.into())
}

/// Decodes a message to, or an answer from, a manager.
pub(crate) fn decode<T: DeserializeOwned>(ends: Ends, bytes: &[u8]) -> Result<T, WireError> {
    let (version, rest) = bytes.split_first().ok_or(WireError::Short)?;
    if *version != VERSION {
        return Err(WireError::Version(*version));
    }
    let (wanted, rest) = rest.split_first_chunk::<8>().ok_or(WireError::Short)?;
    let (theirs, body) = rest.split_first_chunk::<8>().ok_or(WireError::Short)?;
    // Before the number: that one may have been given out twice, once in each of them.
    let (theirs, own) = (u64::from_be_bytes(*theirs), ends.incarnation);
    if theirs != own {
        return Err(WireError::Incarnation { theirs, own });
    }
    let wanted = u64::from_be_bytes(*wanted);
    if wanted != ends.raft_id {
        return Err(WireError::Receiver {
            wanted,
            this: ends.raft_id,
        });
    }
    Ok(rmp_serde::from_slice(body)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(raft_id: u64) -> Ends {
        Ends {
            raft_id,
            incarnation: 70,
        }
    }

    #[test]
    fn only_the_receiver_takes_a_message() {
        let bytes = encode(to(3), &("vote", 7_u64)).unwrap();
        assert_eq!(
            decode::<(String, u64)>(to(3), &bytes).unwrap(),
            ("vote".into(), 7)
        );
        assert!(matches!(
            decode::<(String, u64)>(to(4), &bytes),
            Err(WireError::Receiver { wanted: 3, this: 4 })
        ));
    }

    #[test]
    fn only_the_same_incarnation_takes_a_message() {
        let bytes = encode(to(3), &("vote", 7_u64)).unwrap();
        for own in [0, 69, 71] {
            let other = Ends {
                incarnation: own,
                ..to(3)
            };
            let refused = decode::<(String, u64)>(other, &bytes).unwrap_err();
            assert!(
                matches!(refused, WireError::Incarnation { theirs: 70, .. }),
                "{refused}"
            );
        }
    }

    #[test]
    fn no_bytes_of_a_peer_panic() {
        let bytes = encode(to(3), &("vote", 7_u64)).unwrap();
        for end in 0..bytes.len() {
            assert!(decode::<(String, u64)>(to(3), &bytes[..end]).is_err());
        }
        let mut newer = bytes.to_vec();
        newer[0] = 9;
        assert!(matches!(
            decode::<(String, u64)>(to(3), &newer),
            Err(WireError::Version(9))
        ));
    }
}
