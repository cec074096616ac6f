//! Whole lives of the machine, against a model of two peers.

use proptest::prelude::*;

use super::*;

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
