//! Clients that connect, ask, read the answer and connect again.

use std::fmt;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_linger;

/// Nothing here takes this long by itself.
const DEADLINE: Duration = Duration::from_secs(30);

/// A load that goes on until it is stopped.
pub(crate) struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<Report>>,
    begun: Instant,
}

struct Shared {
    target: SocketAddr,
    stopped: AtomicBool,
    answered: AtomicUsize,
}

/// What came of it.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) answered: usize,
    /// Refused, or reset before the connect was complete.
    pub(crate) not_connected: Vec<String>,
    /// Broken off after the connect.
    pub(crate) broken: Vec<String>,
    took: Duration,
}

impl Load {
    pub(crate) fn start(target: SocketAddr, clients: usize) -> Self {
        let shared = Arc::new(Shared {
            target,
            stopped: AtomicBool::new(false),
            answered: AtomicUsize::new(0),
        });
        let client = || {
            let shared = shared.clone();
            std::thread::spawn(move || shared.work())
        };
        Self {
            clients: (0..clients).map(|_| client()).collect(),
            shared,
            begun: Instant::now(),
        }
    }

    /// Waits until so many more were answered: the load is really on.
    #[track_caller]
    pub(crate) fn wait_for_more(&self, count: usize) {
        let answered = || self.shared.answered.load(Ordering::Relaxed);
        let (goal, end) = (answered() + count, Instant::now() + DEADLINE);
        while answered() < goal {
            assert!(Instant::now() < end, "{} of {goal} answered", answered());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn stop(self) -> Report {
        self.shared.stopped.store(true, Ordering::Relaxed);
        let mut all = Report::default();
        for client in self.clients {
            let part = client.join().unwrap();
            all.answered += part.answered;
            all.not_connected.extend(part.not_connected);
            all.broken.extend(part.broken);
        }
        all.took = self.begun.elapsed();
        all
    }
}

impl Report {
    #[track_caller]
    pub(crate) fn assert_flawless(&self) {
        assert!(self.answered > 0);
        assert!(
            self.not_connected.is_empty() && self.broken.is_empty(),
            "{self:?}"
        );
    }

    pub(crate) fn rate(&self) -> f64 {
        f64::from(u32::try_from(self.answered).unwrap()) / self.took.as_secs_f64()
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} answered, {:.0} a second; not connected {}: {:?}; broken {}: {:?}",
            self.answered,
            self.rate(),
            self.not_connected.len(),
            self.not_connected.first(),
            self.broken.len(),
            self.broken.first()
        )
    }
}

impl Shared {
    fn work(&self) -> Report {
        let mut report = Report::default();
        while !self.stopped.load(Ordering::Relaxed) {
            match TcpStream::connect(self.target) {
                Err(error) => report.not_connected.push(error.to_string()),
                Ok(stream) => match ask(stream) {
                    Err(error) => report.broken.push(error),
                    Ok(()) => {
                        report.answered += 1;
                        self.answered.fetch_add(1, Ordering::Relaxed);
                    }
                },
            }
        }
        report
    }
}

fn ask(mut stream: TcpStream) -> Result<(), String> {
    let mut answer = Vec::new();
    let mut exchange = || -> std::io::Result<()> {
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        stream.read_to_end(&mut answer)?;
        // The answer is complete; without a reset the system runs out of ports.
        Ok(set_socket_linger(&stream, Some(Duration::ZERO))?)
    };
    exchange().map_err(|error| error.to_string())?;
    if answer.starts_with(b"HTTP/1.0 200") || answer.starts_with(b"HTTP/1.1 200") {
        Ok(())
    } else {
        Err(format!("{} bytes and no answer", answer.len()))
    }
}
