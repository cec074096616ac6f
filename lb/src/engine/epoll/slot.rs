//! One connection's sockets and buffers, and the operations its state machine
//! asks for, carried out on the spot.

mod connecting;
mod relaying;

use std::{io, ops::ControlFlow, sync::Arc};

use rustix::{
    event::epoll::EventFlags,
    net::{SendFlags, Shutdown},
};

use self::relaying::Turn;
use super::{Tools, buffers::Remainder};
use crate::{
    access::{End, Entry},
    connection::{Connection, Event, Operation, Side},
    engine::{mailbox::Arrival, slab::Key},
    port::{Lease, Port},
    proxy::Addresses,
    select::EndpointKey,
    shared::Permit,
    socket::{ConnectError, Socket},
    sources::{Ticket, TooMany},
    syscall::shutdown,
};

/// See the module. Its fields are dropped in this order: an endpoint is drained
/// once nothing of its connections is left.
pub(super) struct Slot {
    machine: Connection,
    /// Taken only at the end.
    client: Option<Socket>,
    endpoint: Option<Socket>,
    lease: Option<Lease>,
    port: Arc<Port>,
    /// Bytes towards the client, and towards the endpoint, that they did not
    /// take yet.
    to_client: Option<Box<Remainder>>,
    to_endpoint: Option<Box<Remainder>>,
    /// Only once a connect has failed.
    tried: Option<Box<Tried>>,
    /// From where to where the connection is, as the client's header has it.
    told: Option<Box<Addresses>>,
    /// Where sources are limited.
    ticket: Option<Ticket>,
    /// Where there is an access log.
    entry: Option<Box<Entry>>,
    _permit: Permit,
    /// It waits among those left in the middle.
    pub(super) is_queued: bool,
    /// It waits among those whose bytes are to be counted.
    is_uncounted: bool,
    /// It has urgent bytes, at which a receive stops short of the end.
    is_urgent: bool,
    /// Messages sent to the endpoint: none, one, or more.
    messages: u8,
}

/// What an idle connection takes is little more than this, and is to stay below 256 bytes.
const _: () = assert!(size_of::<Slot>() <= 216);

/// Where a connection begins: with a header, if it comes from where one must.
fn machine(port: &Port, client: &Socket, now_ms: u64) -> Connection {
    let edge = port.edge();
    let trusted = &edge.accept_proxy;
    // Who trusts nobody need not ask who it is.
    let is_trusted = !trusted.is_empty()
        && client.peer().is_some_and(|peer| {
            let ip = peer.ip();
            trusted.iter().any(|network| network.contains(ip))
        });
    if is_trusted {
        Connection::expecting_header(now_ms)
    } else {
        Connection::new(now_ms)
    }
}

/// What became of earlier tries.
#[derive(Default)]
struct Tried {
    failed: Vec<EndpointKey>,
    refused: Vec<EndpointKey>,
    error: Option<ConnectError>,
}

impl Slot {
    /// `None` if the client's source has too many connections: it is reset.
    pub(super) fn new(arrival: Arrival, tools: &Tools) -> Option<Self> {
        let client = Socket::accepted(arrival.client);
        let machine = machine(&arrival.port, &client, tools.now_ms);
        let shared = tools.shared();
        let mut entry = shared.access.load_full().map(|log| {
            let port = Arc::clone(&arrival.port);
            Box::new(Entry::new(log, port, client.peer()))
        });
        let mut ticket = None;
        // Who is to say whose connection it is, is not its source.
        if !machine.expects_header()
            && let Some(peer) = client.peer()
        {
            match shared.sources.admit(peer.ip()) {
                Ok(admitted) => ticket = admitted,
                Err(TooMany) => {
                    arrival.port.count_refused();
                    if let Some(entry) = &mut entry {
                        entry.note_end(End::Refused);
                    }
                    return None;
                }
            }
        }
        Some(Self {
            machine,
            client: Some(client),
            endpoint: None,
            lease: None,
            port: arrival.port,
            to_client: None,
            to_endpoint: None,
            tried: None,
            told: None,
            ticket,
            entry,
            _permit: arrival.permit,
            is_queued: false,
            is_uncounted: false,
            is_urgent: false,
            messages: 0,
        })
    }

    pub(super) fn client(&self) -> &Socket {
        self.client
            .as_ref()
            .expect("the client's socket is taken only when the slot is closed")
    }

    pub(super) fn tell(&mut self, event: Event, tools: &Tools) {
        self.machine.handle(event, tools.now_ms, &tools.limits);
    }

    /// Translates what the kernel says of one socket. A try's events cannot be
    /// those of an earlier one: its socket is closed when the next is made, and
    /// in one batch a socket has one event.
    pub(super) fn note_ready(&mut self, side: Side, flags: EventFlags, tools: &Tools) {
        if side == Side::Endpoint && self.machine.is_connecting() {
            match self.connected(flags, tools) {
                None => return,
                Some(Ok(())) => self.note_connected(tools),
                Some(Err(error)) => {
                    self.note_connect_error(error, tools);
                    return;
                }
            }
        } else if flags.contains(EventFlags::OUT) {
            self.tell(Event::Writable(side), tools);
        }
        self.is_urgent |= flags.contains(EventFlags::PRI);
        if flags.intersects(EventFlags::RDHUP | EventFlags::HUP) {
            self.tell(Event::HungUp(side), tools);
        } else if flags.contains(EventFlags::IN) {
            self.tell(Event::Readable(side), tools);
        }
        if flags.contains(EventFlags::ERR) {
            self.tell(Event::Failing(side), tools);
        }
    }

    /// The timer has fired.
    pub(super) fn note_timer(&mut self, tools: &Tools) {
        if self.machine.is_connecting()
            && let Some(endpoint) = &self.endpoint
            && endpoint.is_connected()
        {
            // Under a burst the word of it may still wait among many others.
            self.note_ready(Side::Endpoint, EventFlags::OUT, tools);
        }
        self.tell(Event::Timer, tools);
    }

    /// Does what the machine asks for until it has no more to ask or its turn
    /// is over. `Break` when the connection is over.
    pub(super) fn drive(&mut self, key: Key, tools: &mut Tools) -> ControlFlow<()> {
        let given = tools.round.turn();
        let mut turn = Turn::new(given);
        let flow = self.take_turn(key, &mut turn, tools);
        tools.round.note(given - turn.left);
        flow
    }

    fn take_turn(&mut self, key: Key, turn: &mut Turn, tools: &mut Tools) -> ControlFlow<()> {
        while let Some(operation) = self.machine.next(tools.now_ms, &tools.limits) {
            match operation {
                Operation::ReceiveHeader => self.receive_header(tools),
                Operation::Connect => self.connect(key, tools),
                Operation::Abandon(failure) => self.abandon(failure, tools),
                Operation::Receive { from, limit } => {
                    self.receive(from, limit, turn, tools);
                    self.note_uncounted(key, tools);
                }
                Operation::Send { to } => {
                    self.send(to, SendFlags::NOSIGNAL, turn, tools);
                }
                Operation::SendLast { to } => {
                    // Kept back, if that is possible, for what comes next to go
                    // with it; the kernel lets it go with the end or the closing.
                    let flags = SendFlags::NOSIGNAL | SendFlags::MORE;
                    self.send(to, flags, turn, tools);
                }
                Operation::ShutDown(side) => self.shut_down(side, tools),
                Operation::Settle => self.settle(tools),
                Operation::ArmTimer { at_ms } => tools.wheel.arm(key.index, at_ms),
                Operation::Inspect => self.inspect(tools),
                Operation::Close => {
                    self.close();
                    return ControlFlow::Break(());
                }
                Operation::Reset => {
                    if !self.machine.was_tried() {
                        self.port.count_refused();
                        self.note_end(End::Refused);
                    } else if self.endpoint.is_none() {
                        self.port.count_unserved();
                        self.note_end(End::Unserved);
                    }
                    self.count();
                    return ControlFlow::Break(());
                }
            }
            if turn.is_over() {
                self.queue(key, tools);
                break;
            }
        }
        ControlFlow::Continue(())
    }

    // === the end ===

    fn shut_down(&mut self, side: Side, tools: &Tools) {
        // Who sees the end finds the bytes before it in the counters.
        self.count();
        let Some(socket) = self.socket(side) else {
            return;
        };
        if let Err(error) = shutdown(socket, Shutdown::Write) {
            self.fail(side, error, tools);
        }
    }

    fn close(&mut self) {
        self.count();
        self.note_end(End::Closed);
        for socket in [self.client.take(), self.endpoint.take()]
            .into_iter()
            .flatten()
        {
            socket.close_in_order();
        }
    }

    fn fail(&mut self, side: Side, error: impl Into<io::Error>, tools: &Tools) {
        let error = error.into();
        if let Some(lease) = &self.lease {
            let endpoint = lease.endpoint();
            tracing::debug!(
                port = endpoint.port,
                endpoint = endpoint.id,
                ?side,
                %error,
                "connection failed"
            );
        }
        self.tell(Event::Failed(side), tools);
    }

    /// It is about to be reset, for the bytes that it holds.
    pub(super) fn shed(&mut self) {
        self.count();
        self.port.count_shed();
        self.note_end(End::Shed);
    }

    /// Bytes that one side has sent and the other did not take.
    pub(super) fn held(&self) -> usize {
        let remainders = [&self.to_client, &self.to_endpoint];
        let held = remainders.into_iter().flatten();
        held.map(|remainder| remainder.len()).sum()
    }

    fn note_end(&mut self, end: End) {
        if let Some(entry) = &mut self.entry {
            entry.note_end(end);
        }
    }

    // === counting and queueing ===

    /// Puts the bytes moved since the last time into the counters.
    pub(super) fn count(&mut self) {
        self.is_uncounted = false;
        let moved = self.machine.take_moved();
        if let Some(entry) = &mut self.entry {
            entry.note_moved(moved);
        }
        if let Some(lease) = &self.lease {
            lease.count_moved(moved);
        }
    }

    fn note_uncounted(&mut self, key: Key, tools: &mut Tools) {
        if !self.is_uncounted {
            self.is_uncounted = true;
            if tools.uncounted.is_empty() {
                tools.uncounted_since_ms = tools.now_ms;
            }
            tools.uncounted.push(key);
        }
    }

    fn queue(&mut self, key: Key, tools: &mut Tools) {
        if !self.is_queued {
            self.is_queued = true;
            tools.runnable.push_back(key);
        }
    }

    fn socket(&self, side: Side) -> Option<&Socket> {
        match side {
            Side::Client => self.client.as_ref(),
            Side::Endpoint => self.endpoint.as_ref(),
        }
    }

    fn remainder(&mut self, to: Side) -> &mut Option<Box<Remainder>> {
        match to {
            Side::Client => &mut self.to_client,
            Side::Endpoint => &mut self.to_endpoint,
        }
    }
}
