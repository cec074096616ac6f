//! Whether the peer of a silent connection is still there.
//!
//! The kernel's own means do not tell dead peers from slow ones. Keepalive
//! keeps quiet while anything is unacknowledged; retransmissions alone take a
//! quarter of an hour to give up; and `TCP_USER_TIMEOUT` gives up on a peer that
//! answers every question but has closed its window for so long, which is what
//! a slow reader does. So the kernel is asked what it knows: how much is still
//! outstanding, how long ago the last acknowledgement came, and how many
//! retransmissions or questions about a closed window are without an answer.
//! Only one who is silent through several of these, for longer than a limit, is
//! dead; a live peer answers each, however long it does not read.
//!
//! The question goes by the kernel's socket-diagnosis interface (sock_diag(7)),
//! for one socket, named by its addresses.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, getpeername, getsockname,
    netlink, recv, send, socket_with,
};

use crate::connection::{Finding, UNACKNOWLEDGED_LIMIT};

/// Questions in a row that must be without an answer: one may be on its way,
/// and one may be lost.
const UNANSWERED_LIMIT: u8 = 3;

// linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h
const REQUEST_LEN: u32 = 16 + 56;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const INET_DIAG_INFO: u16 = 2;
const ALL_STATES: u32 = u32::MAX;
const NO_COOKIE: [u8; 8] = [0xff; 8];
/// Bytes of the answer before its attributes: two headers.
const ANSWER_HEADERS_LEN: usize = 16 + 72;
/// Where in the answer the length of the write queue is.
const WRITE_QUEUE_AT: usize = 16 + 4 + 48 + 8;

/// Asks the kernel. Its socket is opened with the first question.
#[derive(Debug, Default)]
pub(super) struct Vitals {
    netlink: Option<OwnedFd>,
}

/// What the kernel knows of one socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Signs {
    /// Bytes not acknowledged yet, those not sent yet included.
    outstanding: u32,
    /// Retransmissions, or questions about a closed window, since the last
    /// acknowledgement.
    unanswered: u8,
    last_ack_ms: u32,
}

impl Vitals {
    /// The worst that any of a connection's sockets shows. A kernel that does
    /// not answer leaves it at [`Finding::Quiet`]: then the idle timeout decides.
    pub(super) fn inspect<S: AsFd>(&mut self, sockets: impl Iterator<Item = S>) -> Finding {
        let mut worst = Finding::Quiet;
        for socket in sockets {
            match self.ask(socket) {
                Ok(signs) => match signs.judge() {
                    Finding::Dead => return Finding::Dead,
                    Finding::Slow => worst = Finding::Slow,
                    Finding::Quiet => {}
                },
                Err(error) => tracing::debug!(%error, "the kernel does not tell of a socket"),
            }
        }
        worst
    }

    fn ask(&mut self, socket: impl AsFd) -> io::Result<Signs> {
        let local = SocketAddr::try_from(getsockname(&socket)?)?;
        let peer = getpeername(&socket)?.ok_or(io::ErrorKind::NotConnected)?;
        let request = request(local, SocketAddr::try_from(peer)?);
        let netlink = match &self.netlink {
            Some(netlink) => netlink,
            None => self.netlink.insert(socket_with(
                AddressFamily::NETLINK,
                SocketType::DGRAM,
                SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
                Some(netlink::SOCK_DIAG),
            )?),
        };
        // The kernel answers before the call returns.
        send(netlink, &request, SendFlags::empty())?;
        let mut answer = [0; 4096];
        let (len, _) = recv(netlink, &mut answer, RecvFlags::empty())?;
        Signs::read(&answer[..len]).ok_or_else(|| io::Error::other("no such socket"))
    }
}

impl Signs {
    fn read(answer: &[u8]) -> Option<Self> {
        if u16_at(answer, 4)? != SOCK_DIAG_BY_FAMILY {
            return None;
        }
        let info = attribute(answer.get(ANSWER_HEADERS_LEN..)?, INET_DIAG_INFO)?;
        // struct tcp_info: state, ca_state, retransmits, probes, ...
        Some(Self {
            outstanding: u32_at(answer, WRITE_QUEUE_AT)?,
            unanswered: (*info.get(2)?).max(*info.get(3)?),
            last_ack_ms: u32_at(info, 56)?,
        })
    }

    fn judge(self) -> Finding {
        if self.outstanding == 0 {
            Finding::Quiet
        } else if self.unanswered >= UNANSWERED_LIMIT
            && u128::from(self.last_ack_ms) >= UNACKNOWLEDGED_LIMIT.as_millis()
        {
            Finding::Dead
        } else {
            Finding::Slow
        }
    }
}

/// A `nlmsghdr` and an `inet_diag_req_v2`.
fn request(local: SocketAddr, peer: SocketAddr) -> Vec<u8> {
    let family = if local.is_ipv4() { AF_INET } else { AF_INET6 };
    let mut bytes = Vec::with_capacity(REQUEST_LEN as usize);
    bytes.extend(REQUEST_LEN.to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(NLM_F_REQUEST.to_ne_bytes());
    bytes.extend([0; 8]); // sequence and port: there is one question at a time
    bytes.extend([family, IPPROTO_TCP, 1 << (INET_DIAG_INFO - 1), 0]);
    bytes.extend(ALL_STATES.to_ne_bytes());
    bytes.extend(local.port().to_be_bytes());
    bytes.extend(peer.port().to_be_bytes());
    bytes.extend(address_field(local.ip()));
    bytes.extend(address_field(peer.ip()));
    bytes.extend(scope(local).to_ne_bytes());
    bytes.extend(NO_COOKIE);
    bytes
}

fn address_field(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let mut field = [0; 16];
            field[..4].copy_from_slice(&ip.octets());
            field
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// A link-local address means nothing without its interface.
fn scope(address: SocketAddr) -> u32 {
    match address {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(address) => address.scope_id(),
    }
}

/// The value of the first attribute of this kind.
fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let len = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)?;
        let value = bytes.get(4..len)?;
        if kind == wanted {
            return Some(value);
        }
        bytes = bytes.get(len.next_multiple_of(4)..)?;
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..at + 2)?.try_into().ok()?;
    Some(u16::from_ne_bytes(field))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_ne_bytes(field))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    fn pair(address: &str) -> Option<(TcpStream, TcpStream)> {
        let listener = TcpListener::bind(address).ok()?;
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        near.set_nonblocking(true).unwrap();
        Some((near, far))
    }

    #[track_caller]
    fn check(address: &str) {
        let Some((mut near, mut far)) = pair(address) else {
            println!("{address} is not of this machine");
            return;
        };
        let mut vitals = Vitals::default();
        assert_eq!(vitals.ask(&near).unwrap().outstanding, 0);
        assert_eq!(vitals.inspect([&near, &far].into_iter()), Finding::Quiet);
        // Until its window is closed and our queue is full.
        let mut total = 0;
        while let Ok(count) = near.write(&[7; 65536]) {
            total += count;
        }
        let signs = vitals.ask(&near).unwrap();
        assert!(signs.outstanding > 0, "{signs:?}");
        assert_eq!(vitals.inspect([&near, &far].into_iter()), Finding::Slow);
        far.read_exact(&mut vec![0; total]).unwrap();
        // The last acknowledgement may take its time.
        let acknowledged = (0..200).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            vitals.inspect([&near].into_iter()) == Finding::Quiet
        });
        assert!(acknowledged);
    }

    #[test]
    fn the_kernel_tells_of_both_families() {
        check("127.0.0.1:0");
        check("[::1]:0");
    }

    #[test]
    fn a_socket_without_a_peer_is_quiet() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let finding = Vitals::default().inspect([&listener].into_iter());
        assert_eq!(finding, Finding::Quiet);
    }

    #[test]
    fn judgements() {
        let check = |outstanding, unanswered, last_ack_ms, expected| {
            let signs = Signs {
                outstanding,
                unanswered,
                last_ack_ms,
            };
            assert_eq!(signs.judge(), expected, "{signs:?}");
        };
        check(0, 0, 3_600_000, Finding::Quiet);
        check(1, 0, 10, Finding::Slow);
        // Its window is closed, and it says so whenever it is asked.
        check(1, 0, 115_000, Finding::Slow);
        check(1, 1, 115_000, Finding::Slow);
        check(1, 6, 12_000, Finding::Slow);
        check(1, 6, 31_000, Finding::Dead);
    }

    #[test]
    fn answers_that_make_no_sense_are_no_answers() {
        assert_eq!(Signs::read(&[]), None);
        for len in 0..200 {
            assert_eq!(Signs::read(&vec![0; len]), None);
            assert_eq!(Signs::read(&vec![0xff; len]), None);
            let mut answer = vec![0; len.max(6)];
            answer[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
            assert_eq!(Signs::read(&answer), None);
        }
    }
}
