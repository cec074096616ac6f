//! Raft's messages as bytes.
//!
//! ```text
//! version (1) | receiver's raft id (8, big endian) | MessagePack
//! ```
//!
//! The receiver's number goes along because an address may have been given to another manager
//! since: an entry acknowledged by the wrong one would count for a quorum that there is not.

use bytes::Bytes;
use openraft::raft::InstallSnapshotRequest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::types::{SnapshotMeta, TypeConfig, Vote};

/// The layout above.
const VERSION: u8 = 1;

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
    #[error("the message cannot be decoded: {0}")]
    Decode(#[from] rmp_serde::decode::Error),
    #[error("the message cannot be encoded: {0}")]
    Encode(#[from] rmp_serde::encode::Error),
}

/// Encodes a message to, or an answer from, manager `raft_id`.
pub(crate) fn encode<T: Serialize>(raft_id: u64, message: &T) -> Result<Bytes, WireError> {
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(&raft_id.to_be_bytes());
    rmp_serde::encode::write(&mut bytes, message)?;
    Ok(bytes.into())
}

/// Decodes a message to, or an answer from, manager `raft_id`.
pub(crate) fn decode<T: DeserializeOwned>(raft_id: u64, bytes: &[u8]) -> Result<T, WireError> {
    let (version, rest) = bytes.split_first().ok_or(WireError::Short)?;
    if *version != VERSION {
        return Err(WireError::Version(*version));
    }
    let (wanted, body) = rest.split_first_chunk::<8>().ok_or(WireError::Short)?;
    let wanted = u64::from_be_bytes(*wanted);
    if wanted != raft_id {
        return Err(WireError::Receiver {
            wanted,
            this: raft_id,
        });
    }
    Ok(rmp_serde::from_slice(body)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_receiver_takes_a_message() {
        let bytes = encode(3, &("vote", 7_u64)).unwrap();
        assert_eq!(
            decode::<(String, u64)>(3, &bytes).unwrap(),
            ("vote".into(), 7)
        );
        assert!(matches!(
            decode::<(String, u64)>(4, &bytes),
            Err(WireError::Receiver { wanted: 3, this: 4 })
        ));
    }

    #[test]
    fn no_bytes_of_a_peer_panic() {
        let bytes = encode(3, &("vote", 7_u64)).unwrap();
        for end in 0..bytes.len() {
            assert!(decode::<(String, u64)>(3, &bytes[..end]).is_err());
        }
        let mut newer = bytes.to_vec();
        newer[0] = 9;
        assert!(matches!(
            decode::<(String, u64)>(3, &newer),
            Err(WireError::Version(9))
        ));
    }
}
