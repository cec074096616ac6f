//! An HTTP client that counts who answered, and every way in which it did not.
//!
//! One thread per concurrent request: slower than a benchmark tool, but each
//! failure has its own name, and a closed connection is told apart from a
//! reset one.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    LoadReport, Namespace,
    request::{Kept, request},
};
use anyhow::{Context, Result, anyhow, bail};

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
    /// Requests a second, all threads together; none for as many as they make. Where answers take
    /// longer for a while, what is behind is made up for.
    pub rate: Option<u32>,
    /// Whether each thread keeps its connection until the server closes it, instead of opening
    /// one for each request.
    pub kept: bool,
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
            rate: None,
            kept: false,
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
                .map(|_| scope.spawn(|| self.one_by_one(started)))
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

    fn one_by_one(&self, started: Instant) -> LoadReport {
        let mut report = LoadReport::default();
        let mut kept = Kept::default();
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
            if let Some(due) = self.due(started, number) {
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            let index = usize::try_from(number).unwrap_or_default() % self.load.targets.len();
            let (target, timeout) = (self.load.targets[index], self.load.timeout);
            report.count(match self.load.kept {
                true => kept.request(target, timeout),
                false => request(target, timeout),
            });
            if !self.load.pause.is_zero() {
                thread::sleep(self.load.pause);
            }
        }
        report.connections = match self.load.kept {
            true => kept.connections(),
            false => report.answered() + report.failed(),
        };
        report
    }

    /// When a request is to be sent, where there is a rate.
    fn due(&self, started: Instant, number: u64) -> Option<Instant> {
        let rate = self.load.rate?;
        // Past the first 2^53 requests it would be inexact; no load is that long.
        Some(started + Duration::from_secs_f64(number as f64 / f64::from(rate)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        net::{SocketAddr, TcpListener},
    };

    /// A server that answers so many requests on each connection and says so in the last answer.
    fn server(answers: usize) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        thread::spawn(move || {
            while let Ok((mut client, _)) = listener.accept() {
                thread::spawn(move || {
                    for number in 1..=answers {
                        let mut bytes = [0; 1024];
                        if client.read(&mut bytes).unwrap_or_default() == 0 {
                            return;
                        }
                        let last = if number == answers {
                            "Connection: close\r\n"
                        } else {
                            ""
                        };
                        let answer = format!("HTTP/1.1 200 OK\r\n{last}Content-Length: 1\r\n\r\na");
                        client.write_all(answer.as_bytes()).unwrap();
                    }
                });
            }
        });
        target
    }

    fn run(load: Load) -> LoadReport {
        let shared = Shared {
            load,
            stopped: AtomicBool::new(false),
            next: AtomicU64::new(0),
        };
        shared.work()
    }

    #[test]
    fn a_rate_is_kept() {
        let load = Load {
            concurrency: 4,
            rate: Some(200),
            ..Load::new(server(1), 101)
        };
        let report = run(load);
        assert_eq!((report.answered(), report.connections), (101, 101));
        assert!(
            report.took >= Duration::from_millis(500),
            "{:?}",
            report.took
        );
    }

    #[test]
    fn kept_connections_are_used_until_the_server_closes_them() {
        let load = Load {
            kept: true,
            ..Load::new(server(10), 30)
        };
        let report = run(load);
        assert_eq!(report.failed(), 0, "{}", report.to_json());
        assert_eq!((report.answered(), report.connections), (30, 3));
    }
}
