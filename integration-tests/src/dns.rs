//! A name server for one name, for tests that join a swarm by name.

use std::{
    io::{self, ErrorKind},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::Namespace;

/// How often the server looks whether it is to end.
const PATIENCE: Duration = Duration::from_millis(50);

/// How long an answer may be kept: no test shall get the answer of another.
const TTL_SECONDS: u32 = 0;

/// Type A and class IN of RFC 1035.
const TYPE_A: u16 = 1;
const CLASS_IN: u16 = 1;

/// Flags of an answer: response, authoritative, recursion available.
const ANSWER: u16 = 0x8480;

/// The code "no such name".
const NO_SUCH_NAME: u16 = 3;

/// Answers on UDP port 53 until it is dropped.
pub struct NameServer {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<io::Result<()>>>>,
}

impl NameServer {
    /// Starts inside `namespace`. `name` has these addresses, in this order,
    /// and there are no other names.
    ///
    /// # Errors
    ///
    /// When no thread can be started.
    pub fn start(namespace: &Namespace, name: &str, addresses: &[Ipv4Addr]) -> Result<Self> {
        let end = Arc::new(AtomicBool::new(false));
        let (ended, name, addresses) = (Arc::clone(&end), name.to_owned(), addresses.to_vec());
        let thread = namespace
            .thread(move || serve(&name, &addresses, &ended))
            .context("cannot start the name server's thread")?;
        Ok(Self {
            end,
            thread: Some(thread),
        })
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(Ok(Ok(())))) | None => {}
            Some(failure) => eprintln!("name server: {failure:?}"),
        }
    }
}

fn serve(name: &str, addresses: &[Ipv4Addr], end: &AtomicBool) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 53))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    // RFC 1035 limits messages over UDP to 512 bytes, RFC 6891 lets senders exceed it.
    let mut buffer = [0; 4096];
    while !end.load(Ordering::Relaxed) {
        let (length, client): (usize, SocketAddr) = match socket.recv_from(&mut buffer) {
            Ok(received) => received,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                continue;
            }
            Err(error) => return Err(error),
        };
        if let Some(answer) = answer(&buffer[..length], name, addresses) {
            socket.send_to(&answer, client)?;
        }
    }
    Ok(())
}

/// The answer to a query with one question; none to anything else.
fn answer(query: &[u8], name: &str, addresses: &[Ipv4Addr]) -> Option<Vec<u8>> {
    let question = query.get(12..)?;
    let (asked, length) = read_name(question)?;
    let number = |at: usize| {
        Some(u16::from_be_bytes([
            *question.get(at)?,
            *question.get(at + 1)?,
        ]))
    };
    let (kind, class) = (number(length)?, number(length + 2)?);
    let known = asked.eq_ignore_ascii_case(name);
    let addresses = if known && kind == TYPE_A && class == CLASS_IN {
        addresses
    } else {
        &[]
    };
    let flags = if known { ANSWER } else { ANSWER | NO_SUCH_NAME };
    let count = u16::try_from(addresses.len()).ok()?;
    let mut answer = query.get(..2)?.to_vec();
    for field in [flags, 1, count, 0, 0] {
        answer.extend(field.to_be_bytes());
    }
    answer.extend(question.get(..length + 4)?);
    for address in addresses {
        // The name is the question's, which begins at byte 12.
        answer.extend([0xc0, 12]);
        answer.extend(TYPE_A.to_be_bytes());
        answer.extend(CLASS_IN.to_be_bytes());
        answer.extend(TTL_SECONDS.to_be_bytes());
        answer.extend(4u16.to_be_bytes());
        answer.extend(address.octets());
    }
    Some(answer)
}

/// A name without its last dot, and the bytes that it takes.
fn read_name(bytes: &[u8]) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    let mut at = 0;
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        labels.push(String::from_utf8_lossy(bytes.get(at..at + length)?).into_owned());
        at += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: [u8; 12] = [7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];

    fn query(kind: u8) -> Vec<u8> {
        [&HEAD[..], b"\x01m\x04Test\x00", &[0, kind, 0, 1]].concat()
    }

    fn check(name: &str, kind: u8, expected: [u8; 10], records: usize) {
        let found = answer(
            &query(kind),
            name,
            &[Ipv4Addr::LOCALHOST, Ipv4Addr::BROADCAST],
        );
        let found = found.unwrap();
        assert_eq!(found[2..12], expected, "{name} {kind}");
        assert_eq!(found.len(), query(kind).len() + records * 16);
    }

    #[test]
    fn one_name_is_known() {
        check("m.test", 1, [0x84, 0x80, 0, 1, 0, 2, 0, 0, 0, 0], 2);
        check("m.test", 28, [0x84, 0x80, 0, 1, 0, 0, 0, 0, 0, 0], 0);
        check("x.test", 1, [0x84, 0x83, 0, 1, 0, 0, 0, 0, 0, 0], 0);
    }

    #[test]
    fn rubbish_has_no_answer() {
        assert_eq!(answer(&query(1)[..15], "m.test", &[]), None);
        assert_eq!(answer(b"", "m.test", &[]), None);
    }
}
