//! From an accepted client to a connected endpoint, over several if need be.
//!
//! No byte of the client is read meanwhile, so that a failed try leaves no trace.

use std::sync::Arc;

use tokio::net::TcpStream;

use super::{
    probe,
    socket::{ConnectError, connect},
};
use crate::{
    health::Outcome,
    port::{Lease, Port},
    select::EndpointKey,
    shared::Shared,
};

/// Tries for one client. More would keep it waiting for longer than it takes
/// to try anew, and multiply the connects while everything is down.
const MAX_TRIES: u32 = 3;

/// Connects to an endpoint of the port. `None` when all that were tried failed
/// or there is none.
pub(super) async fn reach(port: &Arc<Port>, shared: &Arc<Shared>) -> Option<(TcpStream, Lease)> {
    let mut failed: Vec<EndpointKey> = Vec::new();
    let mut refused: Vec<EndpointKey> = Vec::new();
    let mut timeout = shared.timeouts.connect;
    for _ in 0..MAX_TRIES {
        // Another endpoint if there is one; else one that stayed silent, for
        // a SYN may have been lost. One that refused will refuse again.
        let lease = match port.choose(&failed) {
            Some(lease) => lease,
            None if failed.is_empty() => return None,
            None => port.choose(&refused)?,
        };
        let key = lease.endpoint().key;
        match connect(lease.endpoint().address, timeout).await {
            Ok(stream) => {
                lease.count_connected();
                // A success never asks for a prober.
                let _ = port.observe(key, Outcome::Connected, "");
                return Some((stream, lease));
            }
            Err(error) => {
                lease.count_failure();
                note_failure(port, shared, &lease, &error);
                failed.push(key);
                if matches!(error, ConnectError::Refused) {
                    refused.push(key);
                }
            }
        }
        timeout *= 2;
    }
    None
}

fn note_failure(port: &Arc<Port>, shared: &Arc<Shared>, lease: &Lease, error: &ConnectError) {
    let endpoint = lease.endpoint();
    tracing::debug!(
        port = endpoint.port,
        endpoint = endpoint.id,
        address = %endpoint.address,
        %error,
        "connect failed"
    );
    let Some(outcome) = error.outcome() else {
        return;
    };
    if let Some(target) = port.observe(endpoint.key, outcome, &error.to_string()) {
        probe::spawn(Arc::clone(port), Arc::clone(shared), target);
    }
}
