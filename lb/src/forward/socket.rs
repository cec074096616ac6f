//! Socket options, and what an error of the system means here.

use std::{io, net::SocketAddr, os::fd::AsFd, time::Duration};

use rustix::io::Errno;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};

use crate::health::Outcome;

/// How long sent data may stay unacknowledged: after it the peer is gone.
const USER_TIMEOUT: Duration = Duration::from_secs(30);
/// Silence after which the kernel asks whether the peer is still there. With
/// the user timeout a vanished peer is noticed within a minute.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
/// Time between two such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// What every forwarded connection has, on both sides.
pub(crate) fn set_connection_options(socket: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE_AFTER)
            .with_interval(KEEPALIVE_INTERVAL),
    )?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

/// Makes closing the socket send RST instead of FIN.
pub(crate) fn reset_when_dropped(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_linger(Some(Duration::ZERO))
}

/// Takes [`reset_when_dropped`] back: closing delivers what is still unsent and
/// ends in order.
pub(crate) fn end_cleanly_when_dropped(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_linger(None)
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// The other host answered that nobody listens.
    #[error("connection refused")]
    Refused,
    /// No answer came.
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// The network says that there is no way, or something else went wrong on it.
    #[error("{0}")]
    Unreachable(io::Error),
    /// This machine is out of descriptors, memory or source ports. Says nothing
    /// about the endpoint.
    #[error("cannot connect from this machine: {0}")]
    Local(io::Error),
}

impl ConnectError {
    /// What it says about the endpoint, if anything.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::Refused => Some(Outcome::Refused),
            Self::TimedOut(_) | Self::Unreachable(_) => Some(Outcome::Unanswered),
            Self::Local(_) => None,
        }
    }
}

/// Connects, with the options of a forwarded connection; dropping the stream
/// resets it.
pub(super) async fn connect(
    address: SocketAddr,
    timeout: Duration,
) -> Result<TcpStream, ConnectError> {
    let socket = make(address).map_err(ConnectError::Local)?;
    match tokio::time::timeout(timeout, socket.connect(address)).await {
        Err(_) => Err(ConnectError::TimedOut(timeout)),
        Ok(Err(error)) => Err(classify(error)),
        Ok(Ok(stream)) if is_connected_to_itself(&stream, address) => Err(ConnectError::Refused),
        Ok(Ok(stream)) => Ok(stream),
    }
}

fn make(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    set_connection_options(&socket)?;
    reset_when_dropped(&socket)?;
    Ok(socket)
}

fn classify(error: io::Error) -> ConnectError {
    match Errno::from_io_error(&error) {
        Some(Errno::CONNREFUSED) => ConnectError::Refused,
        Some(
            Errno::MFILE
            | Errno::NFILE
            | Errno::NOBUFS
            | Errno::NOMEM
            | Errno::ADDRNOTAVAIL
            | Errno::AGAIN,
        ) => ConnectError::Local(error),
        _ => ConnectError::Unreachable(error),
    }
}

/// A connect to a port of this very machine where nobody listens can pick that
/// port as its own source and so, by TCP's simultaneous open, succeed.
fn is_connected_to_itself(stream: &TcpStream, address: SocketAddr) -> bool {
    stream.local_addr().is_ok_and(|local| local == address)
}

/// What an accept loop does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AcceptAdvice {
    /// That one connection is lost; the next may be fine.
    AgainAtOnce,
    /// Something is used up, or unknown: trying at once would only spin.
    Pause,
}

/// See [`AcceptAdvice`]. No error ends an accept loop.
pub(super) fn advise(error: &io::Error) -> AcceptAdvice {
    match Errno::from_io_error(error) {
        Some(Errno::CONNABORTED | Errno::INTR) => AcceptAdvice::AgainAtOnce,
        _ => AcceptAdvice::Pause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_accept() {
        let check = |errno: Errno, expected| {
            assert_eq!(advise(&errno.into()), expected, "{errno:?}");
        };
        check(Errno::CONNABORTED, AcceptAdvice::AgainAtOnce);
        check(Errno::INTR, AcceptAdvice::AgainAtOnce);
        check(Errno::MFILE, AcceptAdvice::Pause);
        check(Errno::NFILE, AcceptAdvice::Pause);
        check(Errno::NOBUFS, AcceptAdvice::Pause);
        check(Errno::NOMEM, AcceptAdvice::Pause);
        check(Errno::PERM, AcceptAdvice::Pause);
    }

    #[test]
    fn errors_of_connect() {
        let check = |errno: Errno, expected| {
            assert_eq!(classify(errno.into()).outcome(), expected, "{errno:?}");
        };
        check(Errno::CONNREFUSED, Some(Outcome::Refused));
        check(Errno::HOSTUNREACH, Some(Outcome::Unanswered));
        check(Errno::NETUNREACH, Some(Outcome::Unanswered));
        check(Errno::MFILE, None);
        check(Errno::ADDRNOTAVAIL, None);
    }
}
