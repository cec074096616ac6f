//! The machine without sockets: single steps by hand, and whole lives against a
//! model of two peers.

use proptest::prelude::*;

use super::*;
use Side::{Client, Endpoint};

const LIMITS: Limits = Limits {
    connect_ms: 250,
    half_closed_ms: 30_000,
    idle_ms: 3_600_000,
    header_ms: 5_000,
};

/// A machine and the time.
struct Subject {
    machine: Connection,
    now_ms: u64,
}

impl Subject {
    fn new() -> Self {
        let now_ms = 1_000;
        Self {
            machine: Connection::new(now_ms),
            now_ms,
        }
    }

    /// One whose client must say first whose connection it is.
    fn expecting_header() -> Self {
        Self {
            machine: Connection::expecting_header(1_000),
            now_ms: 1_000,
        }
    }

    /// One that relays, with nothing to be received.
    fn relaying() -> Self {
        let mut subject = Self::new();
        subject.expect(&[Operation::Connect, ArmTimer { at_ms: 1_250 }]);
        subject.tell(Event::Connected);
        subject.expect(&[]);
        subject
    }

    fn tell(&mut self, event: Event) {
        self.machine.handle(event, self.now_ms, &LIMITS);
    }

    /// All that is asked for until the next event.
    #[track_caller]
    fn expect(&mut self, expected: &[Operation]) {
        let mut found = Vec::new();
        while let Some(operation) = self.machine.next(self.now_ms, &LIMITS) {
            found.push(operation);
            assert!(found.len() < 20, "no end: {found:?}");
        }
        assert_eq!(found, expected);
    }

    /// The timer fires at this time.
    fn fire_at(&mut self, at_ms: u64) {
        self.now_ms = at_ms;
        self.tell(Event::Timer);
    }

    /// Receives and sends on, wholly.
    #[track_caller]
    fn pass(&mut self, from: Side, bytes: u32) {
        self.tell(Event::Readable(from));
        let limit = 65_536;
        self.expect(&[Receive { from, limit }]);
        self.tell(Event::Received {
            from,
            bytes,
            drained: true,
        });
        let to = from.other();
        self.expect(&[Send { to }]);
        self.tell(Event::Sent { to, bytes });
        self.expect(&[]);
    }
}

use Operation::{
    Abandon, ArmTimer, Close, Inspect, Receive, ReceiveHeader, Reset, Send, Settle, ShutDown,
};

#[test]
fn a_short_connection_from_its_beginning_to_its_end() {
    let mut subject = Subject::new();
    // Bytes that come early wait for the endpoint.
    subject.tell(Event::Readable(Client));
    subject.expect(&[Operation::Connect, ArmTimer { at_ms: 1_250 }]);
    subject.tell(Event::Connected);
    let (from, limit) = (Client, 65_536);
    subject.expect(&[Receive { from, limit }]);
    subject.tell(Event::Received {
        from,
        bytes: 100,
        drained: true,
    });
    subject.expect(&[Send { to: Endpoint }]);
    subject.tell(Event::Sent {
        to: Endpoint,
        bytes: 100,
    });
    subject.pass(Endpoint, 200);
    subject.tell(Event::HungUp(Endpoint));
    let from = Endpoint;
    subject.expect(&[Receive { from, limit }]);
    subject.tell(Event::Ended(Endpoint));
    subject.expect(&[ShutDown(Client)]);
    subject.tell(Event::HungUp(Client));
    let from = Client;
    subject.expect(&[Receive { from, limit }]);
    subject.tell(Event::Ended(Client));
    subject.expect(&[Close]);
    let moved = Moved {
        to_endpoint: 100,
        to_client: 200,
    };
    assert_eq!(subject.machine.take_moved(), moved);
    assert_eq!(subject.machine.take_moved(), Moved::default());
}

#[test]
fn an_end_known_to_come_needs_no_receive_of_its_own() {
    let mut subject = Subject::relaying();
    subject.tell(Event::HungUp(Endpoint));
    let (from, limit) = (Endpoint, 65_536);
    subject.expect(&[Receive { from, limit }]);
    subject.tell(Event::Received {
        from,
        bytes: 5,
        drained: true,
    });
    subject.expect(&[Send { to: Client }]);
    subject.tell(Event::Sent {
        to: Client,
        bytes: 3,
    });
    subject.tell(Event::SendBlocked(Client));
    // Not before the last byte.
    subject.expect(&[]);
    subject.tell(Event::Writable(Client));
    subject.expect(&[Send { to: Client }]);
    subject.tell(Event::Sent {
        to: Client,
        bytes: 2,
    });
    subject.expect(&[ShutDown(Client)]);
}

#[test]
fn a_full_receive_does_not_hide_the_bytes_before_the_end() {
    let mut subject = Subject::relaying();
    subject.tell(Event::HungUp(Client));
    let (from, limit) = (Client, 65_536);
    subject.expect(&[Receive { from, limit }]);
    subject.tell(Event::Received {
        from,
        bytes: limit,
        drained: false,
    });
    subject.expect(&[Send { to: Endpoint }]);
    subject.tell(Event::Sent {
        to: Endpoint,
        bytes: limit,
    });
    subject.expect(&[Receive { from, limit }]);
}

#[test]
fn a_failed_connect_is_tried_elsewhere_and_three_are_enough() {
    let mut subject = Subject::new();
    subject.tell(Event::Readable(Client));
    subject.expect(&[Operation::Connect, ArmTimer { at_ms: 1_250 }]);
    subject.tell(Event::ConnectFailed(ConnectFailure::Refused));
    subject.expect(&[
        Abandon(ConnectFailure::Refused),
        Operation::Connect,
        ArmTimer { at_ms: 1_500 },
    ]);
    subject.fire_at(1_500);
    subject.expect(&[
        Abandon(ConnectFailure::Unanswered),
        Operation::Connect,
        ArmTimer { at_ms: 2_500 },
    ]);
    subject.tell(Event::ConnectFailed(ConnectFailure::Local));
    subject.expect(&[Abandon(ConnectFailure::Local), Reset]);
    subject.expect(&[]);
}

#[test]
fn without_an_endpoint_the_client_is_reset() {
    let mut subject = Subject::new();
    assert_eq!(
        subject.machine.next(subject.now_ms, &LIMITS),
        Some(Operation::Connect)
    );
    subject.tell(Event::NoEndpoint);
    subject.expect(&[Reset]);
}

#[test]
fn a_client_that_gives_up_while_connecting_ends_it() {
    let mut subject = Subject::new();
    subject.expect(&[Operation::Connect, ArmTimer { at_ms: 1_250 }]);
    subject.tell(Event::HungUp(Client));
    subject.expect(&[]);
    subject.tell(Event::Failing(Client));
    subject.expect(&[Reset]);
}

#[test]
fn nothing_is_received_while_the_other_side_takes_nothing() {
    let mut subject = Subject::relaying();
    subject.tell(Event::Readable(Client));
    let (from, limit) = (Client, 65_536);
    subject.expect(&[Receive { from, limit }]);
    subject.tell(Event::Received {
        from,
        bytes: limit,
        drained: false,
    });
    subject.expect(&[Send { to: Endpoint }]);
    subject.tell(Event::Sent {
        to: Endpoint,
        bytes: limit,
    });
    subject.tell(Event::SendBlocked(Endpoint));
    subject.expect(&[]);
    // The other direction does not mind.
    subject.pass(Endpoint, 7);
    subject.tell(Event::Writable(Endpoint));
    subject.expect(&[Receive { from, limit }]);
}

#[test]
fn bulk_is_received_in_larger_and_larger_steps() {
    let mut subject = Subject::relaying();
    subject.tell(Event::Readable(Client));
    let mut limits = Vec::new();
    for _ in 0..9 {
        let Some(Receive { from, limit }) = subject.machine.next(1_000, &LIMITS) else {
            panic!("there is more");
        };
        limits.push(limit / 1024);
        subject.tell(Event::Received {
            from,
            bytes: limit,
            drained: false,
        });
        subject.expect(&[Send { to: Endpoint }]);
        subject.tell(Event::Sent {
            to: Endpoint,
            bytes: limit,
        });
    }
    assert_eq!(limits, [64, 64, 128, 128, 256, 256, 512, 512, 512]);
}

#[test]
fn a_reset_comes_after_the_bytes_before_it_and_never_as_an_end() {
    for event in [Event::Failed(Endpoint), Event::Ended(Endpoint)] {
        let mut subject = Subject::relaying();
        subject.tell(Event::HungUp(Endpoint));
        subject.tell(Event::Failing(Endpoint));
        let (from, limit) = (Endpoint, 65_536);
        subject.expect(&[Receive { from, limit }]);
        subject.tell(Event::Received {
            from,
            bytes: 9,
            drained: true,
        });
        subject.expect(&[Send { to: Client }]);
        subject.tell(Event::Sent {
            to: Client,
            bytes: 9,
        });
        subject.expect(&[Receive { from, limit }]);
        subject.tell(event);
        subject.expect(&[Reset]);
    }
}

#[test]
fn a_reset_does_not_wait_for_a_blocked_side() {
    let mut subject = Subject::relaying();
    subject.tell(Event::SendBlocked(Client));
    subject.tell(Event::Failing(Endpoint));
    subject.expect(&[Reset]);
}

#[test]
fn a_reset_after_an_end_is_seen() {
    let mut subject = Subject::relaying();
    subject.tell(Event::HungUp(Client));
    let (from, limit) = (Client, 65_536);
    subject.expect(&[Receive { from, limit }]);
    subject.tell(Event::Ended(Client));
    subject.expect(&[ShutDown(Endpoint)]);
    subject.tell(Event::Failing(Client));
    subject.expect(&[Reset]);
}

#[test]
fn a_connection_that_stays_is_settled_once_and_then_looked_after() {
    let mut subject = Subject::relaying();
    subject.fire_at(1_260);
    subject.expect(&[Settle, ArmTimer { at_ms: 21_000 }]);
    subject.fire_at(21_000);
    subject.expect(&[Inspect]);
    subject.tell(Event::Inspected(Finding::Quiet));
    // Idle for an hour, from the last byte on.
    subject.expect(&[ArmTimer { at_ms: 3_601_000 }]);
    subject.now_ms = 50_000;
    subject.tell(Event::Readable(Client));
    let (from, limit) = (Client, 65_536);
    subject.expect(&[Receive { from, limit }]);
    subject.tell(Event::Received {
        from,
        bytes: 1,
        drained: true,
    });
    // The machine looks again, for there is something unacknowledged now.
    subject.expect(&[Send { to: Endpoint }, ArmTimer { at_ms: 41_000 }]);
    subject.tell(Event::Sent {
        to: Endpoint,
        bytes: 1,
    });
    subject.expect(&[]);
    subject.fire_at(50_010);
    subject.expect(&[Inspect]);
    subject.tell(Event::Inspected(Finding::Dead));
    subject.expect(&[Reset]);
}

#[test]
fn an_idle_connection_is_reset_in_the_end() {
    let mut subject = Subject::relaying();
    subject.fire_at(1_260);
    subject.expect(&[Settle, ArmTimer { at_ms: 21_000 }]);
    subject.fire_at(21_000);
    subject.expect(&[Inspect]);
    subject.tell(Event::Inspected(Finding::Quiet));
    subject.expect(&[ArmTimer { at_ms: 3_601_000 }]);
    subject.fire_at(3_601_000);
    subject.expect(&[Reset]);
}

#[test]
fn a_slow_reader_outlives_the_half_closed_timeout_but_not_the_idle_one() {
    let mut subject = Subject::relaying();
    subject.tell(Event::HungUp(Endpoint));
    let (from, limit) = (Endpoint, 65_536);
    subject.expect(&[Receive { from, limit }]);
    subject.tell(Event::Ended(Endpoint));
    subject.expect(&[ShutDown(Client)]);
    subject.fire_at(1_250);
    let mut at_ms = 21_000;
    subject.expect(&[Settle, ArmTimer { at_ms }]);
    let last = loop {
        subject.fire_at(at_ms);
        match subject.machine.next(at_ms, &LIMITS) {
            Some(Inspect) => {}
            other => break other,
        }
        subject.tell(Event::Inspected(Finding::Slow));
        let Some(ArmTimer { at_ms: next }) = subject.machine.next(at_ms, &LIMITS) else {
            panic!("the timer is armed");
        };
        at_ms = next;
    };
    assert_eq!((last, at_ms), (Some(Reset), 3_601_000));
}

#[test]
fn a_silent_half_closed_connection_is_reset() {
    let mut subject = Subject::relaying();
    subject.now_ms = 1_100;
    subject.tell(Event::HungUp(Client));
    let (from, limit) = (Client, 65_536);
    subject.expect(&[Receive { from, limit }]);
    subject.tell(Event::Ended(Client));
    subject.expect(&[ShutDown(Endpoint)]);
    subject.fire_at(1_250);
    subject.expect(&[Settle, ArmTimer { at_ms: 21_000 }]);
    subject.fire_at(21_000);
    subject.expect(&[Inspect]);
    subject.tell(Event::Inspected(Finding::Quiet));
    subject.expect(&[ArmTimer { at_ms: 31_100 }]);
    subject.fire_at(31_100);
    subject.expect(&[Reset]);
}

#[test]
fn a_header_comes_before_the_endpoint() {
    let mut subject = Subject::expecting_header();
    subject.expect(&[ArmTimer { at_ms: 6_000 }]);
    // In two parts, and the client's first bytes behind it.
    subject.tell(Event::Readable(Client));
    subject.expect(&[ReceiveHeader]);
    subject.tell(Event::ReceiveBlocked(Client));
    subject.expect(&[]);
    subject.tell(Event::Readable(Client));
    subject.expect(&[ReceiveHeader]);
    subject.tell(Event::HeaderReceived { drained: false });
    subject.expect(&[Operation::Connect, ArmTimer { at_ms: 1_250 }]);
    subject.tell(Event::Connected);
    let (from, limit) = (Client, 65_536);
    subject.expect(&[Receive { from, limit }]);
}

#[test]
fn without_a_header_there_is_no_connection() {
    // None in time, though the client talks all the time.
    let mut subject = Subject::expecting_header();
    subject.expect(&[ArmTimer { at_ms: 6_000 }]);
    subject.now_ms = 5_900;
    subject.tell(Event::Readable(Client));
    subject.expect(&[ReceiveHeader]);
    subject.tell(Event::ReceiveBlocked(Client));
    subject.fire_at(6_000);
    subject.expect(&[Reset]);
    assert!(!subject.machine.was_tried());
    // Another thing, an end or a reset in its place, and one in the middle.
    for event in [Event::HeaderRefused, Event::Ended(Client)] {
        let mut subject = Subject::expecting_header();
        subject.tell(Event::Readable(Client));
        subject.expect(&[ReceiveHeader, ArmTimer { at_ms: 6_000 }]);
        subject.tell(event);
        subject.expect(&[Reset]);
    }
    let mut subject = Subject::expecting_header();
    subject.tell(Event::Failing(Client));
    subject.expect(&[Reset]);
    let mut subject = Subject::expecting_header();
    subject.tell(Event::HungUp(Client));
    subject.expect(&[ReceiveHeader, ArmTimer { at_ms: 6_000 }]);
    subject.tell(Event::ReceiveBlocked(Client));
    subject.expect(&[Reset]);
}

#[test]
fn an_end_behind_the_header_is_seen() {
    let mut subject = Subject::expecting_header();
    subject.tell(Event::HungUp(Client));
    subject.expect(&[ReceiveHeader, ArmTimer { at_ms: 6_000 }]);
    subject.tell(Event::HeaderReceived { drained: true });
    subject.expect(&[Operation::Connect, ArmTimer { at_ms: 1_250 }]);
    subject.tell(Event::Connected);
    let (from, limit) = (Client, 65_536);
    subject.expect(&[Receive { from, limit }]);
    subject.tell(Event::Ended(Client));
    subject.expect(&[ShutDown(Endpoint)]);
}

#[test]
fn a_greeting_goes_out_with_the_first_bytes_and_does_not_wait_for_them() {
    let greeted = || {
        let mut subject = Subject::new();
        subject.expect(&[Operation::Connect, ArmTimer { at_ms: 1_250 }]);
        subject
    };
    let (from, limit) = (Client, 65_536);
    // They are there already.
    let mut subject = greeted();
    subject.tell(Event::Readable(Client));
    subject.tell(Event::Greeting { bytes: 28 });
    subject.tell(Event::Connected);
    subject.expect(&[Receive { from, limit }]);
    subject.tell(Event::Received {
        from,
        bytes: 100,
        drained: true,
    });
    subject.expect(&[Send { to: Endpoint }]);
    subject.tell(Event::Sent {
        to: Endpoint,
        bytes: 50,
    });
    subject.tell(Event::SendBlocked(Endpoint));
    subject.tell(Event::Writable(Endpoint));
    subject.expect(&[Send { to: Endpoint }]);
    subject.tell(Event::Sent {
        to: Endpoint,
        bytes: 78,
    });
    subject.expect(&[]);
    // Only the client's own count.
    assert_eq!(subject.machine.take_moved().to_endpoint, 100);
    subject.pass(Client, 7);
    // They are not, or it only seemed so.
    for seemed in [false, true] {
        let mut subject = greeted();
        if seemed {
            subject.tell(Event::Readable(Client));
        }
        subject.tell(Event::Greeting { bytes: 28 });
        subject.tell(Event::Connected);
        if seemed {
            subject.expect(&[Receive { from, limit }]);
            subject.tell(Event::ReceiveBlocked(Client));
        }
        subject.expect(&[Send { to: Endpoint }]);
        subject.tell(Event::Sent {
            to: Endpoint,
            bytes: 28,
        });
        subject.expect(&[]);
        assert_eq!(subject.machine.take_moved(), Moved::default());
    }
}

#[test]
fn it_stays_small() {
    // There is one for each idle connection, and the sockets beside it.
    assert!(
        size_of::<Connection>() <= 120,
        "{}",
        size_of::<Connection>()
    );
}

// === whole lives ===

/// One peer's socket, as a kernel would have it.
#[derive(Debug, Clone, Default)]
struct Socket {
    /// Bytes that the peer has sent and that are not received yet.
    inbound: u64,
    /// The peer has ended.
    ended: bool,
    /// The peer has reset.
    is_reset: bool,
    /// Bytes that may still be sent to the peer before it blocks.
    window: u64,
    /// What the peer got.
    got: u64,
    saw_end: bool,
}

/// What the peers do, and how much the kernel grants at a time.
#[derive(Debug, Clone)]
enum Step {
    Speak(Side, u64),
    End(Side),
    ResetBy(Side),
    Read(Side, u64),
    Connect(bool),
    /// The timer fires, so much later.
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let side = || prop_oneof![Just(Client), Just(Endpoint)];
    let step = prop_oneof![
        6 => (side(), 1..300_000_u64).prop_map(|(side, bytes)| Step::Speak(side, bytes)),
        1 => side().prop_map(Step::End),
        1 => side().prop_map(Step::ResetBy),
        6 => (side(), 1..300_000_u64).prop_map(|(side, bytes)| Step::Read(side, bytes)),
        3 => any::<bool>().prop_map(Step::Connect),
        1 => (0..40_000_u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..80)
}

/// Length of the header that a client must send, and of one that is sent.
const HEADER: u64 = 30;

/// What the port does about the PROXY protocol.
#[derive(Debug, Clone, Copy)]
struct Proxy {
    expected: bool,
    sent: bool,
}

/// An engine without a kernel, that holds the machine to its promises.
struct World {
    subject: Subject,
    proxy: Proxy,
    /// Bytes of the header to the endpoint that are not sent yet.
    greeting: u64,
    /// Bytes of the header from the client that are not received yet.
    header: u64,
    client: Socket,
    endpoint: Socket,
    /// Bytes received and not sent, towards each side.
    held_for_client: u64,
    held_for_endpoint: u64,
    connects: u32,
    is_connected: bool,
    moved: Moved,
    spoken: Moved,
    over: Option<Operation>,
}

impl World {
    fn new(proxy: Proxy) -> Self {
        Self {
            subject: if proxy.expected {
                Subject::expecting_header()
            } else {
                Subject::new()
            },
            proxy,
            greeting: 0,
            header: if proxy.expected { HEADER } else { 0 },
            client: Socket {
                window: 100_000,
                ..Socket::default()
            },
            endpoint: Socket {
                window: 100_000,
                ..Socket::default()
            },
            held_for_client: 0,
            held_for_endpoint: 0,
            connects: 0,
            is_connected: false,
            moved: Moved::default(),
            spoken: Moved::default(),
            over: None,
        }
    }

    fn socket(&mut self, side: Side) -> &mut Socket {
        match side {
            Client => &mut self.client,
            Endpoint => &mut self.endpoint,
        }
    }

    fn held_for(&mut self, side: Side) -> &mut u64 {
        match side {
            Client => &mut self.held_for_client,
            Endpoint => &mut self.held_for_endpoint,
        }
    }

    fn exists(&self, side: Side) -> bool {
        self.over.is_none() && (side == Client || self.is_connected)
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Speak(side, bytes) if self.exists(side) => {
                let socket = self.socket(side);
                if socket.ended || socket.is_reset {
                    return;
                }
                socket.inbound += bytes;
                match side {
                    Client => self.spoken.to_endpoint += bytes,
                    Endpoint => self.spoken.to_client += bytes,
                }
                self.subject.tell(Event::Readable(side));
            }
            Step::End(side) if self.exists(side) && !self.socket(side).is_reset => {
                self.socket(side).ended = true;
                self.subject.tell(Event::HungUp(side));
            }
            Step::ResetBy(side) if self.exists(side) => {
                self.socket(side).is_reset = true;
                self.subject.tell(Event::HungUp(side));
                self.subject.tell(Event::Failing(side));
            }
            Step::Read(side, bytes) if self.exists(side) => {
                self.socket(side).window += bytes;
                self.subject.tell(Event::Writable(side));
            }
            Step::Connect(success) if self.subject.machine.is_connecting() => {
                self.is_connected = success;
                if success && self.proxy.sent {
                    self.greeting = HEADER;
                    self.subject.tell(Event::Greeting { bytes: 30 });
                }
                self.subject.tell(if success {
                    Event::Connected
                } else {
                    Event::ConnectFailed(ConnectFailure::Refused)
                });
            }
            Step::Wait(ms) if self.over.is_none() => {
                let at_ms = self.subject.now_ms + ms;
                self.subject.fire_at(at_ms);
            }
            _ => {}
        }
        self.run();
    }

    fn run(&mut self) {
        for _ in 0..10_000 {
            let now_ms = self.subject.now_ms;
            let Some(operation) = self.subject.machine.next(now_ms, &LIMITS) else {
                return;
            };
            assert!(self.over.is_none(), "{operation:?} after the end");
            self.carry_out(operation);
            let moved = self.subject.machine.take_moved();
            self.moved.to_endpoint += moved.to_endpoint;
            self.moved.to_client += moved.to_client;
        }
        panic!("the machine asks without end");
    }

    fn carry_out(&mut self, operation: Operation) {
        match operation {
            ReceiveHeader => self.receive_header(),
            Operation::Connect => {
                assert_eq!(self.header, 0, "the client has not said whose it is");
                assert!(!self.is_connected);
                assert_eq!(self.moved, Moved::default());
                self.connects += 1;
                assert!(self.connects <= 3);
            }
            Abandon(_) => self.is_connected = false,
            Receive { from, limit } => self.receive(from, limit),
            Send { to } => self.send(to),
            ShutDown(side) => {
                assert!(self.socket(side.other()).ended);
                assert_eq!(self.socket(side.other()).inbound, 0);
                assert_eq!(*self.held_for(side), 0);
                assert!(side == Client || self.greeting == 0);
                assert!(!self.socket(side).saw_end, "an end is told once");
                self.socket(side).saw_end = true;
            }
            Settle | ArmTimer { .. } => {}
            Inspect => self.subject.tell(Event::Inspected(Finding::Quiet)),
            Close => {
                assert!(self.client.ended && self.endpoint.ended);
                assert_eq!(self.client.inbound + self.endpoint.inbound, 0);
                assert_eq!(self.held_for_client + self.held_for_endpoint, 0);
                self.over = Some(operation);
            }
            Reset => self.over = Some(operation),
        }
    }

    fn receive_header(&mut self) {
        let client = &mut self.client;
        let event = if client.inbound >= HEADER {
            client.inbound -= HEADER;
            self.spoken.to_endpoint -= HEADER;
            self.header = 0;
            Event::HeaderReceived {
                drained: client.inbound == 0,
            }
        } else if client.is_reset {
            Event::Failed(Client)
        } else if client.inbound == 0 && client.ended {
            Event::Ended(Client)
        } else {
            Event::ReceiveBlocked(Client)
        };
        self.subject.tell(event);
    }

    fn receive(&mut self, from: Side, limit: u32) {
        assert!(self.is_connected, "consumed before there is an endpoint");
        assert_eq!(*self.held_for(from.other()), 0, "more than one is held");
        let socket = self.socket(from);
        let bytes = socket.inbound.min(u64::from(limit));
        let event = if bytes > 0 {
            socket.inbound -= bytes;
            *self.held_for(from.other()) += bytes;
            let bytes = u32::try_from(bytes).unwrap();
            Event::Received {
                from,
                bytes,
                drained: bytes < limit,
            }
        } else if socket.is_reset {
            Event::Failed(from)
        } else if socket.ended {
            Event::Ended(from)
        } else {
            Event::ReceiveBlocked(from)
        };
        self.subject.tell(event);
    }

    fn send(&mut self, to: Side) {
        let held = *self.held_for(to);
        let ahead = if to == Endpoint { self.greeting } else { 0 };
        assert!(held + ahead > 0, "nothing to send");
        let socket = self.socket(to);
        assert!(!socket.saw_end, "bytes after the end");
        if socket.is_reset {
            self.subject.tell(Event::Failed(to));
            return;
        }
        let sent = (ahead + held).min(socket.window);
        let own = sent.min(ahead);
        socket.window -= sent;
        socket.got += sent - own;
        *self.held_for(to) -= sent - own;
        if to == Endpoint {
            self.greeting -= own;
        }
        let bytes = u32::try_from(sent).unwrap();
        self.subject.tell(Event::Sent { to, bytes });
        if sent < ahead + held {
            self.subject.tell(Event::SendBlocked(to));
        }
    }

    fn check(&self) {
        assert_eq!(self.moved.to_client, self.client.got);
        assert_eq!(self.moved.to_endpoint, self.endpoint.got);
        let up = self.client.inbound + self.held_for_endpoint + self.endpoint.got;
        assert_eq!(up, self.spoken.to_endpoint, "bytes are lost or invented");
        let down = self.endpoint.inbound + self.held_for_client + self.client.got;
        assert_eq!(down, self.spoken.to_client, "bytes are lost or invented");
    }

    /// Whatever has come so far: peers that read all and end in order get all,
    /// and then the end.
    fn finish(&mut self) {
        for _ in 0..4 {
            for side in [Client, Endpoint] {
                self.take(&Step::Connect(true));
                self.take(&Step::Read(side, 100_000_000));
                self.take(&Step::End(side));
            }
        }
        self.check();
        let was_reset = self.client.is_reset || self.endpoint.is_reset;
        match self.over {
            Some(Close) => assert!(!was_reset || self.client.ended && self.endpoint.ended),
            Some(Reset) => {}
            other => panic!("not over: {other:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_life_breaks_a_promise(
        expected in any::<bool>(),
        sent in any::<bool>(),
        steps in steps(),
    ) {
        let mut world = World::new(Proxy { expected, sent });
        world.run();
        let mut gave_up = false;
        for step in &steps {
            gave_up |= matches!(step, Step::Wait(_) | Step::ResetBy(_) | Step::Connect(false));
            world.take(step);
            world.check();
        }
        world.finish();
        // With nothing against it, it ends in order and every byte arrives.
        if !gave_up && world.header == 0 {
            prop_assert_eq!(world.over, Some(Close));
            prop_assert_eq!(world.moved, world.spoken);
        }
    }

    /// Events that no kernel would tell in this order, or at all: nothing panics,
    /// nothing goes on without end, and after the end nothing is asked for.
    #[test]
    fn no_events_in_any_order_confuse_it(
        expected in any::<bool>(),
        events in prop::collection::vec((event(), 0..40_000_u64), 0..60),
    ) {
        let mut machine = if expected {
            Connection::expecting_header(1_000)
        } else {
            Connection::new(1_000)
        };
        let mut now_ms = 1_000;
        let mut is_over = false;
        for (event, wait_ms) in events {
            now_ms += wait_ms;
            machine.handle(event, now_ms, &LIMITS);
            let mut count = 0;
            while let Some(operation) = machine.next(now_ms, &LIMITS) {
                prop_assert!(!is_over, "{:?} after the end", operation);
                is_over = matches!(operation, Close | Reset);
                count += 1;
                prop_assert!(count < 20, "no end");
            }
            machine.take_moved();
        }
    }
}

fn event() -> impl Strategy<Value = Event> {
    let side = || prop_oneof![Just(Client), Just(Endpoint)];
    let bytes = || prop_oneof![Just(0_u32), 1..600_000_u32];
    let failure = prop_oneof![
        Just(ConnectFailure::Refused),
        Just(ConnectFailure::Unanswered),
        Just(ConnectFailure::Local)
    ];
    let finding = prop_oneof![
        Just(Finding::Quiet),
        Just(Finding::Slow),
        Just(Finding::Dead)
    ];
    let rare = prop_oneof![
        any::<bool>().prop_map(|drained| Event::HeaderReceived { drained }),
        Just(Event::HeaderRefused),
        (0..300_u16).prop_map(|bytes| Event::Greeting { bytes }),
        Just(Event::NoEndpoint),
        failure.prop_map(Event::ConnectFailed),
        side().prop_map(Event::HungUp),
        side().prop_map(Event::Failing),
        side().prop_map(Event::Ended),
        side().prop_map(Event::Failed),
        finding.prop_map(Event::Inspected),
    ];
    let common = prop_oneof![
        Just(Event::Connected),
        side().prop_map(Event::Readable),
        side().prop_map(Event::Writable),
        (side(), bytes(), any::<bool>()).prop_map(|(from, bytes, drained)| Event::Received {
            from,
            bytes,
            drained
        }),
        side().prop_map(Event::ReceiveBlocked),
        (side(), bytes()).prop_map(|(to, bytes)| Event::Sent { to, bytes }),
        side().prop_map(Event::SendBlocked),
        Just(Event::Timer),
    ];
    prop_oneof![4 => common, 1 => rare]
}
