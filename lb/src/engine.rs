//! The data path: threads that accept, connect and forward. Each runs an engine
//! of its own, which drives the connections' state machines
//! ([`crate::connection`]) with the kernel's help. It asks `port` for choices
//! and tells it outcomes; of tables and the control socket it knows nothing.
//!
//! What engines have in common is here: the threads, and how they are told what
//! to listen on. `epoll` is the engine there is. Another one, by completions
//! instead of readiness, would be a second file beside it: an [`Engine`] that
//! submits what [`crate::connection::Operation`]s ask for. How io_uring's
//! completions map to the machine's events is in ARCHITECTURE.md, under "The
//! balancer's engines".
//!
//! Whose turn it is among a port's endpoints is settled under the port's lock,
//! by whichever thread asks. An atomic ticket would do for equal weights on a
//! set that never changes, but not for weights, ejections and tables that change
//! the set between a ticket and its use; the lock makes all of these exact, and
//! is held for a small part of what a connection costs.
//!
//! Listening sockets are shared by all threads. Sockets of each thread's own
//! (`SO_REUSEPORT`) would spread connections by hash, unevenly when they are
//! few, would lose those that wait in the queue of one that is closed, and
//! would be as many as ports times cores.

mod epoll;
mod mailbox;
mod slab;
mod vitals;
mod wheel;

use std::{
    io,
    os::fd::OwnedFd,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

pub(crate) use self::epoll::Epoll;
use self::mailbox::Mailbox;
use crate::{port::Port, shared::Shared, syscall};

/// Pause before an engine that has failed is made anew.
const PAUSE: Duration = Duration::from_millis(100);

/// A listening socket, and the port it is for. Closed when the last engine has
/// let go of it, unless somebody outside of this process holds it, too.
#[derive(Debug)]
pub(crate) struct Listening {
    /// Never given out twice.
    pub(crate) id: u32,
    pub(crate) socket: Arc<OwnedFd>,
    pub(crate) port: Arc<Port>,
}

/// Everything there is to listen on: immutable, and taken over as a whole.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    generation: u64,
    listening: Vec<Arc<Listening>>,
}

/// What an engine works with.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    shared: Arc<Shared>,
    /// Those of all threads.
    mailboxes: Arc<[Mailbox]>,
    /// Which one is its own.
    number: usize,
}

/// One thread's way of moving bytes.
pub(crate) trait Engine: Sized {
    /// Makes what it needs of the kernel.
    fn new(context: Context) -> io::Result<Self>;

    /// Works until its mailbox says that the end has come; connections left are
    /// reset when it is dropped.
    fn run(&mut self);
}

/// The threads.
#[derive(Debug)]
pub(crate) struct Crew {
    mailboxes: Arc<[Mailbox]>,
    generation: AtomicU64,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Crew {
    /// Starts as many threads as asked for, with nothing to listen on.
    pub(crate) fn start<E: Engine + 'static>(
        shared: &Arc<Shared>,
        count: usize,
    ) -> io::Result<Self> {
        let mailboxes: Arc<[Mailbox]> = (0..count.max(1))
            .map(|_| Mailbox::new())
            .collect::<io::Result<Vec<_>>>()?
            .into();
        let crew = Self {
            mailboxes: Arc::clone(&mailboxes),
            generation: AtomicU64::new(0),
            threads: Mutex::default(),
        };
        for number in 0..mailboxes.len() {
            let context = Context {
                shared: Arc::clone(shared),
                mailboxes: Arc::clone(&mailboxes),
                number,
            };
            // A failure leaves the threads before it to the drop of the crew.
            let name = format!("forward-{number}");
            let thread = syscall::spawn(name, move || work::<E>(&context))?;
            crew.lock_threads().push(thread);
        }
        Ok(crew)
    }

    /// Makes every thread listen on these sockets and no others. Once this
    /// returns they do, and nothing is under way that they began before.
    pub(crate) async fn publish(&self, listening: Vec<Arc<Listening>>) {
        let generation = self.generation.fetch_add(1, Ordering::SeqCst) + 1;
        let snapshot = Arc::new(Snapshot {
            generation,
            listening,
        });
        for mailbox in self.mailboxes.iter() {
            mailbox.post_snapshot(Arc::clone(&snapshot));
        }
        // Sockets that are no longer listened on close when the last thread
        // lets go of them, and this must not be the one that holds them.
        drop(snapshot);
        for mailbox in self.mailboxes.iter() {
            mailbox.until_acknowledged(generation).await;
        }
    }

    /// Ends the threads, resetting what connections are left.
    pub(crate) async fn end(&self) {
        self.post_end();
        let threads = std::mem::take(&mut *self.lock_threads());
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                // A panic of an engine is caught and told where it happens.
                let _ = thread.join();
            }
        });
        if let Err(error) = joined.await {
            tracing::error!(%error, "engine threads could not be waited for");
        }
    }

    fn post_end(&self) {
        for mailbox in self.mailboxes.iter() {
            mailbox.post_end();
        }
    }

    fn lock_threads(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.post_end();
    }
}

/// A thread's life. Should an engine panic, its connections are reset and
/// another one takes its place: one connection's misfortune must not cost the
/// node a core, nor an acknowledgement that everybody waits for.
fn work<E: Engine>(context: &Context) {
    let mailbox = &context.mailboxes[context.number];
    while !mailbox.is_ended() {
        let ended = catch_unwind(AssertUnwindSafe(|| -> io::Result<()> {
            mailbox.begin_anew();
            E::new(context.clone())?.run();
            Ok(())
        }));
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(%error, "an engine cannot start, trying again");
                std::thread::sleep(PAUSE);
            }
            Err(_) => {
                tracing::error!("an engine has panicked, its connections are reset");
                std::thread::sleep(PAUSE);
            }
        }
    }
    // Nothing begins here any more, whatever the table.
    mailbox.acknowledge(u64::MAX);
}

#[cfg(test)]
mod tests;
