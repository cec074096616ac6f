//! Connections to other managers, one to each address.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tonic::transport::Channel;

use swarmlet_core::model::{Role, Timestamp};
use swarmlet_proto::transport::{self, IdentityStore};

/// Hands out channels; a copy shares them. A channel connects when it is first used and
/// again after it broke. Once the certificate was renewed there is another one: a connection goes
/// on to show the certificate that it was made with, and where that had ended, calls are refused.
#[derive(Clone)]
pub(crate) struct Dialer {
    identity: IdentityStore,
    channels: Arc<Mutex<BTreeMap<SocketAddr, Dialed>>>,
}

/// A channel, and when the certificate ends that it was made with.
struct Dialed {
    channel: Channel,
    not_after: Timestamp,
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
        let not_after = self.identity.identity().not_after;
        let dial = || Dialed {
            channel: transport::channel(address, &self.identity, Role::Manager),
            not_after,
        };
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let dialed = channels.entry(address).or_insert_with(dial);
        if dialed.not_after != not_after {
            *dialed = dial();
        }
        dialed.channel.clone()
    }
}
