//! A kernel in trouble: the calls of the data path, some of which fail, by rules
//! and a seed.
//!
//! It stays within what Linux does. Who is told that a socket would block, or
//! gets fewer bytes than asked for, is told when the socket is ready again, as
//! epoll(7) promises for edge-triggered sockets: at once, here. A receive that
//! is short of what there is stands for bytes that came a moment later, and so
//! there is none once the peer's end has come.
//!
//! Faults are for the threads that the thread which entered them starts by
//! [`spawn`], so that a test's balancer has them and its neighbours have none.

use std::{
    cell::RefCell,
    collections::HashMap,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Instant,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, Result},
    net::{AddressFamily, Protocol, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType},
    pipe::SpliceFlags,
};

use super::plain;

/// A call of the data path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Call {
    Accept,
    Socket,
    Connect,
    Receive,
    ReceiveIntoPipe,
    Send,
    SendFromPipe,
    ShutDown,
    /// Of a socket with epoll.
    Register,
    /// For events.
    Wait,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    /// It is not made, and fails.
    Fails(Errno),
    /// It is made, and then said to have failed: what a signal does to a connect.
    IsInterrupted,
    /// It moves fewer bytes than asked for.
    IsShort,
}

/// So many of a thousand calls meet this fault.
pub(crate) type Rule = (Call, Fault, u64);

/// What a test makes of a balancer's kernel; ends when told to.
#[derive(Debug)]
pub(crate) struct Faults {
    seed: u64,
    rules: Vec<Rule>,
    is_on: AtomicBool,
    threads: AtomicU64,
    met: Mutex<HashMap<(Call, Fault), u64>>,
    /// Every call of the kinds that are written down, and what it met.
    journal: Mutex<Vec<(Call, Option<Fault>, Instant)>>,
    written_down: Vec<Call>,
}

impl Faults {
    pub(crate) fn new(seed: u64, rules: Vec<Rule>) -> Self {
        Self {
            seed,
            rules,
            is_on: AtomicBool::new(true),
            threads: AtomicU64::new(0),
            met: Mutex::default(),
            journal: Mutex::default(),
            written_down: Vec::new(),
        }
    }

    /// Keeps a journal of these calls.
    pub(crate) fn writing_down(self, calls: &[Call]) -> Self {
        Self {
            written_down: calls.to_vec(),
            ..self
        }
    }

    /// From now on this thread, and those it starts, live with the faults.
    pub(crate) fn enter(self: &Arc<Self>) {
        LIFE.with_borrow_mut(|life| *life = Life::new(Some(Arc::clone(self))));
    }

    /// After an [`Faults::end`], once more.
    pub(crate) fn begin(&self) {
        self.is_on.store(true, Ordering::SeqCst);
    }

    /// The kernel is well again.
    pub(crate) fn end(&self) {
        self.is_on.store(false, Ordering::SeqCst);
    }

    /// How often a fault was met so far.
    pub(crate) fn met(&self, call: Call, fault: Fault) -> u64 {
        let met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        met.get(&(call, fault)).copied().unwrap_or(0)
    }

    pub(crate) fn journal(&self) -> Vec<(Call, Option<Fault>, Instant)> {
        let journal = self.journal.lock();
        journal.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn strike(&self, call: Call, random: &mut Random) -> Option<Fault> {
        if !self.is_on.load(Ordering::SeqCst) {
            return None;
        }
        let struck = self.rules.iter().find_map(|(of, fault, per_mille)| {
            (*of == call && random.below(1_000) < *per_mille).then_some(*fault)
        });
        if let Some(fault) = struck {
            let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
            *met.entry((call, fault)).or_default() += 1;
        }
        if self.written_down.contains(&call) {
            let journal = self.journal.lock();
            let mut journal = journal.unwrap_or_else(PoisonError::into_inner);
            journal.push((call, struck, Instant::now()));
        }
        struck
    }
}

/// A thread's part in it.
#[derive(Default)]
struct Life {
    faults: Option<Arc<Faults>>,
    random: Random,
    /// How the thread has registered its edge-triggered sockets. A number that
    /// is used again is registered again.
    registered: HashMap<RawFd, (u64, epoll::EventFlags)>,
    epoll: Option<OwnedFd>,
}

#[derive(Default)]
struct Random(u64);

thread_local! {
    static LIFE: RefCell<Life> = RefCell::default();
}

impl Life {
    fn new(faults: Option<Arc<Faults>>) -> Self {
        let random = faults.as_ref().map_or_else(Random::default, |faults| {
            let number = faults.threads.fetch_add(1, Ordering::SeqCst) + 1;
            Random(faults.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ number)
        });
        Self {
            faults,
            random,
            ..Self::default()
        }
    }
}

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        // SplitMix64, which takes any seed.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ mixed >> 31) % bound
    }
}

/// Whether this call meets a fault.
fn strike(call: Call) -> Option<Fault> {
    LIFE.with_borrow_mut(|life| {
        let faults = life.faults.clone()?;
        faults.strike(call, &mut life.random)
    })
}

/// The call, unless it is to fail.
fn unless_failing<T>(call: Call, make: impl FnOnce() -> Result<T>) -> Result<T> {
    match strike(call) {
        None => make(),
        Some(Fault::Fails(errno)) => Err(errno),
        Some(Fault::IsInterrupted) => match make() {
            Ok(_) | Err(Errno::INPROGRESS) => Err(Errno::INTR),
            failed => failed,
        },
        Some(Fault::IsShort) => panic!("{call:?} moves no bytes"),
    }
}

/// A call that moves up to `len` bytes of a socket.
fn moving<T>(
    call: Call,
    socket: impl AsFd,
    len: usize,
    make: impl FnOnce(usize) -> Result<T>,
) -> Result<T> {
    let socket = socket.as_fd();
    let result = match strike(call) {
        None => return make(len),
        Some(Fault::IsShort) if call == Call::Receive && has_ended(socket) => return make(len),
        Some(Fault::Fails(errno)) => Err(errno),
        Some(Fault::IsInterrupted) => panic!("bytes moved by {call:?} would be lost"),
        Some(Fault::IsShort) => {
            let most = u64::try_from(len).unwrap_or(u64::MAX).min(5_000);
            let random = LIFE.with_borrow_mut(|life| life.random.below(most.max(1)));
            make(usize::try_from(random).unwrap_or(0) + usize::from(len > 0))
        }
    };
    if !matches!(result, Err(errno) if errno != Errno::AGAIN) {
        tell_again(socket);
    }
    result
}

/// Whether all that a peer will ever send is there.
fn has_ended(socket: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(socket, PollFlags::RDHUP)];
    poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// Makes epoll tell anew what a socket is ready for.
fn tell_again(socket: BorrowedFd<'_>) {
    LIFE.with_borrow(|life| {
        if let (Some(epoll), Some((data, flags))) =
            (&life.epoll, life.registered.get(&socket.as_raw_fd()))
        {
            let data = epoll::EventData::new_u64(*data);
            rustix::event::epoll::modify(epoll, socket, data, *flags)
                .expect("a socket stays registered with epoll for as long as it is open");
        }
    });
}

// === the calls ===

pub(crate) fn accept_with(socket: impl AsFd, flags: SocketFlags) -> Result<OwnedFd> {
    unless_failing(Call::Accept, || rustix::net::accept_with(socket, flags))
}

pub(crate) fn socket_with(
    family: AddressFamily,
    kind: SocketType,
    flags: SocketFlags,
    protocol: Option<Protocol>,
) -> Result<OwnedFd> {
    unless_failing(Call::Socket, || {
        rustix::net::socket_with(family, kind, flags, protocol)
    })
}

pub(crate) fn connect(socket: impl AsFd, address: &SocketAddr) -> Result<()> {
    unless_failing(Call::Connect, || rustix::net::connect(socket, address))
}

pub(crate) fn recv(
    socket: impl AsFd,
    buffer: &mut [u8],
    flags: RecvFlags,
) -> Result<(usize, usize)> {
    let socket = socket.as_fd();
    moving(Call::Receive, socket, buffer.len(), |len| {
        rustix::net::recv(socket, &mut buffer[..len], flags)
    })
}

pub(crate) fn send(socket: impl AsFd, bytes: &[u8], flags: SendFlags) -> Result<usize> {
    let socket = socket.as_fd();
    moving(Call::Send, socket, bytes.len(), |len| {
        rustix::net::send(socket, &bytes[..len], flags)
    })
}

pub(crate) fn splice_from(
    socket: impl AsFd,
    pipe: impl AsFd,
    len: usize,
    flags: SpliceFlags,
) -> Result<usize> {
    let socket = socket.as_fd();
    moving(Call::ReceiveIntoPipe, socket, len, |len| {
        plain::splice_from(socket, pipe, len, flags)
    })
}

pub(crate) fn splice_to(
    socket: impl AsFd,
    pipe: impl AsFd,
    len: usize,
    flags: SpliceFlags,
) -> Result<usize> {
    let socket = socket.as_fd();
    moving(Call::SendFromPipe, socket, len, |len| {
        plain::splice_to(socket, pipe, len, flags)
    })
}

pub(crate) fn shutdown(socket: impl AsFd, how: Shutdown) -> Result<()> {
    unless_failing(Call::ShutDown, || rustix::net::shutdown(socket, how))
}

/// Starts a thread that lives with the same faults.
pub(crate) fn spawn(
    name: String,
    work: impl FnOnce() + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    let faults = LIFE.with_borrow(|life| life.faults.clone());
    plain::spawn(name, move || {
        LIFE.with_borrow_mut(|life| *life = Life::new(faults));
        work();
    })
}

/// The part of epoll(7) that can fail.
pub(crate) mod epoll {
    use std::os::fd::{AsFd, AsRawFd, OwnedFd};

    pub(crate) use rustix::event::epoll::{CreateFlags, Event, EventData, EventFlags, delete};
    use rustix::{buffer::Buffer, event::Timespec, io::Result};

    use super::{Call, LIFE, unless_failing};

    pub(crate) fn create(flags: CreateFlags) -> Result<OwnedFd> {
        let epoll = rustix::event::epoll::create(flags)?;
        LIFE.with_borrow_mut(|life| {
            if life.faults.is_some() {
                let again = epoll.try_clone();
                life.epoll = Some(again.expect("the test has descriptors left"));
            }
        });
        Ok(epoll)
    }

    pub(crate) fn add(
        epoll: impl AsFd,
        socket: impl AsFd,
        data: EventData,
        flags: EventFlags,
    ) -> Result<()> {
        let socket = socket.as_fd();
        unless_failing(Call::Register, || {
            rustix::event::epoll::add(&epoll, socket, data, flags)
        })?;
        LIFE.with_borrow_mut(|life| {
            if life.faults.is_some() && flags.contains(EventFlags::ET) {
                life.registered
                    .insert(socket.as_raw_fd(), (data.u64(), flags));
            }
        });
        Ok(())
    }

    pub(crate) fn wait<B: Buffer<Event>>(
        epoll: impl AsFd,
        events: B,
        timeout: Option<&Timespec>,
    ) -> Result<B::Output> {
        unless_failing(Call::Wait, || {
            rustix::event::epoll::wait(epoll, events, timeout)
        })
    }
}
