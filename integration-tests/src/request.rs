//! One HTTP request at a time, on a connection of its own or on one that is kept, and a name for
//! every way in which it fails.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use crate::load_report::{Failure, failure};

/// An answer longer than this is not one of whoami's; the client must not
/// grow with what it is sent.
const ANSWER_BYTES: u64 = 64 * 1024;

/// Who answered, and after how long.
type Answered = Result<(String, Duration), Failure>;

/// One request on a connection of its own; the first line of the answer.
pub(crate) fn request(target: SocketAddr, timeout: Duration) -> Answered {
    let started = Instant::now();
    let mut stream = connect(target, timeout)?;
    let mut bytes = Vec::new();
    let exchanged = ask(&mut stream, target, "close")
        .and_then(|()| (&mut stream).take(ANSWER_BYTES).read_to_end(&mut bytes));
    exchanged.map_err(|error| broken(target, &bytes, &error))?;
    // The answer is complete; whether the server still listens is its affair.
    let _ = stream.shutdown(Shutdown::Both);
    let answer = parse(&bytes)?.ok_or_else(|| cut(&bytes))?;
    Ok((answer.name, started.elapsed()))
}

/// A client that keeps its connection for as long as the server does.
///
/// A connection that the server has closed while nothing was asked on it was closed properly, and
/// another one takes its place; every other end of it is a failure.
#[derive(Default)]
pub(crate) struct Kept {
    open: Option<TcpStream>,
    connections: u64,
}

impl Kept {
    /// Connections that were opened so far, or tried to.
    pub(crate) fn connections(&self) -> u64 {
        self.connections
    }

    /// One request on the connection, or on a new one to `target` where there is none.
    pub(crate) fn request(&mut self, target: SocketAddr, timeout: Duration) -> Answered {
        let started = Instant::now();
        let mut stream = match self.still_open()? {
            Some(stream) => stream,
            None => {
                self.connections += 1;
                connect(target, timeout)?
            }
        };
        ask(&mut stream, target, "keep-alive").map_err(|error| broken(target, &[], &error))?;
        let answer = read_answer(&mut stream, target)?;
        if !answer.last {
            self.open = Some(stream);
        }
        Ok((answer.name, started.elapsed()))
    }

    /// The connection, if the server has not closed it since the last answer.
    fn still_open(&mut self) -> Result<Option<TcpStream>, Failure> {
        let Some(stream) = self.open.take() else {
            return Ok(None);
        };
        let peeked = (|| {
            stream.set_nonblocking(true)?;
            let peeked = match stream.peek(&mut [0]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => None,
                peeked => Some(peeked?),
            };
            stream.set_nonblocking(false)?;
            io::Result::Ok(peeked)
        })();
        match peeked {
            Ok(None) => Ok(Some(stream)),
            Ok(Some(0)) => Ok(None),
            Ok(Some(_)) => Err(failure("unasked answer", "bytes came without a request")),
            Err(error) => Err(failure("reset while idle", error.to_string())),
        }
    }
}

fn connect(target: SocketAddr, timeout: Duration) -> Result<TcpStream, Failure> {
    let opened = TcpStream::connect_timeout(&target, timeout).and_then(|stream| {
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        Ok(stream)
    });
    opened.map_err(|error| {
        let kind = match error.kind() {
            ErrorKind::ConnectionRefused => "connect refused",
            ErrorKind::TimedOut => "connect timeout",
            ErrorKind::ConnectionReset => "connect reset",
            _ => "connect",
        };
        failure(kind, format!("{target}: {error}"))
    })
}

fn ask(stream: &mut TcpStream, target: SocketAddr, connection: &str) -> io::Result<()> {
    let request = format!("GET / HTTP/1.1\r\nHost: {target}\r\nConnection: {connection}\r\n\r\n");
    stream.write_all(request.as_bytes())
}

/// Reads one answer and nothing behind it.
fn read_answer(stream: &mut TcpStream, target: SocketAddr) -> Result<Answer, Failure> {
    let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let count = stream
            .read(&mut part)
            .map_err(|error| broken(target, &bytes, &error))?;
        if count == 0 || bytes.len() as u64 > ANSWER_BYTES {
            return Err(cut(&bytes));
        }
        bytes.extend_from_slice(&part[..count]);
        if let Some(answer) = parse(&bytes)? {
            return Ok(answer);
        }
    }
}

/// The failure of a connection that did not end as it should.
fn broken(target: SocketAddr, answer: &[u8], error: &io::Error) -> Failure {
    let kind = match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => "reset",
        ErrorKind::WouldBlock | ErrorKind::TimedOut => "timeout",
        _ => "read or write",
    };
    let length = answer.len();
    failure(
        kind,
        format!("{target}, after {length} bytes of the answer: {error}"),
    )
}

/// The failure of a connection that was closed before its answer was complete.
fn cut(answer: &[u8]) -> Failure {
    let text = String::from_utf8_lossy(answer);
    match text.split_once("\r\n\r\n") {
        None if text.is_empty() => failure(
            "closed without answer",
            "the connection was closed before any byte came",
        ),
        None => failure("short head", format!("{text:?}")),
        Some((_, body)) => failure("short body", format!("{} bytes: {body:?}", body.len())),
    }
}

/// A complete answer with status 200.
struct Answer {
    /// The first line of its body.
    name: String,
    /// Whether the server says that it is the last one of its connection.
    last: bool,
}

/// Reads an answer; nothing while it is not complete.
fn parse(bytes: &[u8]) -> Result<Option<Answer>, Failure> {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return Ok(None);
    };
    let mut lines = head.lines();
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .unwrap_or_default();
    if status != "200" {
        return Err(failure(format!("status {status}"), head));
    }
    let mut length = None;
    let mut last = false;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse::<usize>().ok();
        }
        last |= name.eq_ignore_ascii_case("connection") && value.trim() == "close";
    }
    let Some(length) = length else {
        // Without it a cut answer could not be told from a complete one.
        return Err(failure("no content-length", head));
    };
    if body.len() > length {
        return Err(failure(
            "long body",
            format!("{} of {length} bytes: {body:?}", body.len()),
        ));
    }
    let name = body.lines().next().unwrap_or_default().trim().to_owned();
    Ok((body.len() == length).then_some(Answer { name, last }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::TcpListener, thread};

    const LIMIT: Duration = Duration::from_secs(2);

    /// A server that answers one connection with `answer`, and the kind of
    /// failure, or the name, that a client makes of it.
    fn check(answer: &'static str, expected: Result<&str, &str>) {
        for kept in [false, true] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let target = listener.local_addr().unwrap();
            let server = thread::spawn(move || {
                let (mut client, _) = listener.accept().unwrap();
                let length = client.read(&mut [0; 1024]).unwrap();
                assert!(length > 0);
                client.write_all(answer.as_bytes()).unwrap();
            });
            let outcome = match kept {
                false => request(target, LIMIT),
                true => Kept::default().request(target, LIMIT),
            };
            server.join().unwrap();
            let outcome = outcome
                .map(|(name, _)| name)
                .map_err(|failure| failure.kind);
            assert_eq!(
                outcome.as_deref().map_err(String::as_str),
                expected,
                "{answer:?}, kept: {kept}"
            );
        }
    }

    #[test]
    fn answers_and_failures_are_told_apart() {
        check(
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc\nd",
            Ok("abc"),
        );
        check(
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc\nd",
            Err("short body"),
        );
        check(
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabc\nd",
            Err("long body"),
        );
        check("HTTP/1.1 200 OK\r\n\r\nabc", Err("no content-length"));
        check(
            "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
            Err("status 503"),
        );
        check("HTTP/1.1 200", Err("short head"));
        check("", Err("closed without answer"));
    }

    #[test]
    fn a_reset_and_a_refusal_are_no_clean_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            // Closed with the request unread, which makes the kernel send RST.
            let (client, _) = listener.accept().unwrap();
            crate::wait_until(Duration::from_secs(5), "request", || {
                Ok((client.peek(&mut [0; 1])? > 0).then_some(()))
            })
            .unwrap();
        });
        assert_eq!(request(target, LIMIT).unwrap_err().kind, "reset");
        server.join().unwrap();
        assert_eq!(request(target, LIMIT).unwrap_err().kind, "connect refused");
    }

    /// A kept connection on which one answer came, and the server's end of it.
    fn kept() -> (Kept, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        let client = thread::spawn(move || {
            let mut kept = Kept::default();
            kept.request(target, LIMIT).map(|_| kept).unwrap()
        });
        let mut served = listener.accept().unwrap().0;
        assert!(served.read(&mut [0; 1024]).unwrap() > 0);
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na";
        served.write_all(answer).unwrap();
        (client.join().unwrap(), served)
    }

    /// What becomes of a kept connection that is not open any more.
    fn end(mut client: Kept) -> Result<(), String> {
        crate::wait_until(LIMIT, "the end of the connection", || {
            Ok(match client.still_open() {
                Ok(Some(stream)) => {
                    client.open = Some(stream);
                    None
                }
                Ok(None) => Some(Ok(())),
                Err(failure) => Some(Err(failure.kind)),
            })
        })
        .unwrap()
    }

    #[test]
    fn a_kept_connection_ends_between_two_requests_by_being_closed_or_reset() {
        let (client, served) = kept();
        drop(served);
        assert_eq!(end(client), Ok(()));

        let (mut client, served) = kept();
        client.open.as_mut().unwrap().write_all(b"x").unwrap();
        assert_eq!(served.peek(&mut [0]).unwrap(), 1);
        drop(served);
        assert_eq!(end(client), Err("reset while idle".to_owned()));

        let (client, mut served) = kept();
        served.write_all(b"x").unwrap();
        assert_eq!(end(client), Err("unasked answer".to_owned()));
    }
}
