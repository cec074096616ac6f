//! Waiting for sockets.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    io::Errno,
};

/// Events taken at a time.
const BATCH: usize = 256;

/// What has become of a socket.
#[derive(Clone, Copy)]
pub(crate) struct Event {
    /// What the socket was added with.
    pub(crate) key: usize,
    flags: epoll::EventFlags,
}

impl Event {
    /// It takes bytes, or the connection attempt is over.
    pub(crate) fn writable(self) -> bool {
        self.flags
            .intersects(epoll::EventFlags::OUT | epoll::EventFlags::ERR | epoll::EventFlags::HUP)
    }

    /// There is something to receive, be it an end or an error.
    pub(crate) fn readable(self) -> bool {
        self.flags.intersects(
            epoll::EventFlags::IN
                | epoll::EventFlags::RDHUP
                | epoll::EventFlags::ERR
                | epoll::EventFlags::HUP,
        )
    }

    /// The other side has sent its last byte: a receive that brings little is not the end.
    pub(crate) fn ended(self) -> bool {
        self.flags
            .intersects(epoll::EventFlags::RDHUP | epoll::EventFlags::HUP)
    }
}

/// An epoll instance.
pub(crate) struct Poller {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(BATCH),
        })
    }

    /// Tells of every change of a socket, once.
    pub(crate) fn add(&self, socket: impl AsFd, key: usize) -> io::Result<()> {
        let flags = epoll::EventFlags::IN
            | epoll::EventFlags::OUT
            | epoll::EventFlags::RDHUP
            | epoll::EventFlags::ET;
        self.register(socket, key, flags)
    }

    /// Tells as long as there is something to receive or to accept.
    pub(crate) fn add_source(&self, source: impl AsFd, key: usize) -> io::Result<()> {
        self.register(source, key, epoll::EventFlags::IN)
    }

    fn register(&self, source: impl AsFd, key: usize, flags: epoll::EventFlags) -> io::Result<()> {
        let data = epoll::EventData::new_u64(key as u64);
        Ok(epoll::add(&self.epoll, source, data, flags)?)
    }

    /// Waits until something happens or `timeout` is over, and says what did.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Vec<Event>> {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: timeout.subsec_nanos().into(),
        });
        self.events.clear();
        match epoll::wait(
            &self.epoll,
            spare_capacity(&mut self.events),
            timeout.as_ref(),
        ) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let event = |event: &epoll::Event| Event {
            key: event.data.u64() as usize,
            flags: event.flags,
        };
        Ok(self.events.iter().map(event).collect())
    }
}
