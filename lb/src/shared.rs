//! What the parts of one balancer have in common.

use std::{
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
};

use tokio::{runtime::Handle, sync::Notify};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    access::Log,
    budget::Budget,
    event::Hub,
    run::Timeouts,
    select::EndpointKey,
    socket::ephemeral_ports,
    sources::{SourceLimits, Sources},
};

/// Handed to every part; cheap to share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) timeouts: Timeouts,
    pub(crate) events: Hub,
    /// Room for client connections.
    pub(crate) room: Arc<Room>,
    /// Memory for bytes on their way.
    pub(crate) budget: Arc<Budget>,
    /// What each source may do; `None` where that is not limited.
    pub(crate) sources: Option<Arc<Sources>>,
    pub(crate) access: Option<Arc<Log>>,
    /// Probes, which nobody waits for but the end.
    pub(crate) probes: TaskTracker,
    /// Cancelled when the process ends.
    pub(crate) abort: CancellationToken,
    /// Ports that the kernel picks as sources of connections.
    pub(crate) ephemeral_ports: RangeInclusive<u16>,
    /// Where engine threads, which are none of tokio's, start probes.
    pub(crate) runtime: Handle,
    next_key: AtomicU64,
    next_listening_id: AtomicU32,
}

/// What may be taken at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Client connections.
    pub(crate) connections: usize,
    /// Bytes that one side has sent and the other did not take.
    pub(crate) buffered: usize,
    pub(crate) source: SourceLimits,
}

/// How many client connections there are, and may be: accepting pauses before
/// the descriptors run out.
#[derive(Debug)]
pub(crate) struct Room {
    limit: usize,
    taken: AtomicUsize,
    emptied: Notify,
}

/// Room for one connection, until dropped.
#[derive(Debug)]
pub(crate) struct Permit(Arc<Room>);

impl Shared {
    /// To be called on a tokio runtime.
    pub(crate) fn new(timeouts: Timeouts, limits: Limits, access: Option<Log>) -> Self {
        Self {
            timeouts,
            events: Hub::new(),
            room: Arc::new(Room {
                limit: limits.connections.max(1),
                taken: AtomicUsize::new(0),
                emptied: Notify::new(),
            }),
            budget: Arc::new(Budget::new(limits.buffered)),
            sources: (!limits.source.is_none()).then(|| Arc::new(Sources::new(limits.source))),
            access: access.map(Arc::new),
            probes: TaskTracker::new(),
            abort: CancellationToken::new(),
            ephemeral_ports: ephemeral_ports(),
            runtime: Handle::current(),
            next_key: AtomicU64::new(1),
            next_listening_id: AtomicU32::new(1),
        }
    }

    pub(crate) fn next_key(&self) -> EndpointKey {
        EndpointKey(self.next_key.fetch_add(1, Ordering::Relaxed))
    }

    /// Never the same one twice, for as long as fewer than four thousand
    /// million sockets were listened on.
    pub(crate) fn next_listening_id(&self) -> u32 {
        self.next_listening_id.fetch_add(1, Ordering::Relaxed)
    }
}

impl Room {
    /// Takes room for one connection, if there is any.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Permit> {
        let before = self.taken.fetch_add(1, Ordering::SeqCst);
        // Dropped at once if it is one too many.
        let permit = Permit(Arc::clone(self));
        (before < self.limit).then_some(permit)
    }

    /// Connections now.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.taken() >= self.limit
    }

    /// Waits until there is no connection. Final only once nobody accepts.
    pub(crate) async fn until_empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.taken() == 0 {
                return;
            }
            emptied.await;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.0.taken.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.emptied.notify_waiters();
        }
    }
}
