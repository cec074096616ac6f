//! The cluster, with what must never be printed of it.

use std::time::Duration;

use swarmlet_core::model::{
    Cluster, ClusterId, ClusterSpec, JoinSecret, RootCa, Timestamp, Version,
};

use super::Malformed;
use super::field::{array, id, malformed, nanoseconds, required};
use crate::v1;

impl From<&Cluster> for v1::Cluster {
    fn from(cluster: &Cluster) -> Self {
        Self {
            id: cluster.id.to_string(),
            version: cluster.version.0,
            created_at_ms: cluster.created_at.0,
            spec: Some((&cluster.spec).into()),
            root_ca: Some((&cluster.root_ca).into()),
            worker_secret: Some((&cluster.worker_secret).into()),
            manager_secret: Some((&cluster.manager_secret).into()),
            schema: cluster.schema,
            next_raft_id: cluster.next_raft_id,
            incarnation: cluster.incarnation,
        }
    }
}

impl TryFrom<v1::Cluster> for Cluster {
    type Error = Malformed;

    fn try_from(message: v1::Cluster) -> Result<Self, Malformed> {
        Ok(Self {
            id: id("id", &message.id, ClusterId::parse)?,
            version: Version(message.version),
            created_at: Timestamp(message.created_at_ms),
            spec: required("spec", message.spec)?,
            root_ca: required("root_ca", message.root_ca)?,
            worker_secret: required("worker_secret", message.worker_secret)?,
            manager_secret: required("manager_secret", message.manager_secret)?,
            schema: message.schema,
            next_raft_id: message.next_raft_id,
            incarnation: message.incarnation,
        })
    }
}

impl From<&ClusterSpec> for v1::ClusterSpec {
    fn from(spec: &ClusterSpec) -> Self {
        Self {
            task_history_limit: spec.task_history_limit,
            node_unknown_after_ns: nanoseconds(spec.node_unknown_after),
            node_replace_delay_ns: nanoseconds(spec.node_replace_delay),
        }
    }
}

impl TryFrom<v1::ClusterSpec> for ClusterSpec {
    type Error = Malformed;

    fn try_from(message: v1::ClusterSpec) -> Result<Self, Malformed> {
        Ok(Self {
            task_history_limit: message.task_history_limit,
            node_unknown_after: Duration::from_nanos(message.node_unknown_after_ns),
            node_replace_delay: Duration::from_nanos(message.node_replace_delay_ns),
        })
    }
}

impl From<&RootCa> for v1::RootCa {
    fn from(root: &RootCa) -> Self {
        Self {
            certificate: root.certificate.clone(),
            key: root.key.clone(),
        }
    }
}

impl TryFrom<v1::RootCa> for RootCa {
    type Error = Malformed;

    fn try_from(message: v1::RootCa) -> Result<Self, Malformed> {
        for (field, bytes) in [("certificate", &message.certificate), ("key", &message.key)] {
            if bytes.is_empty() {
                return Err(malformed(field, "missing"));
            }
        }
        Ok(Self {
            certificate: message.certificate,
            key: message.key,
        })
    }
}

impl From<&JoinSecret> for v1::JoinSecret {
    fn from(secret: &JoinSecret) -> Self {
        Self {
            salt: secret.salt.to_vec(),
            sha256: secret.sha256.to_vec(),
        }
    }
}

impl TryFrom<v1::JoinSecret> for JoinSecret {
    type Error = Malformed;

    fn try_from(message: v1::JoinSecret) -> Result<Self, Malformed> {
        Ok(Self {
            salt: array("salt", &message.salt)?,
            sha256: array("sha256", &message.sha256)?,
        })
    }
}
