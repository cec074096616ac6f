//! Socket options, and what an error of the system means here.

use std::{
    io,
    net::SocketAddr,
    ops::RangeInclusive,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt},
};

use crate::{connection::ConnectFailure, health::Outcome, syscall};

/// Silence after which the kernel asks whether the peer is still there. Three
/// questions without an answer, and a vanished peer is noticed after 55 s: its
/// connections are to be gone within a minute.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(25);
/// Time between two such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// As many questions may go without an answer.
const KEEPALIVE_COUNT: u32 = 3;

/// What every forwarded connection has, on both sides, sooner or later.
///
/// `TCP_USER_TIMEOUT` is not among them, on purpose: it also ends connections
/// whose peer is alive and answers but has not read for so long, and a slow
/// reader is no dead one. The engine looks for dead ones itself.
pub(crate) fn set_lasting_options(socket: impl AsFd) -> io::Result<()> {
    let socket = socket.as_fd();
    sockopt::set_tcp_nodelay(socket, true)?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, KEEPALIVE_AFTER)?;
    sockopt::set_tcp_keepintvl(socket, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(socket, KEEPALIVE_COUNT)?;
    Ok(())
}

/// Makes closing the socket send RST instead of FIN.
pub(crate) fn reset_when_closed(socket: impl AsFd) -> io::Result<()> {
    Ok(sockopt::set_socket_linger(socket, Some(Duration::ZERO))?)
}

/// A connection's socket. Dropping it resets the connection, so that a panic or
/// an early return cannot pass for the end of the data; only
/// [`Socket::close_in_order`] ends it cleanly.
///
/// A process that is killed drops nothing. What closes its sockets then is the
/// kernel, by the option that the socket has: accepted ones inherit from the
/// listener that closing resets. Those made here get it with their second
/// message or a moment later, which spares short connections two system calls.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    /// What closing does by itself, without another word.
    resets: bool,
    in_order: bool,
}

impl Socket {
    /// A socket accepted from a listener that has [`reset_when_closed`].
    pub(crate) fn accepted(fd: OwnedFd) -> Self {
        Self {
            fd,
            resets: true,
            in_order: false,
        }
    }

    /// A socket that is being connected to an address, without waiting.
    ///
    /// # Errors
    ///
    /// Those that show at once.
    pub(crate) fn connect(address: SocketAddr) -> Result<Self, ConnectError> {
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd = syscall::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))
            .map_err(|errno| ConnectError::Local(errno.into()))?;
        let socket = Self {
            fd,
            resets: false,
            in_order: false,
        };
        match syscall::connect(&socket.fd, &address) {
            Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => Ok(socket),
            Err(errno) => Err(ConnectError::from(errno)),
        }
    }

    /// Why a connect has failed.
    pub(crate) fn connect_error(&self) -> ConnectError {
        match sockopt::socket_error(&self.fd) {
            Ok(Err(errno)) | Err(errno) => errno.into(),
            // It came and went.
            Ok(Ok(())) => Errno::CONNRESET.into(),
        }
    }

    /// Where it is connected to, while it is.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        let peer = rustix::net::getpeername(&self.fd).ok()??;
        SocketAddr::try_from(peer).ok()
    }

    /// Its own address.
    pub(crate) fn local(&self) -> Option<SocketAddr> {
        let local = rustix::net::getsockname(&self.fd).ok()?;
        SocketAddr::try_from(local).ok()
    }

    /// Whether it has a peer.
    pub(crate) fn is_connected(&self) -> bool {
        rustix::net::getpeername(&self.fd).is_ok_and(|peer| peer.is_some())
    }

    /// The options of a connection that lasts; see [`set_lasting_options`].
    pub(crate) fn settle(&mut self) -> io::Result<()> {
        set_lasting_options(&self.fd)?;
        self.reset_when_closed()
    }

    /// The options that matter from the second message on.
    pub(crate) fn settle_messages(&mut self) -> io::Result<()> {
        sockopt::set_tcp_nodelay(&self.fd, true)?;
        self.reset_when_closed()
    }

    fn reset_when_closed(&mut self) -> io::Result<()> {
        if !self.resets {
            reset_when_closed(&self.fd)?;
            self.resets = true;
        }
        Ok(())
    }

    /// Closes it; the kernel goes on to deliver what is unsent, then the end.
    pub(crate) fn close_in_order(mut self) {
        if !self.resets || sockopt::set_socket_linger(&self.fd, None).is_ok() {
            self.in_order = true;
        }
    }

    /// A connect to a port of this very machine where nobody listens can pick
    /// that port as its own source and so, by TCP's simultaneous open, succeed.
    /// Only ports from which sources are picked are worth a look.
    pub(crate) fn is_connected_to_itself(&self, address: SocketAddr) -> bool {
        self.local() == Some(address)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if !self.in_order && !self.resets {
            // A socket that cannot even be told this has no connection to reset.
            let _ = reset_when_closed(&self.fd);
        }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
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
    pub(crate) fn failure(&self) -> ConnectFailure {
        match self {
            Self::Refused => ConnectFailure::Refused,
            Self::TimedOut(_) | Self::Unreachable(_) => ConnectFailure::Unanswered,
            Self::Local(_) => ConnectFailure::Local,
        }
    }

    /// What it says about the endpoint, if anything.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        match self.failure() {
            ConnectFailure::Refused => Some(Outcome::Refused),
            ConnectFailure::Unanswered => Some(Outcome::Unanswered),
            ConnectFailure::Local => None,
        }
    }
}

impl From<Errno> for ConnectError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::CONNREFUSED => Self::Refused,
            Errno::MFILE
            | Errno::NFILE
            | Errno::NOBUFS
            | Errno::NOMEM
            | Errno::ADDRNOTAVAIL
            | Errno::AGAIN => Self::Local(errno.into()),
            _ => Self::Unreachable(errno.into()),
        }
    }
}

/// What an accept loop does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AcceptAdvice {
    /// There is nobody to accept.
    Wait,
    /// That one connection is lost, or the call was interrupted; the next may be
    /// fine.
    AgainAtOnce,
    /// Something is used up, or unknown: trying at once would only spin.
    Pause,
}

/// See [`AcceptAdvice`]. No error ends an accept loop.
pub(crate) fn advise(errno: Errno) -> AcceptAdvice {
    match errno {
        Errno::AGAIN => AcceptAdvice::Wait,
        // Those after the second are what has befallen the client's connection
        // while it waited, as accept(2) has it.
        Errno::INTR
        | Errno::CONNABORTED
        | Errno::PROTO
        | Errno::NETDOWN
        | Errno::NETUNREACH
        | Errno::HOSTDOWN
        | Errno::HOSTUNREACH
        | Errno::NOPROTOOPT
        | Errno::NONET
        | Errno::OPNOTSUPP
        | Errno::TIMEDOUT => AcceptAdvice::AgainAtOnce,
        _ => AcceptAdvice::Pause,
    }
}

/// Ports that the kernel picks as sources of connections. All, if it does not
/// tell, which only costs a look at each connection.
pub(crate) fn ephemeral_ports() -> RangeInclusive<u16> {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| {
            let mut bounds = text.split_whitespace().map(str::parse);
            Some(bounds.next()?.ok()?..=bounds.next()?.ok()?)
        })
        .unwrap_or(0..=u16::MAX)
}

/// A connection for tests: the balancer's end, which does not block, and the far one.
#[cfg(test)]
pub(crate) fn pair() -> (Socket, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let far = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (near, _) = listener.accept().unwrap();
    near.set_nonblocking(true).unwrap();
    (Socket::accepted(near.into()), far)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_accept() {
        let check = |errno: Errno, expected| assert_eq!(advise(errno), expected, "{errno:?}");
        check(Errno::AGAIN, AcceptAdvice::Wait);
        check(Errno::CONNABORTED, AcceptAdvice::AgainAtOnce);
        check(Errno::INTR, AcceptAdvice::AgainAtOnce);
        check(Errno::PROTO, AcceptAdvice::AgainAtOnce);
        check(Errno::NETUNREACH, AcceptAdvice::AgainAtOnce);
        check(Errno::MFILE, AcceptAdvice::Pause);
        check(Errno::NFILE, AcceptAdvice::Pause);
        check(Errno::NOBUFS, AcceptAdvice::Pause);
        check(Errno::NOMEM, AcceptAdvice::Pause);
        check(Errno::PERM, AcceptAdvice::Pause);
    }

    #[test]
    fn errors_of_connect() {
        let check = |errno: Errno, expected| {
            assert_eq!(ConnectError::from(errno).outcome(), expected, "{errno:?}");
        };
        check(Errno::CONNREFUSED, Some(Outcome::Refused));
        check(Errno::HOSTUNREACH, Some(Outcome::Unanswered));
        check(Errno::NETUNREACH, Some(Outcome::Unanswered));
        check(Errno::MFILE, None);
        check(Errno::ADDRNOTAVAIL, None);
    }

    #[test]
    fn the_kernel_tells_its_ephemeral_ports() {
        let ports = ephemeral_ports();
        assert!(ports.start() > &0 && ports.start() < ports.end());
    }
}
