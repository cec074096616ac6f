//! One forwarded connection, from the accepted client to its end, as a pure
//! state machine: events in, operations out, no socket, clock or buffer.
//!
//! ```text
//!               +--failed, tries left--+
//!               v                      |
//! new ----> connecting --------------> relaying --both ended--> over (closed)
//!  ^            |                      |
//!  |            +--no endpoint---------+--error, RST, silence--> over (reset)
//!  |                                   |
//! header --none, or none in time-------+
//! ```
//!
//! A client that must first say whose connection it is begins at `header`, all
//! others at `new`.
//!
//! The one who runs it, an engine, tells what happened ([`Event`]) and asks
//! what to do ([`Connection::next`]) until there is nothing more to do for now.
//! An operation that moves bytes is under way from the moment it is handed out
//! until its completion is told, and meanwhile not handed out again. An engine
//! that works by readiness carries it out on the spot and tells `...Blocked`
//! where it would have to wait; one that works by completion submits it and
//! tells nothing until it is done. The machine sees no difference.
//!
//! What holds, whatever the events:
//!
//! * Nothing but a PROXY header is received from the client before an endpoint is
//!   connected, so that another endpoint can be tried as long as none is.
//! * Nothing is received in a direction while bytes of it are still to be sent,
//!   or while the other side takes none: that is the backpressure, and why at
//!   most one receive's worth of bytes is ever held for a direction.
//! * An end (FIN) is passed on after the last byte before it, by direction. An
//!   abnormal end is never passed on as an end but as a reset.

mod exchange;
mod flow;
#[cfg(any(test, fuzzing))]
pub(crate) mod world;

use std::time::Duration;

pub(crate) use self::exchange::{ConnectFailure, Event, Finding, Limits, Moved, Operation, Side};
use self::flow::{Flow, MAX_LIMIT, Phase};

/// Connects for one client. More would keep it waiting for longer than it takes
/// to try anew, and multiply the connects while everything is down.
const MAX_TRIES: u8 = 3;

/// Time between two looks whether the peers still acknowledge what was sent to
/// them. With [`UNACKNOWLEDGED_LIMIT`] one that has vanished is noticed within a
/// minute, also while the other keeps sending.
const INSPECT_EVERY_MS: u64 = 20_000;

/// How long a peer may leave sent bytes, or questions about its closed window,
/// without any answer, as a rule for engines.
pub(crate) const UNACKNOWLEDGED_LIMIT: Duration = Duration::from_secs(30);

/// Most that [`Operation::Receive`] asks for.
pub(crate) const MAX_RECEIVE: usize = MAX_LIMIT as usize;

/// See the module. Kept small: there is one for each connection, idle or not.
#[derive(Debug)]
pub(crate) struct Connection {
    stage: Stage,
    tries: u8,
    settled: bool,
    inspection: Inspection,
    client: Peer,
    endpoint: Peer,
    up: Flow,
    down: Flow,
    /// Which flow comes first when both could move: the one that has just
    /// received, for an engine may have its bytes in a buffer that all share,
    /// and after it has sent the other, so that neither starves.
    down_first: bool,
    /// When bytes last moved, or the present try to connect began.
    active_at_ms: u64,
    /// When there was last a sign of life: bytes, or a slow reader's answers.
    alive_at_ms: u64,
    /// When somebody last looked at the sockets, or the relaying began.
    inspected_at_ms: u64,
    /// What the engine's timer is armed for; 0 if it is not.
    armed_for_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The client has to say whose connection it is.
    Header,
    New,
    Connecting,
    /// The try has failed and the engine still has its socket.
    Abandoning(ConnectFailure),
    Relaying,
    Failed,
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inspection {
    /// There was life since the last look.
    Due,
    /// The time has come.
    Wanted,
    UnderWay,
    /// Nothing is outstanding.
    Quiet,
}

/// What is known of a side's socket.
#[derive(Debug, Clone, Copy, Default)]
struct Peer {
    readable: bool,
    writable: bool,
    /// After the next bytes comes the end.
    hung_up: bool,
    failing: bool,
}

impl Connection {
    /// A client has been accepted.
    pub(crate) fn new(now_ms: u64) -> Self {
        Self {
            stage: Stage::New,
            tries: 0,
            settled: false,
            inspection: Inspection::Due,
            client: Peer {
                writable: true,
                ..Peer::default()
            },
            endpoint: Peer::default(),
            up: Flow::default(),
            down: Flow::default(),
            down_first: false,
            active_at_ms: now_ms,
            alive_at_ms: now_ms,
            inspected_at_ms: now_ms,
            armed_for_ms: 0,
        }
    }

    /// A client has been accepted that must send a PROXY header first.
    pub(crate) fn expecting_header(now_ms: u64) -> Self {
        Self {
            stage: Stage::Header,
            ..Self::new(now_ms)
        }
    }

    /// Takes in what happened.
    pub(crate) fn handle(&mut self, event: Event, now_ms: u64, limits: &Limits) {
        match event {
            Event::HeaderReceived { drained } => self.note_header(drained),
            Event::Greeting { bytes } => self.up.greet(bytes),
            Event::NoEndpoint => self.fail(),
            Event::Connected => {
                if self.stage == Stage::Connecting {
                    self.stage = Stage::Relaying;
                    self.endpoint.writable = true;
                    self.inspected_at_ms = now_ms;
                    self.touch(now_ms);
                }
            }
            Event::ConnectFailed(failure) => self.abandon(failure),
            Event::Readable(side) => self.peer_mut(side).readable = true,
            Event::Writable(side) => self.peer_mut(side).writable = true,
            Event::HungUp(side) => {
                let peer = self.peer_mut(side);
                peer.readable = true;
                peer.hung_up = true;
            }
            Event::Failing(side) => self.note_failing(side),
            Event::Received {
                from,
                bytes,
                drained,
            } => self.note_received(from, bytes, drained, now_ms),
            Event::ReceiveBlocked(side) => self.note_blocked(side),
            Event::Ended(side) => {
                let failing = self.peer_mut(side).failing;
                self.flow_from(side).end();
                self.note_life(now_ms);
                if failing || self.stage == Stage::Header {
                    // An end that a reset has overtaken, or without a word.
                    self.fail();
                }
            }
            Event::Sent { to, bytes } => {
                self.flow_from(to.other()).sent(bytes);
                self.down_first = to == Side::Endpoint;
                self.touch(now_ms);
            }
            Event::SendBlocked(side) => {
                self.flow_from(side.other()).blocked();
                self.peer_mut(side).writable = false;
            }
            Event::Failed(_) | Event::HeaderRefused => self.fail(),
            Event::Timer => self.note_timer(now_ms, limits),
            Event::Inspected(finding) => self.note_finding(finding, now_ms, limits),
        }
    }

    /// What is to be done next; `None` if nothing until the next event.
    pub(crate) fn next(&mut self, now_ms: u64, limits: &Limits) -> Option<Operation> {
        match self.stage {
            Stage::Header if self.client.readable && !self.up.receiving => {
                self.up.receiving = true;
                Some(Operation::ReceiveHeader)
            }
            Stage::New => {
                self.stage = Stage::Connecting;
                self.tries += 1;
                self.touch(now_ms);
                Some(Operation::Connect)
            }
            Stage::Header | Stage::Connecting => self.arm(limits),
            Stage::Abandoning(failure) => {
                let again = self.tries < MAX_TRIES;
                self.stage = if again { Stage::New } else { Stage::Failed };
                self.endpoint = Peer::default();
                Some(Operation::Abandon(failure))
            }
            Stage::Relaying => self.next_of_relay(limits),
            Stage::Failed => {
                self.stage = Stage::Over;
                Some(Operation::Reset)
            }
            Stage::Over => None,
        }
    }

    /// Whether an endpoint is being connected to.
    pub(crate) fn is_connecting(&self) -> bool {
        self.stage == Stage::Connecting
    }

    /// Whether the client has still to say whose connection it is.
    pub(crate) fn expects_header(&self) -> bool {
        self.stage == Stage::Header
    }

    /// Whether it has come so far that an endpoint was asked for.
    pub(crate) fn was_tried(&self) -> bool {
        self.tries > 0
    }

    /// Bytes moved since the last call.
    pub(crate) fn take_moved(&mut self) -> Moved {
        Moved {
            to_endpoint: std::mem::take(&mut self.up.moved).into(),
            to_client: std::mem::take(&mut self.down.moved).into(),
        }
    }

    fn next_of_relay(&mut self, limits: &Limits) -> Option<Operation> {
        let order = if self.down_first {
            [Side::Endpoint, Side::Client]
        } else {
            [Side::Client, Side::Endpoint]
        };
        for from in order {
            if let Some(operation) = self.next_of_flow(from) {
                return Some(operation);
            }
            if self.stage != Stage::Relaying {
                self.stage = Stage::Over;
                return Some(Operation::Reset);
            }
        }
        if self.up.phase == Phase::Ended && self.down.phase == Phase::Ended {
            self.stage = Stage::Over;
            return Some(Operation::Close);
        }
        if self.inspection == Inspection::Wanted {
            self.inspection = Inspection::UnderWay;
            return Some(Operation::Inspect);
        }
        self.arm(limits)
    }

    fn next_of_flow(&mut self, from: Side) -> Option<Operation> {
        let to = from.other();
        let (source, sink) = (*self.peer_mut(from), *self.peer_mut(to));
        let other_ended = self.flow_from(to).phase == Phase::Ended;
        let flow = self.flow_from(from);
        if flow.is_busy() {
            return None;
        }
        let may_receive = flow.phase == Phase::Open && source.readable && sink.writable;
        if flow.is_holding() && !(flow.is_greeting() && may_receive) {
            if sink.writable {
                flow.sending = true;
                return Some(match flow.phase {
                    Phase::Open => Operation::Send { to },
                    Phase::Ending | Phase::Ended => Operation::SendLast { to },
                });
            }
        } else if flow.phase == Phase::Ending {
            flow.phase = Phase::Ended;
            // The last end needs no word of its own: closing says it.
            if !other_ended {
                return Some(Operation::ShutDown(to));
            }
        } else if may_receive {
            flow.receiving = true;
            return Some(Operation::Receive {
                from,
                limit: flow.limit(),
            });
        }
        if source.failing {
            // Nobody can tell when the other side takes what is before the
            // reset, if ever: it is passed on now.
            self.fail();
        }
        None
    }

    fn note_failing(&mut self, side: Side) {
        let peer = self.peer_mut(side);
        peer.failing = true;
        peer.readable = true;
        match self.stage {
            Stage::Header | Stage::New | Stage::Connecting | Stage::Abandoning(_)
                if side == Side::Client =>
            {
                self.fail();
            }
            _ => {}
        }
    }

    fn note_header(&mut self, drained: bool) {
        self.up.receiving = false;
        if self.stage == Stage::Header {
            self.stage = Stage::New;
            // An end that is known to come has to be received yet.
            self.client.readable = !drained || self.client.hung_up;
        }
    }

    fn note_blocked(&mut self, side: Side) {
        self.flow_from(side).receiving = false;
        let stage = self.stage;
        let peer = self.peer_mut(side);
        peer.readable = false;
        if stage == Stage::Header && peer.hung_up {
            // The rest of the header is not going to come.
            self.fail();
        }
    }

    fn note_received(&mut self, from: Side, bytes: u32, drained: bool, now_ms: u64) {
        let flow = self.flow_from(from);
        flow.received(bytes);
        self.down_first = from == Side::Endpoint;
        let peer = self.peer_mut(from);
        if drained {
            if peer.hung_up && !peer.failing {
                // The end is all that can be left: no need to receive it.
                self.flow_from(from).end();
            } else {
                peer.readable = peer.failing;
            }
        }
        self.touch(now_ms);
    }

    fn note_timer(&mut self, now_ms: u64, limits: &Limits) {
        self.armed_for_ms = 0;
        if now_ms < self.deadline(limits) {
            return;
        }
        match self.stage {
            Stage::Connecting => self.abandon(ConnectFailure::Unanswered),
            Stage::Header => self.fail(),
            Stage::Relaying if now_ms >= self.active_at_ms + limits.idle_ms => self.fail(),
            Stage::Relaying => match self.inspection {
                Inspection::Due => self.inspection = Inspection::Wanted,
                Inspection::Wanted | Inspection::UnderWay => {}
                Inspection::Quiet => self.fail(),
            },
            Stage::New | Stage::Abandoning(_) | Stage::Failed | Stage::Over => {}
        }
    }

    fn note_finding(&mut self, finding: Finding, now_ms: u64, limits: &Limits) {
        if self.inspection != Inspection::UnderWay {
            return;
        }
        self.inspected_at_ms = now_ms;
        match finding {
            Finding::Dead => self.fail(),
            Finding::Slow => {
                // Its answers are a sign of life, though no bytes move.
                self.alive_at_ms = now_ms;
                self.inspection = Inspection::Due;
            }
            Finding::Quiet => {
                self.inspection = Inspection::Quiet;
                if now_ms >= self.deadline(limits) {
                    self.fail();
                }
            }
        }
    }

    /// Arms the timer, if it is not armed for this deadline or an earlier one:
    /// each step of a lively connection would otherwise move it.
    fn arm(&mut self, limits: &Limits) -> Option<Operation> {
        if self.inspection == Inspection::UnderWay {
            return None;
        }
        if self.stage == Stage::Relaying && self.armed_for_ms == 0 && !self.settled {
            // The timer of the connect has run out: this one stays.
            self.settled = true;
            return Some(Operation::Settle);
        }
        let deadline = self.deadline(limits);
        if self.armed_for_ms != 0 && self.armed_for_ms <= deadline {
            return None;
        }
        self.armed_for_ms = deadline;
        Some(Operation::ArmTimer { at_ms: deadline })
    }

    fn deadline(&self, limits: &Limits) -> u64 {
        if self.stage == Stage::Header {
            return self.active_at_ms + limits.header_ms;
        }
        if self.stage == Stage::Connecting {
            let doublings = u32::from(self.tries.saturating_sub(1));
            return self.active_at_ms + (limits.connect_ms << doublings);
        }
        let idle_until = self.active_at_ms + limits.idle_ms;
        let half_closed = self.up.phase == Phase::Ended || self.down.phase == Phase::Ended;
        let patience = if half_closed {
            limits.half_closed_ms
        } else {
            limits.idle_ms
        };
        let until = idle_until.min(self.alive_at_ms + patience);
        if self.inspection == Inspection::Due {
            until.min(self.inspected_at_ms + INSPECT_EVERY_MS)
        } else {
            until
        }
    }

    fn abandon(&mut self, failure: ConnectFailure) {
        if self.stage == Stage::Connecting {
            self.stage = Stage::Abandoning(failure);
            self.armed_for_ms = 0;
        }
    }

    fn fail(&mut self) {
        if self.stage != Stage::Over {
            self.stage = Stage::Failed;
        }
    }

    fn touch(&mut self, now_ms: u64) {
        self.active_at_ms = now_ms;
        self.note_life(now_ms);
    }

    fn note_life(&mut self, now_ms: u64) {
        self.alive_at_ms = now_ms;
        if self.inspection == Inspection::Quiet {
            self.inspection = Inspection::Due;
        }
    }

    fn peer_mut(&mut self, side: Side) -> &mut Peer {
        match side {
            Side::Client => &mut self.client,
            Side::Endpoint => &mut self.endpoint,
        }
    }

    /// The flow of bytes that a side sends.
    fn flow_from(&mut self, side: Side) -> &mut Flow {
        match side {
            Side::Client => &mut self.up,
            Side::Endpoint => &mut self.down,
        }
    }
}

#[cfg(test)]
mod tests;
