//! Memory for bytes on their way. A thread's connections share one buffer: what
//! is received into it is sent from it at once. Only what the other side does
//! not take is copied, so that an idle connection owns no buffer. Bulk goes
//! through a pipe instead.

use std::sync::Arc;

use rustix::{
    io::{Errno, retry_on_intr},
    net::SendFlags,
    pipe::SpliceFlags,
};

use super::pipe::{Pipe, Plumber};
use crate::{
    budget::{Budget, Charge},
    connection::MAX_RECEIVE,
    socket::Socket,
    syscall::send,
};

/// Remainders kept for the next use.
const POOL: usize = 64;
/// Larger ones are given back to the system: one slow reader of bulk must not
/// leave half a megabyte behind.
const POOLED_LEN: usize = 128 * 1024;

/// See the module.
pub(super) struct Buffers {
    /// What is received goes here.
    pub(super) scratch: Box<[u8]>,
    /// Boxed, for a connection has room for a pointer.
    #[allow(
        clippy::vec_box,
        reason = "they move between here and connections as boxes"
    )]
    pool: Vec<Box<Remainder>>,
    /// Empty pipes.
    #[allow(clippy::vec_box, reason = "as above")]
    pipes: Vec<Box<Remainder>>,
    plumber: Plumber,
    budget: Arc<Budget>,
}

/// Bytes that were received and that the other side did not take yet.
#[derive(Debug)]
pub(super) struct Remainder {
    place: Place,
    /// What it takes of the budget; those in the pool take nothing.
    charge: Option<Charge>,
}

#[derive(Debug)]
enum Place {
    Memory { bytes: Vec<u8>, sent: usize },
    Pipe(Pipe),
}

impl Buffers {
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self {
            scratch: vec![0; MAX_RECEIVE].into_boxed_slice(),
            pool: Vec::new(),
            pipes: Vec::new(),
            plumber: Plumber::default(),
            budget,
        }
    }

    /// Bytes of our own, to be sent ahead of others.
    pub(super) fn own(bytes: Vec<u8>) -> Box<Remainder> {
        Box::new(Remainder::new(Place::Memory { bytes, sent: 0 }))
    }

    /// Receives into a pipe. Nothing comes of it where there is none, or nothing
    /// to be received: to receive into memory tells why.
    ///
    /// # Errors
    ///
    /// The socket's own. The kernel tells it once: after a reset that was told
    /// here, to receive into memory would show an end in order.
    pub(super) fn receive_into_pipe(
        &mut self,
        source: &Socket,
        limit: usize,
    ) -> Result<Option<(Box<Remainder>, usize)>, Errno> {
        let Some(mut remainder) = self.empty_pipe() else {
            return Ok(None);
        };
        let Place::Pipe(pipe) = &mut remainder.place else {
            return Ok(None);
        };
        match pipe.fill(source, limit) {
            Ok(moved) if moved > 0 => {
                remainder.charge = Some(self.budget.charge(moved));
                return Ok(Some((remainder, moved)));
            }
            // The kernel, or who confines this process, does not want it.
            Err(error @ (Errno::INVAL | Errno::NOSYS | Errno::PERM | Errno::ACCESS)) => {
                self.plumber.give_up(error);
            }
            Ok(_) | Err(Errno::AGAIN | Errno::NOMEM | Errno::NOBUFS) => self.pipes.push(remainder),
            Err(error) => {
                self.pipes.push(remainder);
                return Err(error);
            }
        }
        Ok(None)
    }

    fn empty_pipe(&mut self) -> Option<Box<Remainder>> {
        match self.pipes.pop() {
            Some(remainder) => Some(remainder),
            None => Some(Box::new(Remainder::new(Place::Pipe(self.plumber.make()?)))),
        }
    }

    /// Closes the empty pipes: what there is to do may never be bulk again.
    pub(super) fn drop_pipes(&mut self) {
        self.pipes.clear();
    }

    /// Copies a part of the scratch buffer.
    pub(super) fn keep(&mut self, from: usize, to: usize) -> Box<Remainder> {
        let mut remainder = self.pool.pop().unwrap_or_else(|| Self::own(Vec::new()));
        if let Place::Memory { bytes, .. } = &mut remainder.place {
            bytes.extend_from_slice(&self.scratch[from..to]);
        }
        remainder.charge = Some(self.budget.charge(to - from));
        remainder
    }

    /// All of it was sent.
    pub(super) fn give_back(&mut self, mut remainder: Box<Remainder>) {
        remainder.charge = None;
        match &mut remainder.place {
            Place::Memory { bytes, sent } => {
                if self.pool.len() < POOL && bytes.capacity() <= POOLED_LEN {
                    bytes.clear();
                    *sent = 0;
                    self.pool.push(remainder);
                }
            }
            Place::Pipe(_) => self.pipes.push(remainder),
        }
    }
}

impl Remainder {
    fn new(place: Place) -> Self {
        Self {
            place,
            charge: None,
        }
    }

    /// Bytes that are unsent.
    pub(super) fn len(&self) -> usize {
        match &self.place {
            Place::Memory { bytes, sent } => bytes.len() - sent,
            Place::Pipe(pipe) => pipe.held(),
        }
    }

    /// Copies what is unsent to the beginning of a buffer, for more to be put
    /// behind it. Returns how much. Never asked of a pipe, whose bytes are not
    /// the engine's own.
    pub(super) fn copy_to(&self, buffer: &mut [u8]) -> usize {
        match &self.place {
            Place::Memory { bytes, sent } => {
                let unsent = &bytes[*sent..];
                buffer[..unsent.len()].copy_from_slice(unsent);
                unsent.len()
            }
            Place::Pipe(_) => 0,
        }
    }

    /// Sends as much as the socket takes. Returns how much.
    pub(super) fn send_to(&mut self, sink: &Socket, flags: SendFlags) -> Result<usize, Errno> {
        match &mut self.place {
            Place::Memory { bytes, sent } => {
                let count = match retry_on_intr(|| send(sink, &bytes[*sent..], flags)) {
                    Ok(count) => count,
                    Err(Errno::AGAIN) => 0,
                    Err(error) => return Err(error),
                };
                *sent += count;
                Ok(count)
            }
            Place::Pipe(pipe) => {
                let more = if flags.contains(SendFlags::MORE) {
                    SpliceFlags::MORE
                } else {
                    SpliceFlags::empty()
                };
                pipe.drain(sink, more)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::{
        event::{PollFd, PollFlags, Timespec, poll},
        net::RecvFlags,
    };

    use super::*;
    use crate::{
        socket::{pair, reset_when_closed},
        syscall::recv,
    };

    fn until_readable(socket: &Socket) {
        let patience = Timespec {
            tv_sec: 20,
            tv_nsec: 0,
        };
        let mut asked = [PollFd::new(socket, PollFlags::IN)];
        assert_eq!(poll(&mut asked, Some(&patience)), Ok(1));
    }

    #[test]
    fn a_reset_is_told_and_not_taken_for_an_end() {
        let mut buffers = Buffers::new(Arc::new(Budget::new(1 << 20)));
        let (near, far) = pair();
        let piped = buffers.receive_into_pipe(&near, MAX_RECEIVE);
        assert!(piped.unwrap().is_none(), "nothing is there yet");
        reset_when_closed(&far).unwrap();
        drop(far);
        until_readable(&near);
        let error = buffers.receive_into_pipe(&near, MAX_RECEIVE).unwrap_err();
        assert_eq!(error, Errno::CONNRESET);
        // What who asked once more would take for the end.
        let again = recv(&near, &mut [0; 9], RecvFlags::empty());
        assert_eq!(again.map(|(count, _)| count), Ok(0));

        let (near, far) = pair();
        drop(far);
        until_readable(&near);
        let piped = buffers.receive_into_pipe(&near, MAX_RECEIVE);
        assert!(piped.unwrap().is_none(), "to receive into memory tells");
        assert_eq!(buffers.pipes.len(), 1);
    }
}
