//! What all clients do alike.

use std::{io, net::SocketAddr, os::fd::OwnedFd};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send,
        socket_with, sockopt,
    },
};

use crate::{MESSAGE, poller::Poller};

/// Begins to connect; the poller tells with `key` when that is over.
pub(crate) fn begin(poller: &Poller, target: SocketAddr, key: usize) -> io::Result<OwnedFd> {
    let family = match target {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    match connect(&socket, &target) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    poller.add(&socket, key)?;
    Ok(socket)
}

/// A connection that stays. Small messages leave at once.
pub(crate) fn begin_lasting(
    poller: &Poller,
    target: SocketAddr,
    key: usize,
) -> io::Result<OwnedFd> {
    let socket = begin(poller, target, key)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    Ok(socket)
}

/// Sends a request.
pub(crate) fn ask(socket: &OwnedFd, request: u8) -> Result<(), String> {
    let mut message = [b'.'; MESSAGE];
    message[0] = request;
    match send(socket, &message, SendFlags::NOSIGNAL) {
        Ok(MESSAGE) => Ok(()),
        Ok(sent) => Err(format!("sent {sent} bytes of a request")),
        Err(error) => Err(format!("send: {error}")),
    }
}

/// What came of a receive.
pub(crate) enum Received {
    /// So many bytes.
    Bytes(usize),
    /// The last byte was received before.
    End,
    /// Nothing for now.
    Nothing,
    /// The connection is broken.
    Broken(String),
}

/// Receives what is there.
pub(crate) fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Received {
    match recv(socket, buffer, RecvFlags::empty()) {
        Ok((0, _)) => Received::End,
        Ok((count, _)) => Received::Bytes(count),
        Err(Errno::AGAIN | Errno::INTR) => Received::Nothing,
        Err(error) => Received::Broken(format!("receive: {error}")),
    }
}
