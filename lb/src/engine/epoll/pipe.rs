//! Bulk is moved from socket to socket through a pipe, by reference: neither into
//! this process's memory nor out of it again is a byte copied.

use std::{os::fd::OwnedFd, rc::Rc};

use rustix::{
    io::{Errno, retry_on_intr},
    pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with},
};

use crate::{
    socket::Socket,
    syscall::{splice_from, splice_to},
};

/// What a pipe can hold, if its pages are full: what a user may ask for without
/// privileges, unless an administrator has set another limit.
pub(super) const CAPACITY: usize = 1024 * 1024;

/// Pipes of a thread: an empty one is used again at once, so that only flows that
/// are blocked keep one for longer. Two descriptors each, out of the reserve.
const MAX_PIPES: usize = 16;

/// Makes pipes.
#[derive(Debug, Default)]
pub(super) struct Plumber {
    /// Each pipe has a share.
    alive: Rc<()>,
    gave_up: bool,
}

/// Bytes on their way from one socket to another.
#[derive(Debug)]
pub(super) struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
    held: usize,
    _alive: Rc<()>,
}

impl Plumber {
    /// A new one, if there may be another one.
    pub(super) fn make(&mut self) -> Option<Pipe> {
        if self.gave_up || Rc::strong_count(&self.alive) > MAX_PIPES {
            return None;
        }
        let made = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).and_then(|(out, into)| {
            // Smaller ones are no better than the shared buffer.
            fcntl_setpipe_size(&into, CAPACITY)?;
            Ok((out, into))
        });
        match made {
            Ok((out, into)) => Some(Pipe {
                out,
                into,
                held: 0,
                _alive: Rc::clone(&self.alive),
            }),
            Err(error) => {
                self.give_up(error);
                None
            }
        }
    }

    /// What does not work now is not tried again and again: copying always works.
    pub(super) fn give_up(&mut self, error: Errno) {
        if !self.gave_up {
            self.gave_up = true;
            tracing::warn!(%error, "bulk cannot be moved without copying it");
        }
    }
}

impl Pipe {
    /// Bytes in it.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Moves what a socket has received into it, an empty one. Nothing may be the
    /// end, or no more than the place of an urgent byte.
    pub(super) fn fill(&mut self, source: &Socket, limit: usize) -> Result<usize, Errno> {
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let len = limit.min(CAPACITY);
        let moved = retry_on_intr(|| splice_from(source, &self.into, len, flags))?;
        self.held += moved;
        Ok(moved)
    }

    /// Moves what is in it to a socket, as much as that takes. `flags` may say
    /// that more comes.
    pub(super) fn drain(&mut self, sink: &Socket, flags: SpliceFlags) -> Result<usize, Errno> {
        let flags = flags | SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let mut sum = 0;
        // One call may move a part though the socket takes more, and then no
        // event would come.
        while self.held > 0 {
            match retry_on_intr(|| splice_to(sink, &self.out, self.held, flags)) {
                Ok(0) | Err(Errno::AGAIN) => break,
                Ok(moved) => {
                    sum += moved;
                    self.held -= moved;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use rustix::pipe::fcntl_getpipe_size;

    use super::*;
    use crate::socket::pair;

    #[test]
    fn bytes_pass_in_their_order_and_wait_for_a_slow_reader() {
        let mut plumber = Plumber::default();
        let mut pipe = plumber.make().unwrap();
        assert_eq!(fcntl_getpipe_size(&pipe.into).unwrap(), CAPACITY);
        let (source, mut sender) = pair();
        let (sink, mut reader) = pair();
        assert_eq!(pipe.fill(&source, CAPACITY), Err(Errno::AGAIN));
        assert_eq!(pipe.drain(&sink, SpliceFlags::empty()), Ok(0));

        let sending = std::thread::spawn(move || {
            let bytes: Vec<u8> = (0..6_000_000_u32).map(|at| (at / 7) as u8).collect();
            sender.write_all(&bytes).unwrap();
            bytes
        });
        // Until nobody takes or gives any more.
        let (mut taken, mut was_blocked) = (0, false);
        let mut received = Vec::new();
        while taken < 6_000_000 {
            if pipe.held() == 0 {
                match pipe.fill(&source, 300_000) {
                    Ok(moved) => assert!((1..=300_000).contains(&moved)),
                    Err(error) => assert_eq!(error, Errno::AGAIN),
                }
            }
            let held = pipe.held();
            let sent = pipe.drain(&sink, SpliceFlags::empty()).unwrap();
            assert_eq!(pipe.held(), held - sent);
            taken += sent;
            if pipe.held() > 0 {
                was_blocked = true;
                let mut some = vec![0; 50_000];
                let count = reader.read(&mut some).unwrap();
                received.extend_from_slice(&some[..count]);
            }
        }
        assert!(was_blocked);
        sink.close_in_order();
        reader.read_to_end(&mut received).unwrap();
        assert!(received == sending.join().unwrap(), "other bytes");
        // The end, and not a word of whether it is one.
        assert_eq!(pipe.fill(&source, CAPACITY), Ok(0));
    }

    #[test]
    fn there_are_only_so_many() {
        let mut plumber = Plumber::default();
        let mut pipes: Vec<Pipe> = (0..MAX_PIPES).map(|_| plumber.make().unwrap()).collect();
        assert!(plumber.make().is_none());
        // One that goes down with its connection makes room for another.
        pipes.pop();
        assert!(plumber.make().is_some());
        plumber.give_up(Errno::INVAL);
        assert!(plumber.make().is_none());
    }
}
