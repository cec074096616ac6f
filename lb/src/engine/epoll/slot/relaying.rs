//! Bytes on their way from one side to the other.

use rustix::{
    io::{Errno, retry_on_intr},
    net::{RecvFlags, SendFlags},
};

use super::{Slot, Tools};
use crate::{
    connection::{Event, MAX_RECEIVE, Side},
    syscall::{recv, send},
};

/// What a connection may do before others have their turn.
pub(super) struct Turn {
    /// Bytes that it may still receive.
    pub(super) left: u32,
    /// Bytes in the shared buffer. The machine asks for them to be sent before
    /// anything else is received.
    fresh: u32,
    /// There are these, or bytes in a pipe.
    unsent: bool,
}

impl Turn {
    pub(super) fn new(left: u32) -> Self {
        Self {
            left,
            fresh: 0,
            unsent: false,
        }
    }

    /// It has moved what it may, and holds nothing that could be sent now.
    pub(super) fn is_over(&self) -> bool {
        self.left == 0 && !self.unsent
    }
}

impl Slot {
    /// Receives into a pipe, or into the shared buffer behind what is to be sent
    /// first.
    pub(super) fn receive(&mut self, from: Side, limit: u32, turn: &mut Turn, tools: &mut Tools) {
        let step = tools.step();
        // At urgent bytes the two ways of receiving differ.
        let is_for_pipe = limit as usize == MAX_RECEIVE && step > limit && !self.is_urgent;
        let piped = if is_for_pipe {
            self.receive_into_pipe(from, turn.left, tools)
        } else {
            None
        };
        let received = piped.unwrap_or_else(|| {
            let limit = limit.min(turn.left).min(step);
            turn.fresh = self.receive_into_memory(from, limit, tools);
            turn.fresh
        });
        turn.left = turn.left.saturating_sub(received);
        turn.unsent = received > 0;
    }

    /// `None` where it has to be tried into memory.
    fn receive_into_pipe(&mut self, from: Side, limit: u32, tools: &mut Tools) -> Option<u32> {
        let to = from.other();
        if self.remainder(to).is_some() {
            return None;
        }
        let source = self.socket(from)?;
        match tools.buffers.receive_into_pipe(source, limit as usize) {
            Ok(received) => {
                let (remainder, received) = received?;
                *self.remainder(to) = Some(remainder);
                // Less than was asked for may be all that the pipe had room for.
                Some(self.tell_received(from, received, false, tools))
            }
            Err(error) => {
                self.fail(from, error, tools);
                Some(0)
            }
        }
    }

    fn receive_into_memory(&mut self, from: Side, limit: u32, tools: &mut Tools) -> u32 {
        let scratch = &mut *tools.buffers.scratch;
        let first = match self.remainder(from.other()) {
            Some(remainder) => remainder.copy_to(scratch),
            None => 0,
        };
        let asked = (limit as usize).min(scratch.len() - first);
        let Some(source) = self.socket(from) else {
            return 0;
        };
        let buffer = &mut scratch[first..first + asked];
        let received = match retry_on_intr(|| recv(source, &mut *buffer, RecvFlags::empty())) {
            Ok((0, _)) => {
                self.tell(Event::Ended(from), tools);
                return 0;
            }
            Ok((received, _)) => received,
            Err(Errno::AGAIN) => {
                self.tell(Event::ReceiveBlocked(from), tools);
                return 0;
            }
            Err(error) => {
                self.fail(from, error, tools);
                return 0;
            }
        };
        // In the shared buffer now, if it was there.
        *self.remainder(from.other()) = None;
        let drained = received < asked && !self.is_urgent;
        let bytes = self.tell_received(from, received, drained, tools);
        bytes + u32::try_from(first).unwrap_or(u32::MAX)
    }

    /// How many bytes there were.
    fn tell_received(
        &mut self,
        from: Side,
        received: usize,
        drained: bool,
        tools: &mut Tools,
    ) -> u32 {
        let bytes = u32::try_from(received).unwrap_or(u32::MAX);
        let event = Event::Received {
            from,
            bytes,
            drained,
        };
        self.tell(event, tools);
        bytes
    }

    /// Sends what is in the shared buffer or, if there is nothing in it, what
    /// was kept.
    pub(super) fn send(&mut self, to: Side, flags: SendFlags, turn: &mut Turn, tools: &mut Tools) {
        match std::mem::take(&mut turn.fresh) {
            0 => self.send_remainder(to, flags, tools),
            fresh => self.send_fresh(to, fresh as usize, flags, tools),
        }
        turn.unsent = false;
    }

    fn send_fresh(&mut self, to: Side, len: usize, flags: SendFlags, tools: &mut Tools) {
        if to == Side::Endpoint {
            self.note_message(tools);
        }
        let Some(sink) = self.socket(to) else {
            return;
        };
        let bytes = &tools.buffers.scratch[..len];
        // Interrupted is not blocked: no event would come to go on.
        let sent = match retry_on_intr(|| send(sink, bytes, flags)) {
            Ok(sent) => sent,
            Err(Errno::AGAIN) => 0,
            Err(error) => return self.fail(to, error, tools),
        };
        if sent < len {
            let remainder = tools.buffers.keep(sent, len);
            *self.remainder(to) = Some(remainder);
        }
        self.note_sent(to, sent, len, tools);
    }

    fn send_remainder(&mut self, to: Side, flags: SendFlags, tools: &mut Tools) {
        let Some(mut remainder) = self.remainder(to).take() else {
            return;
        };
        let Some(sink) = self.socket(to) else {
            return;
        };
        let len = remainder.len();
        let sent = match remainder.send_to(sink, flags) {
            Ok(sent) => sent,
            Err(error) => return self.fail(to, error, tools),
        };
        if sent < len {
            *self.remainder(to) = Some(remainder);
        } else {
            tools.buffers.give_back(remainder);
        }
        self.note_sent(to, sent, len, tools);
    }

    fn note_sent(&mut self, to: Side, sent: usize, len: usize, tools: &Tools) {
        let bytes = u32::try_from(sent).unwrap_or(u32::MAX);
        self.tell(Event::Sent { to, bytes }, tools);
        if sent < len {
            // The kernel says when it takes more.
            self.tell(Event::SendBlocked(to), tools);
        }
    }

    /// The first message finds nothing unacknowledged and so goes out at once;
    /// those after it need the option. Connections of one message are spared it.
    fn note_message(&mut self, tools: &Tools) {
        self.messages = self.messages.saturating_add(1);
        if self.messages == 2
            && let Some(endpoint) = &mut self.endpoint
            && let Err(error) = endpoint.settle_messages()
        {
            self.fail(Side::Endpoint, error, tools);
        }
    }

    pub(super) fn settle(&mut self, tools: &Tools) {
        self.messages = 2;
        if let Some(endpoint) = &mut self.endpoint
            && let Err(error) = endpoint.settle()
        {
            self.fail(Side::Endpoint, error, tools);
        }
    }

    pub(super) fn inspect(&mut self, tools: &mut Tools) {
        let sockets = [self.client.as_ref(), self.endpoint.as_ref()];
        let finding = tools.vitals.inspect(sockets.into_iter().flatten());
        self.tell(Event::Inspected(finding), tools);
    }
}
