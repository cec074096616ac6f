//! What the parts of one balancer have in common.

use std::{
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwapOption;
use tokio::{runtime::Handle, sync::Notify};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    access::{AccessLog, Log},
    budget::Budget,
    event::Hub,
    run::Timeouts,
    select::EndpointKey,
    settings::{AccessLogState, InForce, Settings},
    socket::ephemeral_ports,
    sources::Sources,
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
    /// What each source may do.
    pub(crate) sources: Arc<Sources>,
    pub(crate) access: ArcSwapOption<Log>,
    /// Connections that the access log lacks, whichever file it was in.
    access_log_dropped: Arc<AtomicU64>,
    /// Client connections where the settings do not say how many.
    default_connections: usize,
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

/// How many client connections there are, and may be: accepting pauses before
/// the descriptors run out.
#[derive(Debug)]
pub(crate) struct Room {
    limit: AtomicUsize,
    taken: AtomicUsize,
    emptied: Notify,
}

/// Room for one connection, until dropped.
#[derive(Debug)]
pub(crate) struct Permit(Arc<Room>);

impl Shared {
    /// To be called on a tokio runtime. `default_connections` are the client connections
    /// at once where the settings do not say.
    pub(crate) fn new(timeouts: Timeouts, settings: &Settings, default_connections: usize) -> Self {
        let shared = Self::with_defaults(timeouts, default_connections);
        shared.configure(settings);
        shared
    }

    fn with_defaults(timeouts: Timeouts, default_connections: usize) -> Self {
        let defaults = Settings::default();
        Self {
            timeouts,
            events: Hub::new(),
            room: Arc::new(Room {
                limit: AtomicUsize::new(default_connections),
                taken: AtomicUsize::new(0),
                emptied: Notify::new(),
            }),
            budget: Arc::new(Budget::new(defaults.buffered())),
            sources: Arc::new(Sources::new(defaults.per_source)),
            access: ArcSwapOption::empty(),
            access_log_dropped: Arc::default(),
            default_connections,
            probes: TaskTracker::new(),
            abort: CancellationToken::new(),
            ephemeral_ports: ephemeral_ports(),
            runtime: Handle::current(),
            next_key: AtomicU64::new(1),
            next_listening_id: AtomicU32::new(1),
        }
    }

    /// Puts settings in force for what happens from now on. No connection is touched, and
    /// an access log that stays where it is goes on. One that cannot be written is tried
    /// again, and meanwhile named in [`Shared::in_force`].
    pub(crate) fn configure(&self, settings: &Settings) {
        self.room
            .set_limit(settings.max_connections.unwrap_or(self.default_connections));
        self.budget.set_limit(settings.buffered());
        self.sources.set_limits(settings.per_source);
        let current = self.access.load();
        let target = current.as_ref().map(|log| log.target());
        if target != settings.access_log.as_ref() {
            let open = |target: &AccessLog| {
                Arc::new(Log::start(target, Arc::clone(&self.access_log_dropped)))
            };
            self.access.store(settings.access_log.as_ref().map(open));
        }
    }

    /// What [`Shared::configure`] has come to.
    pub(crate) fn in_force(&self) -> InForce {
        let access = self.access.load();
        InForce {
            max_connections: self.room.limit() as u64,
            max_buffered: self.budget.limit() as u64,
            per_source: self.sources.limits(),
            access_log: access.as_ref().map(|log| AccessLogState {
                path: log.target().path.clone(),
                format: log.target().format,
                error: log.error(),
            }),
        }
    }

    /// Connections that the access log lacks.
    pub(crate) fn access_log_dropped(&self) -> u64 {
        self.access_log_dropped.load(Ordering::Relaxed)
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
        (before < self.limit()).then_some(permit)
    }

    fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// With less than there are, nobody is let in until enough have gone.
    fn set_limit(&self, limit: usize) {
        self.limit.store(limit.max(1), Ordering::Relaxed);
    }

    /// Connections now.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.taken() >= self.limit()
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
