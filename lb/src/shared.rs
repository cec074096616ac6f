//! What the parts of one balancer have in common.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{event::Hub, run::Timeouts, select::EndpointKey};

/// Handed to every part; cheap to share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) timeouts: Timeouts,
    pub(crate) events: Hub,
    /// Every client connection; empty means drained.
    pub(crate) connections: TaskTracker,
    /// Probes, which nobody waits for but the end.
    pub(crate) probes: TaskTracker,
    /// Cancelled when the process ends: what still runs is reset.
    pub(crate) abort: CancellationToken,
    /// One permit for each connection there may be: accepting pauses before
    /// the descriptors run out.
    pub(crate) capacity: Arc<Semaphore>,
    next_key: AtomicU64,
}

impl Shared {
    pub(crate) fn new(timeouts: Timeouts, max_connections: usize) -> Self {
        Self {
            timeouts,
            events: Hub::new(),
            connections: TaskTracker::new(),
            probes: TaskTracker::new(),
            abort: CancellationToken::new(),
            capacity: Arc::new(Semaphore::new(
                max_connections.clamp(1, Semaphore::MAX_PERMITS),
            )),
            next_key: AtomicU64::new(1),
        }
    }

    pub(crate) fn next_key(&self) -> EndpointKey {
        EndpointKey(self.next_key.fetch_add(1, Ordering::Relaxed))
    }
}
