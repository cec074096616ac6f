//! The cluster itself: its settings, its certificate authority and who may join.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::id::ClusterId;
use super::node::Role;
use super::time::{Timestamp, Version, nanoseconds};

/// The cluster as its managers keep it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Cluster {
    /// Its identifier.
    #[serde(rename = "ID")]
    pub id: ClusterId,
    /// Index of the last change.
    pub version: Version,
    /// When it was made.
    pub created_at: Timestamp,
    /// Settings.
    pub spec: ClusterSpec,
    /// The authority that signs every node's certificate.
    #[serde(skip)]
    pub root_ca: RootCa,
    /// What a worker must know to join.
    #[serde(skip)]
    pub worker_secret: JoinSecret,
    /// What a manager must know to join.
    #[serde(skip)]
    pub manager_secret: JoinSecret,
    /// The version of the state's schema in use; raised only once every manager knows it.
    pub schema: u32,
    /// The number that the next manager gets.
    pub next_raft_id: u64,
    /// Zero, and a greater number each time that a manager went on without the others
    /// ([`recovery`](crate::recovery)); whoever has a smaller one has a state of the past.
    pub incarnation: u64,
}

impl Cluster {
    /// The newest schema version of the state that this program knows.
    pub const SCHEMA: u32 = 1;

    /// What a node must know to join with a role.
    #[must_use]
    pub fn join_secret(&self, role: Role) -> &JoinSecret {
        match role {
            Role::Worker => &self.worker_secret,
            Role::Manager => &self.manager_secret,
        }
    }
}

/// Settings of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ClusterSpec {
    /// Ended tasks kept for each slot, to be looked at.
    pub task_history_limit: u32,
    /// Without a heartbeat for this long a node is `unknown`.
    #[serde(serialize_with = "nanoseconds")]
    pub node_unknown_after: Duration,
    /// Unknown for this long a node is `down`, and its tasks are replaced.
    #[serde(serialize_with = "nanoseconds")]
    pub node_replace_delay: Duration,
}

impl Default for ClusterSpec {
    fn default() -> Self {
        Self {
            task_history_limit: 5,
            node_unknown_after: Duration::from_secs(4),
            node_replace_delay: Duration::from_secs(3),
        }
    }
}

/// The root certificate and its key.
#[derive(Clone, PartialEq, Eq)]
pub struct RootCa {
    /// Certificate in DER.
    pub certificate: Vec<u8>,
    /// Private key, PKCS #8 in DER. It is in the replicated state because every manager signs.
    pub key: Vec<u8>,
}

impl fmt::Debug for RootCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootCa(…)")
    }
}

/// What is kept of a join token: enough to recognise its secret, not to know it.
///
/// The secret is derived from the root key, the role and `salt`, so that every manager can
/// show the token again although only a hash is stored; rotation is a new salt.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinSecret {
    /// Random bytes, new with each rotation.
    pub salt: [u8; 16],
    /// SHA-256 of the secret.
    pub sha256: [u8; 32],
}

impl fmt::Debug for JoinSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinSecret(…)")
    }
}
