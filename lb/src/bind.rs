//! Listening sockets are made here and nowhere else, so that one day they can
//! just as well come from a balancer that is being replaced.
//!
//! What accepted connections must have is set on the listener: Linux hands it
//! down (no delay, keepalive, user timeout, linger), which saves four system
//! calls for each connection and leaves no moment without them.

use std::{io, net::SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use crate::forward::socket::{reset_when_dropped, set_connection_options};

/// Connections that may wait to be accepted. The kernel lowers it to
/// `net.core.somaxconn`, 4096 by default since Linux 5.4.
const BACKLOG: i32 = 4096;

/// Listens on an address. `None` if the address stands for all of IPv6 and the
/// machine has no IPv6, which is no error: there is nobody to miss it.
///
/// # Errors
///
/// Whatever the system says to making, binding or listening.
pub(crate) fn listen(address: SocketAddr) -> io::Result<Option<TcpListener>> {
    match try_listen(address) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if is_missing_ipv6(address, &error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn try_listen(address: SocketAddr) -> io::Result<TcpListener> {
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
    set_connection_options(&socket)?;
    reset_when_dropped(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
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
    use std::{net::Ipv6Addr, time::Duration};

    use socket2::SockRef;
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn accepted_connections_inherit_what_the_listener_has() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap().unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (_client, (accepted, _)) = (client.unwrap(), accepted.unwrap());
        let accepted = SockRef::from(&accepted);
        assert!(accepted.tcp_nodelay().unwrap());
        assert!(accepted.keepalive().unwrap());
        assert_eq!(
            accepted.tcp_keepalive_time().unwrap(),
            Duration::from_secs(30)
        );
        assert_eq!(
            accepted.tcp_user_timeout().unwrap(),
            Some(Duration::from_secs(30))
        );
        assert_eq!(accepted.linger().unwrap(), Some(Duration::ZERO));
    }

    #[tokio::test]
    async fn both_families_bind_one_port() {
        let v4 = listen("0.0.0.0:0".parse().unwrap()).unwrap().unwrap();
        let port = v4.local_addr().unwrap().port();
        // None on a machine without IPv6; an error never.
        listen(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).unwrap();
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error() {
        let first = listen("127.0.0.1:0".parse().unwrap()).unwrap().unwrap();
        let error = listen(first.local_addr().unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
