//! The thread that writes the access log.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    net::SocketAddr,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant, SystemTime},
};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{AccessLog, End, Format, Record, Trouble};

/// Time between two looks whether the file is still the one at its path, and
/// after which a file that could not be written to is opened anew.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Writer {
    path: PathBuf,
    format: Format,
    out: Out,
    dropped: Arc<AtomicU64>,
    trouble: Trouble,
    told_dropped: u64,
    looked_at: Instant,
}

pub(super) enum Out {
    Stdout(BufWriter<io::Stdout>),
    File(BufWriter<File>),
    /// It could not be written to.
    Broken,
}

/// A record's values under their names, in their order.
#[derive(Serialize)]
struct Fields {
    time: String,
    port: u16,
    service: String,
    client: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<SocketAddr>,
    endpoint: Option<String>,
    address: Option<SocketAddr>,
    connect_ms: Option<u64>,
    duration_ms: u64,
    bytes_to_endpoint: u64,
    bytes_to_client: u64,
    end: &'static str,
}

impl Writer {
    /// One that has yet to open its file.
    pub(super) fn new(target: &AccessLog, dropped: Arc<AtomicU64>, trouble: Trouble) -> Self {
        Self {
            out: Out::Broken,
            path: target.path.clone(),
            format: target.format,
            told_dropped: dropped.load(Ordering::Relaxed),
            dropped,
            trouble,
            looked_at: Instant::now(),
        }
    }

    /// Writes until nobody can put a record any more.
    pub(super) fn run(mut self, records: &Receiver<Record>) {
        self.reopen();
        loop {
            let record = match records.try_recv() {
                Ok(record) => Ok(record),
                Err(_) => {
                    // Nothing waits: what is written is to be seen.
                    self.flush();
                    records.recv_timeout(LOOK_EVERY)
                }
            };
            self.look_if_due();
            match record {
                Ok(record) => self.write(record),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.flush(),
            }
        }
    }

    fn write(&mut self, record: Record) {
        let line = line(self.format, record);
        let written = match &mut self.out {
            Out::Stdout(out) => out.write_all(line.as_bytes()),
            Out::File(out) => out.write_all(line.as_bytes()),
            Out::Broken => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
        };
        self.note(written);
    }

    fn flush(&mut self) {
        let flushed = match &mut self.out {
            Out::Stdout(out) => out.flush(),
            Out::File(out) => out.flush(),
            Out::Broken => return,
        };
        self.note(flushed);
    }

    fn note(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            let path = self.path.display();
            tracing::error!(%path, %error, "cannot write the access log, trying again");
            self.trouble.set(Some(format!("cannot write: {error}")));
            self.out = Out::Broken;
        }
    }

    /// Tells what was dropped, and goes to where the file is now.
    fn look_if_due(&mut self) {
        if self.looked_at.elapsed() < LOOK_EVERY {
            return;
        }
        self.looked_at = Instant::now();
        let dropped = self.dropped.load(Ordering::Relaxed);
        if dropped > self.told_dropped {
            let count = dropped - self.told_dropped;
            tracing::warn!(count, "records of the access log were dropped");
            self.told_dropped = dropped;
        }
        let is_ours = match &self.out {
            Out::Stdout(_) => true,
            Out::Broken => false,
            Out::File(out) => is_at(out.get_ref(), &self.path),
        };
        if is_ours {
            return;
        }
        self.flush();
        self.reopen();
    }

    /// Goes to the file that is at the path, or stays with the one that was there.
    fn reopen(&mut self) {
        match open(&self.path) {
            Ok(out) => {
                self.out = out;
                self.trouble.set(None);
            }
            Err(error) => {
                let path = self.path.display();
                tracing::error!(%path, %error, "cannot open the access log, trying again");
                self.trouble.set(Some(format!("cannot open: {error}")));
            }
        }
    }
}

pub(super) fn open(path: &Path) -> io::Result<Out> {
    if path == Path::new("-") {
        return Ok(Out::Stdout(BufWriter::new(io::stdout())));
    }
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        // Who connected to whom is not for every user of the machine.
        .mode(0o640)
        // A named pipe that nobody reads is an error, and not waited for: who looks whether it can
        // be written has other things to do.
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)?;
    // What is written waits for who reads it.
    let flags = fcntl_getfl(&file)?;
    fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
    Ok(Out::File(BufWriter::new(file)))
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

fn line(format: Format, record: Record) -> String {
    let fields = Fields::from(record);
    match format {
        // Plain values: there is nothing that JSON could not say.
        Format::Json => serde_json::to_string(&fields).unwrap_or_default() + "\n",
        Format::Line => fields.line(),
    }
}

impl From<Record> for Fields {
    fn from(record: Record) -> Self {
        let (endpoint, address) = record.endpoint.unzip();
        Self {
            time: timestamp(record.began),
            port: record.port,
            service: record.service,
            client: record.client,
            proxy: record.proxy,
            endpoint,
            address,
            connect_ms: record.connect_ms,
            duration_ms: record.duration_ms,
            bytes_to_endpoint: record.moved.to_endpoint,
            bytes_to_client: record.moved.to_client,
            end: match record.end {
                End::Closed => "closed",
                End::Reset => "reset",
                End::Unserved => "unserved",
                End::Refused => "refused",
                End::Shed => "shed",
            },
        }
    }
}

impl Fields {
    fn line(&self) -> String {
        fn or_dash<T: ToString>(value: Option<&T>) -> String {
            value.map_or_else(|| "-".to_owned(), ToString::to_string)
        }
        let proxy = self
            .proxy
            .map_or_else(String::new, |proxy| format!(" proxy={proxy}"));
        format!(
            "{} port={} service={} client={}{proxy} endpoint={} address={} connect_ms={} \
             duration_ms={} bytes_to_endpoint={} bytes_to_client={} end={}\n",
            self.time,
            self.port,
            word(&self.service),
            or_dash(self.client.as_ref()),
            self.endpoint
                .as_deref()
                .map_or_else(|| "-".to_owned(), word),
            or_dash(self.address.as_ref()),
            or_dash(self.connect_ms.as_ref()),
            self.duration_ms,
            self.bytes_to_endpoint,
            self.bytes_to_client,
            self.end,
        )
    }
}

/// A label as one word: in quotes if it is not one by itself.
fn word(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:[]/".contains(&byte);
    if !text.is_empty() && text != "-" && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("{text:?}")
    }
}

/// In UTC, to the millisecond.
fn timestamp(at: SystemTime) -> String {
    let at = OffsetDateTime::from(at);
    let whole = at.replace_millisecond(at.millisecond()).unwrap_or(at);
    whole.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;
    use crate::connection::Moved;

    fn record() -> Record {
        Record {
            began: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_000_000_123),
            duration_ms: 25,
            connect_ms: Some(1),
            port: 80,
            service: "ng".to_owned(),
            client: Some("203.0.113.9:4711".parse().unwrap()),
            proxy: None,
            endpoint: Some(("task1".to_owned(), "10.0.0.2:20000".parse().unwrap())),
            moved: Moved {
                to_endpoint: 5,
                to_client: 700,
            },
            end: End::Closed,
        }
    }

    #[test]
    fn a_pipe_that_nobody_reads_is_not_waited_for() {
        use std::io::Read;

        use rustix::fs::{CWD, FileType, Mode, mknodat};

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let error = open(&path).err().unwrap();
        assert_eq!(error.raw_os_error(), Some(Errno::NXIO.raw_os_error()));

        let there = path.clone();
        let reading = std::thread::spawn(move || {
            let mut all = Vec::new();
            File::open(there).unwrap().read_to_end(&mut all).unwrap();
            all.len()
        });
        let opened = (0..500).find_map(|_| {
            std::thread::sleep(Duration::from_millis(10));
            open(&path).ok()
        });
        let Some(Out::File(mut out)) = opened else {
            panic!("it is read");
        };
        // More than a pipe has room for: it waits, and loses nothing.
        out.write_all(&[7; 1 << 20]).unwrap();
        out.flush().unwrap();
        drop(out);
        assert_eq!(reading.join().unwrap(), 1 << 20);
    }

    #[test]
    fn a_record_as_a_line_and_as_json() {
        assert_eq!(
            line(Format::Line, record()),
            "2026-11-18T11:06:40.123Z port=80 service=ng client=203.0.113.9:4711 endpoint=task1 \
             address=10.0.0.2:20000 connect_ms=1 duration_ms=25 bytes_to_endpoint=5 \
             bytes_to_client=700 end=closed\n"
        );
        let unserved = Record {
            service: "a b\n".to_owned(),
            proxy: Some("10.0.0.1:1".parse().unwrap()),
            endpoint: None,
            connect_ms: None,
            end: End::Unserved,
            ..record()
        };
        assert_eq!(
            line(Format::Line, unserved),
            "2026-11-18T11:06:40.123Z port=80 service=\"a b\\n\" client=203.0.113.9:4711 \
             proxy=10.0.0.1:1 endpoint=- address=- connect_ms=- duration_ms=25 \
             bytes_to_endpoint=5 bytes_to_client=700 end=unserved\n"
        );
        let json: serde_json::Value = serde_json::from_str(&line(Format::Json, record())).unwrap();
        assert_eq!(json["client"], "203.0.113.9:4711");
        assert_eq!(json["bytes_to_client"], 700);
        assert_eq!(json["end"], "closed");
        assert!(json.get("proxy").is_none());
    }
}
