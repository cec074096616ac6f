//! The system calls of the data path, all in one place, so that its tests can
//! put a kernel in trouble between the engine and the real one.
//!
//! In every other build these are the calls themselves, by another name, and
//! cost nothing. What `faulty` does instead is what Linux may do on a bad day:
//! it runs out of descriptors, memory or ports, is interrupted, moves fewer
//! bytes than asked for, or says that a peer has gone.

#[cfg(test)]
pub(crate) mod faulty;

#[cfg(test)]
pub(crate) use faulty::{
    accept_with, connect, epoll, recv, send, shutdown, socket_with, spawn, splice_from, splice_to,
};
#[cfg(not(test))]
pub(crate) use {
    plain::{spawn, splice_from, splice_to},
    rustix::{
        event::epoll,
        net::{accept_with, connect, recv, send, shutdown, socket_with},
    },
};

mod plain {
    use std::{
        io,
        os::fd::AsFd,
        thread::{Builder, JoinHandle},
    };

    use rustix::{
        io::Result,
        pipe::{SpliceFlags, splice},
    };

    /// Moves what a socket has received into a pipe.
    #[inline]
    pub(crate) fn splice_from(
        socket: impl AsFd,
        pipe: impl AsFd,
        len: usize,
        flags: SpliceFlags,
    ) -> Result<usize> {
        splice(socket, None, pipe, None, len, flags)
    }

    /// Sends what is in a pipe.
    #[inline]
    pub(crate) fn splice_to(
        socket: impl AsFd,
        pipe: impl AsFd,
        len: usize,
        flags: SpliceFlags,
    ) -> Result<usize> {
        splice(pipe, None, socket, None, len, flags)
    }

    /// Starts a thread that makes these calls.
    pub(crate) fn spawn(
        name: String,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        Builder::new().name(name).spawn(work)
    }
}

#[cfg(test)]
mod tests;
