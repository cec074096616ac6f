//! The machine's whole surroundings as a model: two peers and a kernel, in which
//! any steps can be taken, and which holds the machine to its promises. Tests
//! and fuzz targets live in it.

use super::{
    ConnectFailure, Connection, Event, Finding, Limits, Moved,
    Operation::{
        self, Abandon, ArmTimer, Close, Inspect, Receive, ReceiveHeader, Reset, Send, SendLast,
        Settle, ShutDown,
    },
    Side::{self, Client, Endpoint},
};

pub(super) const LIMITS: Limits = Limits {
    connect_ms: 250,
    half_closed_ms: 30_000,
    idle_ms: 3_600_000,
    header_ms: 5_000,
};

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
pub(crate) enum Step {
    Speak(Side, u64),
    End(Side),
    ResetBy(Side),
    Read(Side, u64),
    Connect(bool),
    /// The timer fires, so much later.
    Wait(u64),
}

/// A whole life: whatever happens in it, no promise is broken, and at its end the
/// peers read all and end in order.
pub(crate) fn live(proxy: Proxy, steps: &[Step]) {
    let mut world = World::new(proxy);
    world.run();
    let mut gave_up = false;
    for step in steps {
        gave_up |= matches!(
            step,
            Step::Wait(_) | Step::ResetBy(_) | Step::Connect(false)
        );
        world.take(step);
        world.check();
    }
    world.finish();
    // With nothing against it, it ends in order and every byte arrives.
    if !gave_up && world.header == 0 {
        assert_eq!(world.over, Some(Close));
        assert_eq!(world.moved, world.spoken);
    }
}

/// Events that no kernel would tell in this order, or at all, each after a wait:
/// nothing panics, nothing goes on without end, and after the end nothing is
/// asked for.
pub(crate) fn confuse(mut machine: Connection, events: impl IntoIterator<Item = (Event, u64)>) {
    let mut now_ms = 1_000;
    let mut is_over = false;
    for (event, wait_ms) in events {
        now_ms += wait_ms;
        machine.handle(event, now_ms, &LIMITS);
        let mut count = 0;
        while let Some(operation) = machine.next(now_ms, &LIMITS) {
            assert!(!is_over, "{operation:?} after the end");
            is_over = matches!(operation, Close | Reset);
            count += 1;
            assert!(count < 20, "no end");
        }
        machine.take_moved();
    }
}

/// Length of the header that a client must send, and of one that is sent.
const HEADER: u64 = 30;

/// What the port does about the PROXY protocol.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Proxy {
    pub(crate) expected: bool,
    pub(crate) sent: bool,
}

/// An engine without a kernel, that holds the machine to its promises.
struct World {
    machine: Connection,
    now_ms: u64,
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
            machine: if proxy.expected {
                Connection::expecting_header(1_000)
            } else {
                Connection::new(1_000)
            },
            now_ms: 1_000,
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

    fn tell(&mut self, event: Event) {
        self.machine.handle(event, self.now_ms, &LIMITS);
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
                self.tell(Event::Readable(side));
            }
            Step::End(side) if self.exists(side) && !self.socket(side).is_reset => {
                self.socket(side).ended = true;
                self.tell(Event::HungUp(side));
            }
            Step::ResetBy(side) if self.exists(side) => {
                self.socket(side).is_reset = true;
                self.tell(Event::HungUp(side));
                self.tell(Event::Failing(side));
            }
            Step::Read(side, bytes) if self.exists(side) => {
                self.socket(side).window += bytes;
                self.tell(Event::Writable(side));
            }
            Step::Connect(success) if self.machine.is_connecting() => {
                self.is_connected = success;
                if success && self.proxy.sent {
                    self.greeting = HEADER;
                    self.tell(Event::Greeting { bytes: 30 });
                }
                self.tell(if success {
                    Event::Connected
                } else {
                    Event::ConnectFailed(ConnectFailure::Refused)
                });
            }
            Step::Wait(ms) if self.over.is_none() => {
                self.now_ms += ms;
                self.tell(Event::Timer);
            }
            _ => {}
        }
        self.run();
    }

    fn run(&mut self) {
        for _ in 0..10_000 {
            let now_ms = self.now_ms;
            let Some(operation) = self.machine.next(now_ms, &LIMITS) else {
                return;
            };
            assert!(self.over.is_none(), "{operation:?} after the end");
            self.carry_out(operation);
            let moved = self.machine.take_moved();
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
            SendLast { to } => {
                let source = self.socket(to.other());
                assert!(source.ended && source.inbound == 0, "it is not the last");
                self.send(to);
            }
            ShutDown(side) => {
                assert!(self.socket(side.other()).ended);
                assert_eq!(self.socket(side.other()).inbound, 0);
                assert_eq!(*self.held_for(side), 0);
                assert!(side == Client || self.greeting == 0);
                assert!(!self.socket(side).saw_end, "an end is told once");
                self.socket(side).saw_end = true;
            }
            Settle | ArmTimer { .. } => {}
            Inspect => self.tell(Event::Inspected(Finding::Quiet)),
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
        self.tell(event);
    }

    fn receive(&mut self, from: Side, limit: u32) {
        assert!(self.is_connected, "consumed before there is an endpoint");
        assert_eq!(*self.held_for(from.other()), 0, "more than one is held");
        let socket = self.socket(from);
        let bytes = socket.inbound.min(u64::from(limit));
        let event = if bytes > 0 {
            socket.inbound -= bytes;
            *self.held_for(from.other()) += bytes;
            let bytes = u32::try_from(bytes).expect("a receive is of less than 4 GiB");
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
        self.tell(event);
    }

    fn send(&mut self, to: Side) {
        let held = *self.held_for(to);
        let ahead = if to == Endpoint { self.greeting } else { 0 };
        assert!(held + ahead > 0, "nothing to send");
        let socket = self.socket(to);
        assert!(!socket.saw_end, "bytes after the end");
        if socket.is_reset {
            self.tell(Event::Failed(to));
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
        let bytes = u32::try_from(sent).expect("a send is of less than 4 GiB");
        self.tell(Event::Sent { to, bytes });
        if sent < ahead + held {
            self.tell(Event::SendBlocked(to));
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
