//! Listening sockets are made here and nowhere else, or taken over here from an
//! earlier balancer.
//!
//! What accepted connections must have is set on the listener: Linux hands it
//! down (no delay, keepalive, linger), which saves half a dozen system
//! calls for each connection and leaves no moment without them.

use std::{io, net::SocketAddr, os::fd::OwnedFd};

use rustix::net::SocketType;
use socket2::{Domain, Protocol, Socket, Type};

use crate::socket::{reset_when_closed, set_lasting_options};

/// Connections that may wait to be accepted. The kernel lowers it to
/// `net.core.somaxconn`, 4096 by default since Linux 5.4.
const BACKLOG: i32 = 4096;

/// Listens on an address. `None` if the address stands for all of IPv6 and the
/// machine has no IPv6, which is no error: there is nobody to miss it.
///
/// # Errors
///
/// Whatever the system says to making, binding or listening.
pub(crate) fn listen(address: SocketAddr) -> io::Result<Option<OwnedFd>> {
    match try_listen(address) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if is_missing_ipv6(address, &error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn try_listen(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        // Without it [::] would claim IPv4 too and collide with 0.0.0.0.
        socket.set_only_v6(true)?;
    }
    // Connections of an earlier process in TIME_WAIT must not keep the port.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    set_lasting_options(&socket)?;
    reset_when_closed(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Takes over a socket that an earlier balancer listened on, with all that waits
/// in its queue.
///
/// # Errors
///
/// It does not listen on this address, or the system's.
pub(crate) fn take_over(address: SocketAddr, socket: OwnedFd) -> io::Result<OwnedFd> {
    let local = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
    let is_stream = rustix::net::sockopt::socket_type(&socket)? == SocketType::STREAM;
    if local != address || !is_stream || !rustix::net::sockopt::socket_acceptconn(&socket)? {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // Another version may have had others.
    rustix::io::ioctl_fionbio(&socket, true)?;
    set_lasting_options(&socket)?;
    reset_when_closed(&socket)?;
    Ok(socket)
}

fn is_missing_ipv6(address: SocketAddr, error: &io::Error) -> bool {
    use rustix::io::Errno;
    address.is_ipv6()
        && address.ip().is_unspecified()
        && matches!(
            Errno::from_io_error(error),
            Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL)
        )
}

#[cfg(test)]
mod tests {
    use std::{
        net::{Ipv6Addr, TcpListener, TcpStream},
        time::Duration,
    };

    use socket2::SockRef;

    use super::*;

    fn listener(address: &str) -> TcpListener {
        let fd = listen(address.parse().unwrap()).unwrap();
        let listener = TcpListener::from(fd.expect("there is IPv4"));
        listener.set_nonblocking(false).unwrap();
        listener
    }

    #[test]
    fn accepted_connections_inherit_what_the_listener_has() {
        let listener = listener("127.0.0.1:0");
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let accepted = SockRef::from(&accepted);
        assert!(accepted.tcp_nodelay().unwrap());
        assert!(accepted.keepalive().unwrap());
        assert_eq!(
            accepted.tcp_keepalive_time().unwrap(),
            Duration::from_secs(25)
        );
        assert_eq!(accepted.tcp_keepalive_retries().unwrap(), 3);
        assert_eq!(accepted.tcp_user_timeout().unwrap(), None);
        assert_eq!(accepted.linger().unwrap(), Some(Duration::ZERO));
    }

    #[test]
    fn both_families_bind_one_port() {
        let v4 = listener("0.0.0.0:0");
        let port = v4.local_addr().unwrap().port();
        // None on a machine without IPv6; an error never.
        listen(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).unwrap();
    }

    #[test]
    fn only_what_listens_there_is_taken_over() {
        let fd = listen("127.0.0.1:0".parse().unwrap()).unwrap().unwrap();
        let address = TcpListener::from(fd.try_clone().unwrap())
            .local_addr()
            .unwrap();
        let other = SocketAddr::new(address.ip(), address.port() ^ 1);
        take_over(other, fd.try_clone().unwrap()).unwrap_err();
        let client = TcpStream::connect(address).unwrap();
        take_over(client.local_addr().unwrap(), client.into()).unwrap_err();
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        take_over(udp.local_addr().unwrap(), udp.into()).unwrap_err();
        // With the client that has been waiting in its queue.
        let taken = TcpListener::from(take_over(address, fd).unwrap());
        taken.accept().unwrap();
    }

    #[test]
    fn a_taken_port_is_an_error() {
        let first = listener("127.0.0.1:0");
        let error = listen(first.local_addr().unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
