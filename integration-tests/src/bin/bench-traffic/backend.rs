//! The server behind the balancer.

use std::{
    collections::VecDeque,
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::OwnedFd,
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::{
    io::Errno,
    net::{
        AddressFamily, SendFlags, SocketFlags, SocketType, accept_with, bind, listen, send,
        socket_with, sockopt,
    },
};

use crate::{
    ANSWER, BULK, CHUNK, LAST, MESSAGE,
    client::{Received, receive},
    poller::{Event, Poller},
};

/// Connections that may wait to be accepted: more than any load opens at a time.
const BACKLOG: i32 = 8192;

/// Chunks of bulk that a connection sends in its turn.
const TURN: usize = 4;

/// What standard input is known as; connections come after it and the listeners.
const STANDARD_INPUT: usize = 0;

struct Connection {
    socket: OwnedFd,
    /// Bytes of a request that is not complete yet.
    received: usize,
    /// The first of them.
    request: u8,
    bulk: bool,
}

struct Backend {
    poller: Poller,
    listeners: Vec<OwnedFd>,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    /// Connections with bulk that had their turn, and are not known to be full.
    runnable: VecDeque<usize>,
    chunk: Vec<u8>,
}

/// When a server ends.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Until {
    /// Standard input ends: whoever started it is gone.
    StandardInputEnds,
    /// It is killed, as that of a container is.
    Killed,
}

/// Serves on so many ports.
pub(crate) fn serve(port: u16, ports: u16, until: Until) -> Result<()> {
    let mut backend = Backend {
        poller: Poller::new()?,
        listeners: Vec::new(),
        connections: Vec::new(),
        free: Vec::new(),
        runnable: VecDeque::new(),
        chunk: vec![b'.'; CHUNK],
    };
    if until == Until::StandardInputEnds {
        backend.poller.add_source(io::stdin(), STANDARD_INPUT)?;
    }
    for port in port..port + ports {
        let listener = listener(port).with_context(|| format!("cannot listen on port {port}"))?;
        backend.listeners.push(listener);
        let key = backend.listeners.len();
        backend
            .poller
            .add_source(&backend.listeners[key - 1], key)?;
    }
    writeln!(io::stdout().lock(), "ready")?;
    backend.run()
}

fn listener(port: u16) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    // Accepted connections inherit it: small answers leave at once.
    sockopt::set_tcp_nodelay(&socket, true)?;
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port))?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

impl Backend {
    fn run(mut self) -> Result<()> {
        loop {
            let timeout = (!self.runnable.is_empty()).then_some(Duration::ZERO);
            for event in self.poller.wait(timeout)? {
                if event.key == STANDARD_INPUT {
                    return Ok(());
                }
                if event.key <= self.listeners.len() {
                    self.accept(event.key)?;
                } else {
                    self.serve(event);
                }
            }
            for _ in 0..self.runnable.len() {
                if let Some(key) = self.runnable.pop_front() {
                    self.pump(key);
                }
            }
        }
    }

    fn accept(&mut self, listener: usize) -> Result<()> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        loop {
            let socket = match accept_with(&self.listeners[listener - 1], flags) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(error) => return Err(error).context("cannot accept"),
            };
            let index = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            self.poller.add(&socket, self.key(index))?;
            self.connections[index] = Some(Connection {
                socket,
                received: 0,
                request: 0,
                bulk: false,
            });
        }
    }

    fn serve(&mut self, event: Event) {
        let index = event.key - self.listeners.len() - 1;
        let Some(Some(connection)) = self.connections.get_mut(index) else {
            return;
        };
        if event.readable() && !connection.answer(event) {
            self.close(index);
        } else if connection.bulk && event.writable() {
            self.pump(index);
        }
    }

    /// Sends bulk until the socket takes no more or the turn is over.
    fn pump(&mut self, index: usize) {
        let Some(Some(connection)) = self.connections.get(index) else {
            return;
        };
        for _ in 0..TURN {
            match send(&connection.socket, &self.chunk, SendFlags::NOSIGNAL) {
                Ok(CHUNK) => {}
                // Full: an event comes once there is room again.
                Ok(_) | Err(Errno::AGAIN) => return,
                Err(_) => return self.close(index),
            }
        }
        if !self.runnable.contains(&index) {
            self.runnable.push_back(index);
        }
    }

    fn key(&self, index: usize) -> usize {
        index + self.listeners.len() + 1
    }

    fn close(&mut self, index: usize) {
        self.connections[index] = None;
        self.free.push(index);
    }
}

impl Connection {
    /// Receives and answers; whether the connection is to stay.
    fn answer(&mut self, event: Event) -> bool {
        let mut buffer = [0; 4 * MESSAGE];
        loop {
            let count = match receive(&self.socket, &mut buffer) {
                Received::Bytes(count) => count,
                Received::Nothing => return true,
                // What the client thinks of it is in the client's report.
                Received::End | Received::Broken(_) => return false,
            };
            if self.received == 0 {
                self.request = buffer[0];
            }
            self.received += count;
            if self.received >= MESSAGE {
                self.received -= MESSAGE;
                match self.request {
                    ANSWER if self.reply() => {}
                    BULK => self.bulk = true,
                    LAST => {
                        // Whether or not it arrives, this connection is over.
                        let _ = self.reply();
                        return false;
                    }
                    _ => return false,
                }
            }
            if count < buffer.len() && !event.ended() {
                return true;
            }
        }
    }

    /// Whether the answer left.
    fn reply(&self) -> bool {
        send(&self.socket, &[b'.'; MESSAGE], SendFlags::NOSIGNAL) == Ok(MESSAGE)
    }
}
