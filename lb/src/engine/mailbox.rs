//! How the rest of the process, other engine threads included, speaks to one
//! engine thread.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::watch;

use super::Snapshot;
use crate::{port::Port, shared::Permit};

/// A client that another thread has accepted.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) client: OwnedFd,
    pub(super) port: Arc<Port>,
    pub(super) permit: Permit,
}

/// What came since an engine last looked.
#[derive(Debug, Default)]
pub(super) struct Post {
    /// A new one to take over, and then to acknowledge.
    pub(super) snapshot: Option<Arc<Snapshot>>,
    pub(super) arrivals: Vec<Arrival>,
    pub(super) ended: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Mailbox {
    /// Readable when there is something new.
    wake: OwnedFd,
    inbox: Mutex<Inbox>,
    /// Generation of the snapshot that the engine works by.
    acknowledged: watch::Sender<u64>,
    /// Connections that the engine has.
    load: AtomicUsize,
}

#[derive(Debug, Default)]
struct Inbox {
    snapshot: Arc<Snapshot>,
    is_taken: bool,
    arrivals: Vec<Arrival>,
    ended: bool,
}

impl Mailbox {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            wake: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
            inbox: Mutex::default(),
            acknowledged: watch::Sender::new(0),
            load: AtomicUsize::new(0),
        })
    }

    // === what others call ===

    pub(super) fn post_snapshot(&self, snapshot: Arc<Snapshot>) {
        let before = {
            let mut inbox = self.lock();
            inbox.is_taken = false;
            std::mem::replace(&mut inbox.snapshot, snapshot)
        };
        // It may be the last holder of a socket: closed outside of the lock.
        drop(before);
        self.wake();
    }

    pub(super) fn post_arrival(&self, arrival: Arrival) {
        self.lock().arrivals.push(arrival);
        self.wake();
    }

    pub(super) fn post_end(&self) {
        self.lock().ended = true;
        self.wake();
    }

    pub(super) async fn until_acknowledged(&self, generation: u64) {
        let mut acknowledged = self.acknowledged.subscribe();
        // The sender lives as long as the mailbox.
        let _ = acknowledged.wait_for(|seen| *seen >= generation).await;
    }

    /// Connections that the engine has, as of a moment ago.
    pub(super) fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    // === what its engine calls ===

    /// The descriptor that becomes readable when there is post.
    pub(super) fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    pub(super) fn collect(&self) -> Post {
        // Emptied first: what comes after it wakes again. Empty already, if
        // nobody has written, is fine.
        let _ = rustix::io::read(&self.wake, &mut [0_u8; 8]);
        let mut inbox = self.lock();
        let snapshot = (!inbox.is_taken).then(|| Arc::clone(&inbox.snapshot));
        inbox.is_taken = true;
        Post {
            snapshot,
            arrivals: std::mem::take(&mut inbox.arrivals),
            ended: inbox.ended,
        }
    }

    pub(super) fn acknowledge(&self, generation: u64) {
        self.acknowledged.send_replace(generation);
    }

    pub(super) fn set_load(&self, connections: usize) {
        self.load.store(connections, Ordering::Relaxed);
    }

    /// For an engine that takes the place of another: the snapshot is new to it.
    pub(super) fn begin_anew(&self) {
        self.lock().is_taken = false;
        self.wake();
    }

    pub(super) fn is_ended(&self) -> bool {
        self.lock().ended
    }

    fn wake(&self) {
        // It fails only when the counter is full, and then it is readable.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// Nothing that can panic leaves an inbox half changed.
    fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
