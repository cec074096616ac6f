//! Carries bytes both ways between two connected sockets until both have ended.
//!
//! ```text
//!   both open --FIN from one--> half closed --FIN from the other--> finished
//!       |                            |
//!       +---- error, RST, silence ---+--> aborted: both are reset
//! ```
//!
//! A direction reads only while the other side takes what was read, which is
//! the backpressure, and holds no buffer while nothing is under way.

use std::{
    cell::RefCell,
    io,
    net::Shutdown,
    pin::pin,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::Interest,
    net::TcpStream,
    time::{Instant, sleep_until},
};

use super::socket::end_cleanly_when_dropped;
use crate::{port::Lease, run::Timeouts};

/// Most that is read at a time, and so the most that a direction can hold.
const SCRATCH_LEN: usize = 64 * 1024;

thread_local! {
    /// One buffer for each thread: bytes read are written at once, and only
    /// what the other side did not take is copied.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH_LEN]);
}

/// Relays until both directions have ended.
///
/// # Errors
///
/// Whatever ended the connection out of order: an error of either socket (RST
/// included), or silence for too long. Dropping the streams then resets both.
pub(super) async fn relay(
    client: &TcpStream,
    endpoint: &TcpStream,
    lease: &Lease,
    timeouts: &Timeouts,
) -> io::Result<()> {
    let clock = Clock::new();
    let mut up = pin!(pump(client, endpoint, &clock, |bytes| lease
        .count_to_endpoint(bytes)));
    let mut down = pin!(pump(endpoint, client, &clock, |bytes| lease
        .count_to_client(bytes)));
    let (mut up_ended, mut down_ended) = (false, false);
    while !(up_ended && down_ended) {
        let half_closed = up_ended || down_ended;
        let patience = if half_closed {
            timeouts.half_closed
        } else {
            timeouts.idle
        };
        let deadline = clock.last_activity() + patience;
        tokio::select! {
            biased;
            result = &mut up, if !up_ended => {
                result?;
                up_ended = true;
            }
            result = &mut down, if !down_ended => {
                result?;
                down_ended = true;
            }
            // Nobody reads from a side that has sent its FIN, so that an RST
            // after it would go unseen for as long as the other side is silent.
            error = failure_of(client), if up_ended => return Err(error),
            error = failure_of(endpoint), if down_ended => return Err(error),
            () = sleep_until(deadline) => {
                if clock.last_activity() + patience <= Instant::now() {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
        }
    }
    end_cleanly_when_dropped(client)?;
    end_cleanly_when_dropped(endpoint)
}

/// Carries one direction to its end and passes the end on.
async fn pump(
    from: &TcpStream,
    to: &TcpStream,
    clock: &Clock,
    count: impl Fn(u64),
) -> io::Result<()> {
    loop {
        from.readable().await?;
        let moved = match move_some(from, to) {
            Ok(moved) => moved,
            Err(error) if is_not_yet(&error) => continue,
            Err(error) => return Err(error),
        };
        if moved.read == 0 {
            return SockRef::from(to).shutdown(Shutdown::Write);
        }
        clock.touch();
        write_rest(from, to, &moved.rest, clock).await?;
        count(moved.read as u64);
        if moved.read == SCRATCH_LEN {
            // There is more, but small requests of others must not wait for it.
            tokio::task::yield_now().await;
        }
    }
}

/// What one read yielded.
struct Moved {
    /// Bytes read; 0 at the end.
    read: usize,
    /// Those that the other side did not take yet; empty most of the time.
    rest: Vec<u8>,
}

fn move_some(from: &TcpStream, to: &TcpStream) -> io::Result<Moved> {
    SCRATCH.with_borrow_mut(|scratch| {
        let read = from.try_read(scratch)?;
        if read == 0 {
            return Ok(Moved {
                read,
                rest: Vec::new(),
            });
        }
        let written = match to.try_write(&scratch[..read]) {
            Ok(written) => written,
            Err(error) if is_not_yet(&error) => 0,
            Err(error) => return Err(error),
        };
        let rest = scratch[written..read].to_vec();
        Ok(Moved { read, rest })
    })
}

async fn write_rest(
    from: &TcpStream,
    to: &TcpStream,
    mut rest: &[u8],
    clock: &Clock,
) -> io::Result<()> {
    while !rest.is_empty() {
        tokio::select! {
            biased;
            ready = to.writable() => ready?,
            // While the reader of one side is slow nobody reads from the
            // other, whose RST would go unseen.
            error = failure_of(from) => return Err(error),
        }
        match to.try_write(rest) {
            Ok(written) => {
                rest = &rest[written..];
                clock.touch();
            }
            Err(error) if is_not_yet(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Waits for a socket to fail. It takes the error out of the socket, after
/// which reading would yield a clean end: the caller must give up on it.
async fn failure_of(stream: &TcpStream) -> io::Error {
    let found = stream
        .async_io(Interest::ERROR, || match stream.take_error()? {
            Some(error) => Ok(error),
            None => Err(io::ErrorKind::WouldBlock.into()),
        })
        .await;
    match found {
        Ok(error) | Err(error) => error,
    }
}

fn is_not_yet(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// When the connection was last alive, for both directions.
struct Clock {
    started: Instant,
    last_activity_ms: AtomicU64,
}

impl Clock {
    fn new() -> Self {
        Self {
            started: Instant::now(),
            last_activity_ms: AtomicU64::new(0),
        }
    }

    fn touch(&self) {
        let elapsed_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_activity_ms.store(elapsed_ms, Ordering::Relaxed);
    }

    fn last_activity(&self) -> Instant {
        self.started + Duration::from_millis(self.last_activity_ms.load(Ordering::Relaxed))
    }
}
