//! Connections to other managers, one to each address.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tonic::transport::Channel;

use swarmlet_core::model::Role;
use swarmlet_proto::transport::{self, IdentityStore};

/// Hands out channels; a copy shares them. A channel connects when it is first used and
/// again after it broke.
#[derive(Clone)]
pub(crate) struct Dialer {
    identity: IdentityStore,
    channels: Arc<Mutex<BTreeMap<SocketAddr, Channel>>>,
}

impl Dialer {
    /// Makes a dialer that shows this identity.
    pub(crate) fn new(identity: IdentityStore) -> Self {
        Self {
            identity,
            channels: Arc::default(),
        }
    }

    /// The channel to a manager. There are as many as a cluster ever had managers.
    pub(crate) fn channel(&self, address: SocketAddr) -> Channel {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels
            .entry(address)
            .or_insert_with(|| transport::channel(address, &self.identity, Role::Manager))
            .clone()
    }
}
