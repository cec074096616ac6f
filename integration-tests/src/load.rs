//! An HTTP client that counts who answered, and every way in which it did not.
//!
//! A connection per request, closed loop, one thread per concurrent request:
//! slower than a benchmark tool, but each failure has its own name, and a
//! closed connection is told apart from a reset one.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    LoadReport, Namespace,
    load_report::{Failure, failure},
};
use anyhow::{Context, Result, anyhow, bail};

/// An answer longer than this is not one of whoami's; the client must not
/// grow with what it is sent.
const ANSWER_BYTES: u64 = 64 * 1024;

/// What to ask, how often, and how many at once.
#[derive(Clone, Debug)]
pub struct Load {
    /// Where to: one address, or several in turn.
    pub targets: Vec<SocketAddr>,
    /// Requests under way at any time.
    pub concurrency: usize,
    /// All requests together; none for "until stopped".
    pub requests: Option<u64>,
    /// Deadline of each step of a request (connect, write, each read).
    pub timeout: Duration,
    /// Pause of a thread after each request: zero for as fast as it goes.
    pub pause: Duration,
}

impl Load {
    /// `requests` requests to one target, one after the other.
    #[must_use]
    pub fn new(target: SocketAddr, requests: u64) -> Self {
        Self {
            targets: vec![target],
            concurrency: 1,
            requests: Some(requests),
            timeout: Duration::from_secs(5),
            pause: Duration::ZERO,
        }
    }

    /// Sends the requests from inside `namespace` and returns once all are answered.
    ///
    /// # Errors
    ///
    /// When the load cannot be put on at all, or would never end. Failed
    /// requests are not an error but in the report.
    pub fn run(self, namespace: &Namespace) -> Result<LoadReport> {
        if self.requests.is_none() {
            bail!("a load without a number of requests never ends: start it and stop it");
        }
        self.start(namespace)?.join()
    }

    /// Starts sending from inside `namespace`, in the background.
    ///
    /// # Errors
    ///
    /// When no thread can be started, or there is no target.
    pub fn start(self, namespace: &Namespace) -> Result<RunningLoad> {
        if self.targets.is_empty() || self.concurrency == 0 {
            bail!("a load needs a target and a concurrency of at least 1: {self:?}");
        }
        let shared = Arc::new(Shared {
            load: self,
            stopped: AtomicBool::new(false),
            next: AtomicU64::new(0),
        });
        let load = Arc::clone(&shared);
        let thread = namespace
            .thread(move || load.work())
            .context("cannot start the load's thread")?;
        Ok(RunningLoad {
            shared,
            thread: Some(thread),
        })
    }
}

/// A load in the background. Dropping it stops it.
pub struct RunningLoad {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<io::Result<LoadReport>>>,
}

impl RunningLoad {
    /// Requests begun so far: to see that the load is really on.
    #[must_use]
    pub fn begun(&self) -> u64 {
        self.shared.next.load(Ordering::Relaxed)
    }

    /// Stops after the requests under way and reports.
    ///
    /// # Errors
    ///
    /// When the load could not be put on at all.
    pub fn stop(self) -> Result<LoadReport> {
        self.shared.stopped.store(true, Ordering::Relaxed);
        self.join()
    }

    fn join(mut self) -> Result<LoadReport> {
        let thread = self.thread.take().context("the load was joined before")?;
        let report = thread
            .join()
            .map_err(|_| anyhow!("the load's thread panicked"))?;
        report.context("cannot enter the client's network")
    }
}

impl Drop for RunningLoad {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
    }
}

struct Shared {
    load: Load,
    stopped: AtomicBool,
    next: AtomicU64,
}

impl Shared {
    fn work(&self) -> LoadReport {
        let started = Instant::now();
        let mut report = LoadReport::default();
        thread::scope(|scope| {
            let workers: Vec<_> = (0..self.load.concurrency)
                .map(|_| scope.spawn(|| self.one_by_one()))
                .collect();
            for worker in workers {
                match worker.join() {
                    Ok(part) => report.add(part),
                    // A worker's panic is a defect of this file, and must not pass for fewer requests.
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
        });
        report.latencies.sort_unstable();
        report.took = started.elapsed();
        report
    }

    fn one_by_one(&self) -> LoadReport {
        let mut report = LoadReport::default();
        while !self.stopped.load(Ordering::Relaxed) {
            // Counted only when there is one left, so that `begun` is exact.
            let number = self
                .next
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |number| {
                    self.load
                        .requests
                        .is_none_or(|all| number < all)
                        .then_some(number + 1)
                });
            let Ok(number) = number else { break };
            let index = usize::try_from(number).unwrap_or_default() % self.load.targets.len();
            report.count(request(self.load.targets[index], self.load.timeout));
            if !self.load.pause.is_zero() {
                thread::sleep(self.load.pause);
            }
        }
        report
    }
}

/// One request on a connection of its own; the first line of the answer.
fn request(target: SocketAddr, timeout: Duration) -> Result<(String, Duration), Failure> {
    let started = Instant::now();
    let mut stream = TcpStream::connect_timeout(&target, timeout).map_err(|error| {
        let kind = match error.kind() {
            ErrorKind::ConnectionRefused => "connect refused",
            ErrorKind::TimedOut => "connect timeout",
            ErrorKind::ConnectionReset => "connect reset",
            _ => "connect",
        };
        failure(kind, format!("{target}: {error}"))
    })?;
    let mut answer = Vec::new();
    let exchanged = exchange(&mut stream, target, timeout, &mut answer);
    if let Err(error) = exchanged {
        let kind = match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => "reset",
            ErrorKind::WouldBlock | ErrorKind::TimedOut => "timeout",
            _ => "read or write",
        };
        return Err(failure(
            kind,
            format!(
                "{target}, after {} bytes of the answer: {error}",
                answer.len()
            ),
        ));
    }
    parse(&answer).map(|name| (name, started.elapsed()))
}

fn exchange(
    stream: &mut TcpStream,
    target: SocketAddr,
    timeout: Duration,
    answer: &mut Vec<u8>,
) -> io::Result<()> {
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    stream.write_all(
        format!("GET / HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    stream.take(ANSWER_BYTES).read_to_end(answer)?;
    // The answer is complete; whether the server still listens is its affair.
    let _ = stream.shutdown(Shutdown::Both);
    Ok(())
}

/// The first line of a complete answer's body.
fn parse(answer: &[u8]) -> Result<String, Failure> {
    let text = String::from_utf8_lossy(answer);
    if text.is_empty() {
        return Err(failure(
            "closed without answer",
            "the connection was closed before any byte came",
        ));
    }
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return Err(failure("short head", format!("{text:?}")));
    };
    let mut lines = head.lines();
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .unwrap_or_default();
    if status != "200" {
        return Err(failure(format!("status {status}"), head));
    }
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok());
    let Some(length) = length else {
        // Without it a cut answer could not be told from a complete one.
        return Err(failure("no content-length", head));
    };
    if body.len() != length {
        return Err(failure(
            "short body",
            format!("{} of {length} bytes: {body:?}", body.len()),
        ));
    }
    Ok(body.lines().next().unwrap_or_default().trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// A server that answers one connection with `answer`, and the kind of
    /// failure, or the name, that a client makes of it.
    fn check(answer: &'static str, expected: Result<&str, &str>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let length = client.read(&mut [0; 1024]).unwrap();
            assert!(length > 0);
            client.write_all(answer.as_bytes()).unwrap();
        });
        let outcome = request(target, Duration::from_secs(2));
        server.join().unwrap();
        let outcome = outcome
            .map(|(name, _)| name)
            .map_err(|failure| failure.kind);
        assert_eq!(
            outcome.as_deref().map_err(String::as_str),
            expected,
            "{answer:?}"
        );
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
        assert_eq!(
            request(target, Duration::from_secs(2)).unwrap_err().kind,
            "reset"
        );
        server.join().unwrap();
        assert_eq!(
            request(target, Duration::from_secs(2)).unwrap_err().kind,
            "connect refused"
        );
    }
}
