//! The bytes of one direction.

/// What is received at a time to begin with, and at least.
const MIN_LIMIT: u32 = 64 * 1024;
/// What is received at a time at most, and so what a direction can hold.
pub(super) const MAX_LIMIT: u32 = 512 * 1024;

/// How far a direction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Phase {
    /// Its source may send more.
    #[default]
    Open,
    /// Its source has ended; the sink does not know yet.
    Ending,
    /// The sink knows, or is about to by the closing of its socket.
    Ended,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Flow {
    pub(super) phase: Phase,
    /// A receive is under way.
    pub(super) receiving: bool,
    /// A send is under way.
    pub(super) sending: bool,
    /// What was received last is a sign of bulk, and none of it was left so far.
    full: bool,
    /// The limit is [`MIN_LIMIT`] doubled so often.
    doublings: u8,
    /// Bytes received and not sent yet, and those of `ahead`.
    held: u32,
    /// Of these, bytes to be sent first that no source has sent.
    ahead: u16,
    /// Bytes sent since somebody last asked, which is several times a second.
    pub(super) moved: u32,
}

impl Flow {
    pub(super) fn is_busy(&self) -> bool {
        self.receiving || self.sending
    }

    pub(super) fn is_holding(&self) -> bool {
        self.held > 0
    }

    /// Whether nothing but the engine's own bytes are held, so that what is
    /// received next can go out with them.
    pub(super) fn is_greeting(&self) -> bool {
        self.held == u32::from(self.ahead)
    }

    /// Bytes are to be sent that no source has sent.
    pub(super) fn greet(&mut self, bytes: u16) {
        self.ahead = self.ahead.saturating_add(bytes);
        self.held = self.held.saturating_add(bytes.into());
    }

    /// Bytes to receive at a time: small requests must not wait for long behind
    /// others, and bulk wants few and large steps.
    pub(super) fn limit(&self) -> u32 {
        MIN_LIMIT << self.doublings
    }

    /// A step as large as the smallest limit is a sign of bulk, whatever the
    /// engine made of the limit; a smaller one may be no more than bulk that
    /// comes slower for a moment.
    pub(super) fn received(&mut self, bytes: u32) {
        self.receiving = false;
        self.held = self.held.saturating_add(bytes);
        self.full = bytes >= MIN_LIMIT;
        if !self.full {
            self.doublings = self.doublings.saturating_sub(1);
        }
    }

    /// Its source has ended.
    pub(super) fn end(&mut self) {
        self.receiving = false;
        if self.phase == Phase::Open {
            self.phase = Phase::Ending;
        }
    }

    pub(super) fn sent(&mut self, bytes: u32) {
        self.sending = false;
        let ahead = u16::try_from(bytes).map_or(self.ahead, |bytes| bytes.min(self.ahead));
        self.ahead -= ahead;
        self.moved = self.moved.saturating_add(bytes - u32::from(ahead));
        self.held = self.held.saturating_sub(bytes);
        if self.full && self.held == 0 {
            self.full = false;
            self.doublings += u8::from(self.limit() < MAX_LIMIT);
        }
    }

    /// The sink took less than there was, and what it leaves has to be kept. If
    /// that is much, less is received the next time: a slow reader is not to be
    /// the owner of as much memory as bulk moves in a step.
    pub(super) fn blocked(&mut self) {
        self.sending = false;
        self.full = false;
        if self.held > self.limit() / 2 {
            self.doublings = self.doublings.saturating_sub(1);
        }
    }
}
