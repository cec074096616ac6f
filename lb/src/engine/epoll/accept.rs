//! Accepting clients, and not accepting them while there is no room.

use std::{
    collections::{HashMap, HashSet},
    os::fd::OwnedFd,
    sync::Arc,
};

use rustix::{
    event::epoll,
    net::{SocketFlags, accept_with},
};

use super::{Token, Tools};
use crate::{
    engine::{Listening, Snapshot, mailbox::Arrival},
    shared::Permit,
    socket::{AcceptAdvice, advise},
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
    /// Empty, but for its capacity, between two calls.
    pub(super) accepted: Vec<Arrival>,
}

struct Listener {
    listening: Arc<Listening>,
    /// Clients to accept at a time. One less than there are costs another
    /// event, one more than there are costs a system call in vain.
    batch: usize,
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
        let is_paused = self.paused.is_some();
        self.listening.retain(|id, listener| {
            let stays = wanted.contains(id);
            if !stays && !is_paused {
                listener.deregister(tools);
                listener.accept_last(tools, accepted);
            }
            stays
        });
        for listening in &snapshot.listening {
            self.listening.entry(listening.id).or_insert_with(|| {
                let listener = Listener {
                    listening: Arc::clone(listening),
                    batch: 1,
                };
                if !is_paused {
                    listener.register(tools);
                }
                listener
            });
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
        if let Some(pause) = &self.paused
            && tools.now_ms >= pause.until_ms
        {
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
        let pause = self.paused.as_ref()?;
        Some(pause.until_ms.saturating_sub(tools.now_ms))
    }

    /// Level-triggered as they are, the sockets would wake the thread for as
    /// long as clients wait: they are taken out of its sight.
    fn pause(&mut self, tools: &Tools, for_room: bool) {
        for listener in self.listening.values() {
            listener.deregister(tools);
        }
        self.paused = Some(Pause {
            until_ms: tools.now_ms + PAUSE_MS,
            for_room,
        });
    }

    fn resume(&mut self, tools: &Tools) {
        self.paused = None;
        for listener in self.listening.values() {
            listener.register(tools);
        }
    }
}

impl Listener {
    /// Exclusive: one thread is woken for a client, and not all of them.
    fn register(&self, tools: &Tools) {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::EXCLUSIVE;
        let token = Token::Listener(self.listening.id).encode();
        if let Err(error) = epoll::add(&tools.epoll, &self.listening.socket, token, flags) {
            // Other threads may still be able to.
            tracing::error!(%error, "cannot register a listening socket");
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

    fn deregister(&self, tools: &Tools) {
        // It fails only if registering did.
        let _ = epoll::delete(&tools.epoll, &self.listening.socket);
    }
}
