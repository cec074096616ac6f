//! Accepting clients, and not accepting them while there is no room.

use std::{
    collections::{HashMap, HashSet},
    os::fd::OwnedFd,
    sync::Arc,
};

use rustix::net::SocketFlags;

use super::{Token, Tools};
use crate::{
    engine::{Listening, Snapshot, mailbox::Arrival},
    shared::Permit,
    socket::{AcceptAdvice, advise},
    syscall::{accept_with, epoll},
};

/// Most clients accepted from one socket at a time. More would keep those that
/// are connected waiting.
const MAX_BATCH: usize = 16;
/// Pause after an error that trying at once would only repeat, and between two
/// looks for room. Long enough not to spin, short enough that nobody gives up
/// on the connect meanwhile.
const PAUSE_MS: u64 = 100;
/// What clients' sockets are made with.
const ACCEPTED: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);

/// The listening sockets of an engine.
#[derive(Default)]
pub(super) struct Acceptor {
    listening: HashMap<u32, Listener>,
    /// While set none of them is registered.
    paused: Option<Pause>,
    /// When to try again to register those that could not be.
    register_at_ms: Option<u64>,
    /// Empty, but for its capacity, between two calls.
    pub(super) accepted: Vec<Arrival>,
}

struct Listener {
    listening: Arc<Listening>,
    /// Clients to accept at a time. One less than there are costs another
    /// event, one more than there are costs a system call in vain.
    batch: usize,
    is_registered: bool,
}

struct Pause {
    until_ms: u64,
    /// There was no room, so that the end of a connection ends the pause.
    for_room: bool,
}

impl Acceptor {
    /// Listens on what the snapshot has, and on nothing else. Puts into
    /// `accepted` who waited at sockets that are given up.
    pub(super) fn take_over(
        &mut self,
        snapshot: &Snapshot,
        tools: &Tools,
        accepted: &mut Vec<Arrival>,
    ) {
        let wanted: HashSet<u32> = snapshot.listening.iter().map(|one| one.id).collect();
        self.listening.retain(|id, listener| {
            let stays = wanted.contains(id);
            if !stays && listener.is_registered {
                listener.deregister(tools);
                listener.accept_last(tools, accepted);
            }
            stays
        });
        for listening in &snapshot.listening {
            self.listening
                .entry(listening.id)
                .or_insert_with(|| Listener {
                    listening: Arc::clone(listening),
                    batch: 1,
                    is_registered: false,
                });
        }
        if self.paused.is_none() {
            self.register(tools);
        }
    }

    /// Puts into `accepted` who waits at a listening socket.
    pub(super) fn accept(&mut self, id: u32, tools: &Tools, accepted: &mut Vec<Arrival>) {
        let Some(listener) = self.listening.get_mut(&id) else {
            return;
        };
        let mut tries = 0;
        while tries < listener.batch {
            let Some(permit) = tools.shared().room.take() else {
                self.pause(tools, true);
                return;
            };
            match accept_with(&listener.listening.socket, ACCEPTED) {
                Ok(client) => accepted.push(listener.arrival(client, permit)),
                Err(error) => match advise(error) {
                    AcceptAdvice::AgainAtOnce => {}
                    AcceptAdvice::Wait => {
                        listener.batch = accepted.len().max(1);
                        return;
                    }
                    AcceptAdvice::Pause => {
                        tracing::warn!(%error, "cannot accept, pausing");
                        self.pause(tools, false);
                        return;
                    }
                },
            }
            tries += 1;
        }
        listener.batch = (listener.batch * 2).min(MAX_BATCH);
    }

    pub(super) fn resume_if_due(&mut self, tools: &Tools) {
        if self.due_ms().is_some_and(|at_ms| tools.now_ms >= at_ms) {
            self.resume(tools);
        }
    }

    pub(super) fn resume_if_room(&mut self, tools: &Tools) {
        if let Some(pause) = &self.paused
            && pause.for_room
            && !tools.shared().room.is_full()
        {
            self.resume(tools);
        }
    }

    pub(super) fn resumes_in_ms(&self, tools: &Tools) -> Option<u64> {
        Some(self.due_ms()?.saturating_sub(tools.now_ms))
    }

    /// When a pause ends, or else sockets are to be registered that could not be.
    fn due_ms(&self) -> Option<u64> {
        let pause = self.paused.as_ref();
        pause.map_or(self.register_at_ms, |pause| Some(pause.until_ms))
    }

    /// Level-triggered as they are, the sockets would wake the thread for as
    /// long as clients wait: they are taken out of its sight.
    fn pause(&mut self, tools: &Tools, for_room: bool) {
        for listener in self.listening.values_mut() {
            listener.deregister(tools);
        }
        self.paused = Some(Pause {
            until_ms: tools.now_ms + PAUSE_MS,
            for_room,
        });
    }

    fn resume(&mut self, tools: &Tools) {
        self.paused = None;
        self.register(tools);
    }

    /// Registers what is not, and sees to it that what cannot be is tried again:
    /// an engine without other work would never hear of it.
    fn register(&mut self, tools: &Tools) {
        let mut is_complete = true;
        for listener in self.listening.values_mut() {
            if !listener.is_registered {
                listener.register(tools);
                is_complete &= listener.is_registered;
            }
        }
        self.register_at_ms = (!is_complete).then_some(tools.now_ms + PAUSE_MS);
    }
}

impl Listener {
    /// Exclusive: one thread is woken for a client, and not all of them.
    fn register(&mut self, tools: &Tools) {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::EXCLUSIVE;
        let token = Token::Listener(self.listening.id).encode();
        match epoll::add(&tools.epoll, &self.listening.socket, token, flags) {
            Ok(()) => self.is_registered = true,
            // Other threads may still be able to.
            Err(error) => {
                tracing::error!(%error, "cannot register a listening socket, trying again");
            }
        }
    }

    /// Accepts who is in the queue, after [`Listener::deregister`]. The socket
    /// may live on in another process, and of all that wait for it the kernel
    /// wakes one for each client: of a client for whom this thread was woken the
    /// others know nothing.
    fn accept_last(&self, tools: &Tools, accepted: &mut Vec<Arrival>) {
        while let Some(permit) = tools.shared().room.take() {
            match accept_with(&self.listening.socket, ACCEPTED) {
                Ok(client) => accepted.push(self.arrival(client, permit)),
                Err(error) if advise(error) == AcceptAdvice::AgainAtOnce => {}
                Err(_) => return,
            }
        }
    }

    fn arrival(&self, client: OwnedFd, permit: Permit) -> Arrival {
        self.listening.port.count_accepted();
        Arrival {
            client,
            port: Arc::clone(&self.listening.port),
            permit,
        }
    }

    fn deregister(&mut self, tools: &Tools) {
        // It fails only if it is not registered.
        let _ = epoll::delete(&tools.epoll, &self.listening.socket);
        self.is_registered = false;
    }
}
