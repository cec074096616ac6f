//! Memory for bytes on their way. A thread's connections share one buffer: what
//! is received into it is sent from it at once. Only what the other side does
//! not take is copied, so that an idle connection owns no buffer.

use std::sync::Arc;

use crate::{
    budget::{Budget, Charge},
    connection::MAX_RECEIVE,
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
    budget: Arc<Budget>,
}

/// Bytes that were received and that the other side did not take yet.
#[derive(Debug, Default)]
pub(super) struct Remainder {
    bytes: Vec<u8>,
    sent: usize,
    /// What it takes of the budget; those in the pool take nothing.
    charge: Option<Charge>,
}

impl Buffers {
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self {
            scratch: vec![0; MAX_RECEIVE].into_boxed_slice(),
            pool: Vec::new(),
            budget,
        }
    }

    /// Bytes of our own, to be sent ahead of others.
    pub(super) fn own(bytes: Vec<u8>) -> Box<Remainder> {
        Box::new(Remainder {
            bytes,
            ..Remainder::default()
        })
    }

    /// Copies a part of the scratch buffer.
    pub(super) fn keep(&mut self, from: usize, to: usize) -> Box<Remainder> {
        let mut remainder = self.pool.pop().unwrap_or_default();
        remainder.bytes.extend_from_slice(&self.scratch[from..to]);
        remainder.charge = Some(self.budget.charge(to - from));
        remainder
    }

    pub(super) fn give_back(&mut self, mut remainder: Box<Remainder>) {
        remainder.charge = None;
        if self.pool.len() < POOL && remainder.bytes.capacity() <= POOLED_LEN {
            remainder.bytes.clear();
            remainder.sent = 0;
            self.pool.push(remainder);
        }
    }
}

impl Remainder {
    /// Copies what is unsent to the beginning of a buffer, for more to be put
    /// behind it. Returns how much.
    pub(super) fn copy_to(&self, buffer: &mut [u8]) -> usize {
        let unsent = self.unsent();
        buffer[..unsent.len()].copy_from_slice(unsent);
        unsent.len()
    }

    pub(super) fn unsent(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    pub(super) fn note_sent(&mut self, count: usize) {
        self.sent += count;
    }
}
