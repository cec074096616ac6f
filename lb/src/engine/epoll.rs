//! The engine that works by readiness: the kernel says which sockets have
//! become readable or writable, and every operation is tried on the spot.
//!
//! Each socket is registered once, for everything, edge-triggered, and is taken
//! out by closing it: two system calls in the life of a connection's side. What
//! is ready is remembered in the connection's state machine, which asks for an
//! operation only when it may succeed.
//!
//! A turn of the loop: events, timers, connections that were left in the middle
//! for fairness, then sleep until the next of these.

mod accept;
mod buffers;
mod pipe;
mod round;
mod slot;

use std::{
    collections::VecDeque,
    io,
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{buffer::spare_capacity, event::Timespec, io::Errno};

use self::{accept::Acceptor, buffers::Buffers, round::Round, slot::Slot};
use super::{
    Context, Engine,
    mailbox::{Arrival, Mailbox},
    slab::{GENERATIONS, Key, Slab},
    wheel::{TICK_MS, Wheel},
};
use crate::{
    connection::{Limits, Side},
    engine::vitals::Vitals,
    shared::Shared,
    syscall::epoll,
};

/// Events taken at a time.
const BATCH: usize = 256;
/// Bytes received at a time while memory is scarce.
const TIGHT_STEP: u32 = 16 * 1024;
/// Most that a turn of the loop sleeps after the kernel refused to wait.
const PAUSE: Duration = Duration::from_millis(100);

/// Generations of tokens that are not of connections.
const LISTENER: u32 = u32::MAX;
const MAILBOX: u32 = u32::MAX - 1;
const _: () = assert!(MAILBOX >= GENERATIONS && MAILBOX < LISTENER);

/// See the module.
pub(crate) struct Epoll {
    slots: Slab<Slot>,
    acceptor: Acceptor,
    tools: Tools,
}

/// All that driving one connection needs beside the connection.
struct Tools {
    context: Context,
    epoll: OwnedFd,
    limits: Limits,
    started: Instant,
    now_ms: u64,
    wheel: Wheel,
    buffers: Buffers,
    vitals: Vitals,
    /// Connections left in the middle.
    runnable: VecDeque<Key>,
    /// Connections with bytes that are not in the counters yet: counting each
    /// message would cost more than moving it.
    uncounted: Vec<Key>,
    uncounted_since_ms: u64,
    connections: usize,
    round: Round,
}

/// What an event is about, as it comes back from the kernel.
enum Token {
    Mailbox,
    Listener(u32),
    Connection(Key, Side),
}

impl Engine for Epoll {
    fn new(context: Context) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let token = epoll::EventData::new_u64(u64::from(MAILBOX) << 32);
        epoll::add(
            &epoll,
            context.mailbox().wake_fd(),
            token,
            epoll::EventFlags::IN,
        )?;
        context.mailbox().set_load(0);
        Ok(Self {
            slots: Slab::new(),
            acceptor: Acceptor::default(),
            tools: Tools {
                limits: Limits::of(&context.shared.timeouts),
                epoll,
                started: Instant::now(),
                now_ms: 0,
                wheel: Wheel::new(0),
                buffers: Buffers::new(Arc::clone(&context.shared.budget)),
                vitals: Vitals::default(),
                runnable: VecDeque::new(),
                uncounted: Vec::new(),
                uncounted_since_ms: 0,
                connections: 0,
                round: Round::default(),
                context,
            },
        })
    }

    fn run(&mut self) {
        let mut events = Vec::with_capacity(BATCH);
        let mut fired = Vec::new();
        loop {
            events.clear();
            let sleep = self.sleep_ms().map(timespec);
            match epoll::wait(
                &self.tools.epoll,
                spare_capacity(&mut events),
                sleep.as_ref(),
            ) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "cannot wait for events, pausing");
                    std::thread::sleep(PAUSE);
                }
            }
            self.tools.read_clock();
            let left = self.tools.runnable.len();
            self.tools.round.begin();
            for event in &events {
                if self.handle(event).is_break() {
                    return;
                }
            }
            self.fire_timers(&mut fired);
            self.resume(left);
            self.shed_if_over();
            self.acceptor.resume_if_due(&self.tools);
            self.count_if_due();
        }
    }
}

impl Epoll {
    fn handle(&mut self, event: &epoll::Event) -> std::ops::ControlFlow<()> {
        match Token::decode(event.data.u64()) {
            Token::Mailbox => return self.collect_post(),
            Token::Listener(id) => self.accept(id),
            Token::Connection(key, side) => {
                let Some(slot) = self.slots.get_mut(key) else {
                    return std::ops::ControlFlow::Continue(());
                };
                slot.note_ready(side, event.flags, &self.tools);
                // Those left in the middle have their turn later in this round.
                if !slot.is_queued {
                    self.drive(key);
                }
            }
        }
        std::ops::ControlFlow::Continue(())
    }

    fn collect_post(&mut self) -> std::ops::ControlFlow<()> {
        let post = self.tools.mailbox().collect();
        if post.ended {
            return std::ops::ControlFlow::Break(());
        }
        for arrival in post.arrivals {
            self.begin(arrival);
        }
        if let Some(snapshot) = post.snapshot {
            let mut last = Vec::new();
            self.acceptor.take_over(&snapshot, &self.tools, &mut last);
            for arrival in last {
                self.begin(arrival);
            }
            let generation = snapshot.generation;
            // Before it is acknowledged: it may be the last to hold a socket.
            drop(snapshot);
            self.tools.mailbox().acknowledge(generation);
        }
        std::ops::ControlFlow::Continue(())
    }

    fn accept(&mut self, id: u32) {
        let mut accepted = std::mem::take(&mut self.acceptor.accepted);
        self.acceptor.accept(id, &self.tools, &mut accepted);
        for arrival in accepted.drain(..) {
            match self.less_loaded() {
                Some(mailbox) => mailbox.post_arrival(arrival),
                None => self.begin(arrival),
            }
        }
        self.acceptor.accepted = accepted;
    }

    /// Another thread that has clearly fewer connections. Whoever is idle
    /// accepts, which is the same thread again and again while there is little
    /// to do: connections that last would all end up with it.
    fn less_loaded(&self) -> Option<&Mailbox> {
        let context = &self.tools.context;
        let least = context
            .mailboxes
            .iter()
            .min_by_key(|mailbox| mailbox.load())?;
        let load = least.load();
        (self.tools.connections >= load + load / 4 + 2).then_some(least)
    }

    fn begin(&mut self, arrival: Arrival) {
        let Some(slot) = Slot::new(arrival, &self.tools) else {
            self.acceptor.resume_if_room(&self.tools);
            return;
        };
        let key = self.slots.insert(slot);
        self.tools.set_connections(self.tools.connections + 1);
        let registered = match self.slots.get_mut(key) {
            Some(slot) => self.tools.register(slot.client(), key, Side::Client),
            None => return,
        };
        match registered {
            Ok(()) => self.drive(key),
            Err(error) => {
                tracing::warn!(%error, "cannot register a client, resetting it");
                self.finish(key);
            }
        }
    }

    fn drive(&mut self, key: Key) {
        let Some(slot) = self.slots.get_mut(key) else {
            return;
        };
        if slot.drive(key, &mut self.tools).is_break() {
            self.finish(key);
        }
    }

    /// The connection is over; its sockets are closed already, or are reset now.
    fn finish(&mut self, key: Key) {
        self.tools.wheel.disarm(key.index);
        if self.slots.remove(key).is_some() {
            self.tools.set_connections(self.tools.connections - 1);
        }
        if self.tools.connections == 0 {
            self.tools.buffers.drop_pipes();
        }
        self.acceptor.resume_if_room(&self.tools);
    }

    fn fire_timers(&mut self, fired: &mut Vec<u32>) {
        self.tools.wheel.advance(self.tools.now_ms, fired);
        for index in fired.drain(..) {
            let Some(key) = self.slots.key_at(index) else {
                continue;
            };
            if let Some(slot) = self.slots.get_mut(key) {
                slot.note_timer(&self.tools);
            }
            self.drive(key);
        }
    }

    /// Goes on with connections that were left in the middle; not with those
    /// that join them meanwhile.
    fn resume(&mut self, count: usize) {
        for _ in 0..count {
            let Some(key) = self.tools.runnable.pop_front() else {
                return;
            };
            if let Some(slot) = self.slots.get_mut(key) {
                slot.is_queued = false;
                self.drive(key);
            }
        }
    }

    /// Resets the connections that hold the most, until all are within the
    /// budget. Each thread its own: they may be a few more than had to be.
    fn shed_if_over(&mut self) {
        let budget = Arc::clone(&self.tools.shared().budget);
        if !budget.is_over() {
            return;
        }
        let mut holders: Vec<(usize, Key)> = Vec::new();
        self.slots.for_each(|key, slot| {
            let held = slot.held();
            if held > 0 {
                holders.push((held, key));
            }
        });
        holders.sort_unstable_by_key(|(held, _)| *held);
        let mut shed = 0;
        while budget.is_over()
            && let Some((_, key)) = holders.pop()
        {
            if let Some(slot) = self.slots.get_mut(key) {
                slot.shed();
            }
            self.finish(key);
            shed += 1;
        }
        if shed > 0 {
            tracing::warn!(
                connections = shed,
                "reset what held the most, for slow readers held too much memory"
            );
        }
    }

    fn count_if_due(&mut self) {
        let tools = &mut self.tools;
        if tools.uncounted.is_empty() || tools.now_ms < tools.uncounted_since_ms + TICK_MS {
            return;
        }
        for key in tools.uncounted.drain(..) {
            if let Some(slot) = self.slots.get_mut(key) {
                slot.count();
            }
        }
    }

    fn sleep_ms(&self) -> Option<u64> {
        let tools = &self.tools;
        if !tools.runnable.is_empty() {
            return Some(0);
        }
        let count = (!tools.uncounted.is_empty())
            .then(|| (tools.uncounted_since_ms + TICK_MS).saturating_sub(tools.now_ms));
        [
            tools.wheel.next_due_ms(tools.now_ms),
            self.acceptor.resumes_in_ms(tools),
            count,
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

impl Context {
    fn mailbox(&self) -> &Mailbox {
        &self.mailboxes[self.number]
    }
}

impl Tools {
    fn mailbox(&self) -> &Mailbox {
        self.context.mailbox()
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.context.shared
    }

    fn read_clock(&mut self) {
        self.now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
    }

    /// Most to receive at a time: little while memory is scarce.
    fn step(&self) -> u32 {
        if self.shared().budget.is_tight() {
            TIGHT_STEP
        } else {
            u32::MAX
        }
    }

    fn set_connections(&mut self, connections: usize) {
        self.connections = connections;
        self.mailbox().set_load(connections);
    }

    fn register(&self, socket: impl std::os::fd::AsFd, key: Key, side: Side) -> io::Result<()> {
        use epoll::EventFlags;
        let flags =
            EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::PRI | EventFlags::ET;
        let token = Token::Connection(key, side).encode();
        Ok(epoll::add(&self.epoll, socket, token, flags)?)
    }
}

impl Token {
    fn encode(&self) -> epoll::EventData {
        let (high, low) = match self {
            Self::Mailbox => (MAILBOX, 0),
            Self::Listener(id) => (LISTENER, *id),
            Self::Connection(key, side) => {
                let side = u32::from(*side == Side::Endpoint);
                (key.generation, key.index << 1 | side)
            }
        };
        epoll::EventData::new_u64(u64::from(high) << 32 | u64::from(low))
    }

    fn decode(data: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = data.to_be_bytes();
        let (high, low) = (
            u32::from_be_bytes([a, b, c, d]),
            u32::from_be_bytes([e, f, g, h]),
        );
        match high {
            MAILBOX => Self::Mailbox,
            LISTENER => Self::Listener(low),
            generation => {
                let side = if low & 1 == 0 {
                    Side::Client
                } else {
                    Side::Endpoint
                };
                let index = low >> 1;
                Self::Connection(Key { index, generation }, side)
            }
        }
    }
}

fn timespec(ms: u64) -> Timespec {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    Timespec {
        tv_sec: ms / 1000,
        tv_nsec: ms % 1000 * 1_000_000,
    }
}
