//! The identity that new connections use, and the connections that stand.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::{ClientConfig, ServerConfig};
use swarmlet_core::model::NodeId;
use tokio_util::sync::CancellationToken;

use crate::identity::Identity;
use crate::tls::{self, TlsError};

/// A node's current identity with the TLS configurations made of it; cheap to clone, and all
/// clones see a replacement at once.
///
/// It also knows which connections other nodes have to this one, so that those of a node that
/// was removed can be ended: a stream that was opened with a credential must not outlive it.
#[derive(Clone)]
pub struct IdentityStore {
    shared: Arc<Shared>,
}

struct Shared {
    current: ArcSwap<Current>,
    /// Ends the connections of a node. At most one entry for each node of the cluster.
    connections: Mutex<BTreeMap<NodeId, CancellationToken>>,
}

struct Current {
    identity: Arc<Identity>,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl IdentityStore {
    /// Starts with an identity.
    ///
    /// # Errors
    /// [`TlsError`] where it is unusable.
    pub fn new(identity: Identity) -> Result<Self, TlsError> {
        Ok(Self {
            shared: Arc::new(Shared {
                current: ArcSwap::from_pointee(Current::new(identity)?),
                connections: Mutex::default(),
            }),
        })
    }

    /// The current identity.
    #[must_use]
    pub fn identity(&self) -> Arc<Identity> {
        self.shared.current.load().identity.clone()
    }

    /// Uses a renewed identity for all connections from now on. Those that stand go on until
    /// the old certificate ends.
    ///
    /// # Errors
    /// [`TlsError`] where it is unusable or of another node; the old one stays then.
    pub fn replace(&self, identity: Identity) -> Result<(), TlsError> {
        let old = self.identity();
        if (&identity.node, &identity.cluster) != (&old.node, &old.cluster) {
            return Err(TlsError::OtherNode {
                expected: old.node.to_string(),
                found: identity.node.to_string(),
            });
        }
        self.shared.current.store(Arc::new(Current::new(identity)?));
        Ok(())
    }

    /// Ends all connections that the node has opened to this one, with every stream in them.
    /// To be called when a node was removed; that it opens no new stream is for the access
    /// rules to see to, which look the caller up in the state.
    pub fn disconnect(&self, node: &NodeId) {
        let ended = self.connections().remove(node);
        if let Some(token) = ended {
            token.cancel();
        }
    }

    pub(super) fn server_config(&self) -> Arc<ServerConfig> {
        self.shared.current.load().server.clone()
    }

    pub(super) fn client_config(&self) -> Arc<ClientConfig> {
        self.shared.current.load().client.clone()
    }

    /// The token that is cancelled when connections of that node are to end.
    pub(super) fn connection_of(&self, node: &NodeId) -> CancellationToken {
        self.connections()
            .entry(node.clone())
            .or_default()
            .child_token()
    }

    fn connections(&self) -> std::sync::MutexGuard<'_, BTreeMap<NodeId, CancellationToken>> {
        // Nothing panics while it holds the lock, and a map of tokens has no state between.
        self.shared
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for IdentityStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("IdentityStore")
            .field(&self.identity())
            .finish()
    }
}

impl Current {
    fn new(identity: Identity) -> Result<Self, TlsError> {
        Ok(Self {
            server: Arc::new(tls::server_config(&identity)?),
            client: Arc::new(tls::client_config(&identity)?),
            identity: Arc::new(identity),
        })
    }
}
