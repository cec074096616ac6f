//! The access log: one line for each connection, when it is over.
//!
//! Engine threads put a record into a queue of fixed size and go on; a thread of
//! its own writes. When the disk, or who reads a pipe, does not keep up, records
//! are dropped and counted, and the balancer's own log says how many.

mod writer;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    time::{Instant, SystemTime},
};

use serde::{Deserialize, Serialize};

use self::writer::Writer;
use crate::{connection::Moved, port::Port};

/// Records that may wait to be written: a second's worth of a busy node, 4 MiB
/// or so.
const QUEUE: usize = 16_384;

/// Where the log goes, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessLog {
    /// The file, appended to. One that is moved away is made anew within a
    /// second, so that logs can be rotated. `-` is standard output.
    pub path: PathBuf,
    /// How a record looks.
    #[serde(default)]
    pub format: Format,
}

/// How a record looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// `name=value`, separated by blanks.
    #[default]
    Line,
    /// An object of JSON.
    Json,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Both sides ended it in order.
    Closed,
    /// By one side's reset, a timeout, or the end of the balancer.
    Reset,
    /// No endpoint could be connected to.
    Unserved,
    /// For what the client did.
    Refused,
    /// For the memory that it held.
    Shed,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Record {
    began: SystemTime,
    duration_ms: u64,
    connect_ms: Option<u64>,
    port: u16,
    service: String,
    client: Option<SocketAddr>,
    /// Whose word for it was taken.
    proxy: Option<SocketAddr>,
    endpoint: Option<(String, SocketAddr)>,
    moved: Moved,
    end: End,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Log {
    target: AccessLog,
    queue: SyncSender<Record>,
    /// Records that could not be written, those of earlier logs included.
    dropped: Arc<AtomicU64>,
    trouble: Trouble,
}

/// Why a log cannot be written at present, shared with its thread.
#[derive(Debug, Clone, Default)]
struct Trouble(Arc<Mutex<Option<String>>>);

impl Trouble {
    fn set(&self, reason: Option<String>) {
        // A text is whole or not there, whoever panicked.
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    fn get(&self) -> Option<String> {
        let reason = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reason.clone()
    }
}

impl AccessLog {
    /// Sees whether it can be written, for whoever would rather not begin without it.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(crate) fn check(&self) -> std::io::Result<()> {
        writer::open(&self.path).map(drop)
    }
}

impl Log {
    /// Starts the thread, which opens the file, and goes on trying where that fails. It ends
    /// once the log is dropped and all is written.
    pub(crate) fn start(target: &AccessLog, dropped: Arc<AtomicU64>) -> Self {
        let (queue, records) = sync_channel(QUEUE);
        let trouble = Trouble::default();
        let writer = Writer::new(target, Arc::clone(&dropped), trouble.clone());
        let spawned = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || writer.run(&records));
        if let Err(error) = spawned {
            // Nobody reads the queue, so that each record counts as dropped.
            tracing::error!(%error, "cannot start the thread of the access log");
            trouble.set(Some(format!("cannot start its thread: {error}")));
        }
        Self {
            target: target.clone(),
            queue,
            dropped,
            trouble,
        }
    }

    /// Where it goes.
    pub(crate) fn target(&self) -> &AccessLog {
        &self.target
    }

    /// Why it cannot be written at present.
    pub(crate) fn error(&self) -> Option<String> {
        self.trouble.get()
    }

    fn put(&self, record: Record) {
        if self.queue.try_send(record).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What is remembered of a connection for its record, which is written when
/// this is dropped: there is none however it ends.
#[derive(Debug)]
pub(crate) struct Entry {
    log: Arc<Log>,
    port: Arc<Port>,
    began: SystemTime,
    since: Instant,
    connect_ms: Option<u64>,
    client: Option<SocketAddr>,
    proxy: Option<SocketAddr>,
    endpoint: Option<(String, SocketAddr)>,
    moved: Moved,
    end: End,
}

impl Entry {
    pub(crate) fn new(log: Arc<Log>, port: Arc<Port>, client: Option<SocketAddr>) -> Self {
        Self {
            log,
            port,
            began: SystemTime::now(),
            since: Instant::now(),
            connect_ms: None,
            client,
            proxy: None,
            endpoint: None,
            moved: Moved::default(),
            end: End::Reset,
        }
    }

    /// The client has said, and may, whose connection it is.
    pub(crate) fn note_told(&mut self, source: SocketAddr) {
        self.proxy = self.client.replace(source);
    }

    pub(crate) fn note_connected(&mut self, id: &str, address: SocketAddr) {
        self.connect_ms = Some(self.elapsed_ms());
        self.endpoint = Some((id.to_owned(), address));
    }

    pub(crate) fn note_moved(&mut self, moved: Moved) {
        self.moved.to_endpoint += moved.to_endpoint;
        self.moved.to_client += moved.to_client;
    }

    pub(crate) fn note_end(&mut self, end: End) {
        self.end = end;
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.log.put(Record {
            began: self.began,
            duration_ms: self.elapsed_ms(),
            connect_ms: self.connect_ms,
            port: self.port.number(),
            service: self.port.edge().service.clone(),
            client: self.client,
            proxy: self.proxy,
            endpoint: self.endpoint.take(),
            moved: self.moved,
            end: self.end,
        });
    }
}
