//! The log files of a task: one record to a line, in files that are numbered upwards.
//!
//! ```text
//! 2026-11-23T03:20:08.000000001Z stdout F a line
//! 2026-11-23T03:20:08.000000002Z stderr P a line that goes on in the next record of its stream
//! ```
//!
//! It is the form in which Kubernetes' runtimes keep logs, so that other programs can read them.
//! A file that has its size is followed by the next number, and the oldest is removed: a reader
//! that has a file open comes to its end undisturbed, and knows where to go on.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use swarmlet_core::moment::{nanoseconds, rfc3339};

use crate::runtime::log::{LogLine, LogStream};

/// How much a task's log may take on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Limits {
    /// A file is closed before it has more bytes than this.
    pub(super) file_bytes: u64,
    /// Files that are kept, the open one included; zero where nothing is kept at all.
    pub(super) files: u32,
}

impl Default for Limits {
    /// 20 MiB to a task: a day of ten lines a second, and a hundred tasks take 2 GiB at most.
    fn default() -> Self {
        Self {
            file_bytes: 10 << 20,
            files: 2,
        }
    }
}

impl Limits {
    /// Nothing is kept.
    pub(super) const NONE: Self = Self {
        file_bytes: 0,
        files: 0,
    };
}

/// A log file by its number.
pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("log.{number}"))
}

/// The numbers of the files that there are, the oldest first.
pub(super) fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("log."));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// A record as it is written. `whole` says whether the line ends here.
pub(super) fn encode(at_ns: u64, stream: LogStream, data: &[u8], whole: bool) -> Vec<u8> {
    let stream = match stream {
        LogStream::Stdout => "stdout",
        LogStream::Stderr => "stderr",
    };
    let tag = if whole { "F" } else { "P" };
    let mut record = format!("{} {stream} {tag} ", rfc3339(at_ns)).into_bytes();
    record.extend_from_slice(data);
    record.push(b'\n');
    record
}

/// Reads a record without its line feed; `None` for what is none, such as the rest of one that
/// a full disk cut off.
pub(super) fn decode(record: &[u8]) -> Option<LogLine> {
    let mut parts = record.splitn(4, |&byte| byte == b' ');
    let at_ns = nanoseconds(std::str::from_utf8(parts.next()?).ok()?)?;
    let stream = match parts.next()? {
        b"stdout" => LogStream::Stdout,
        b"stderr" => LogStream::Stderr,
        _ => return None,
    };
    let whole = match parts.next()? {
        b"F" => true,
        b"P" => false,
        _ => return None,
    };
    let text = parts.next()?;
    let mut data = BytesMut::with_capacity(text.len() + 1);
    data.put_slice(text);
    if whole {
        data.put_u8(b'\n');
    }
    Some(LogLine {
        at_ns,
        stream,
        data: Bytes::from(data),
        details: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_they_were_written() {
        for (data, whole) in [
            (&b"a line"[..], true),
            (b"", true),
            (b" two  blanks ", true),
            (b"\xff\x00 not text", true),
            (b"goes on", false),
        ] {
            for stream in [LogStream::Stdout, LogStream::Stderr] {
                let record = encode(1_700_000_000_123_456_789, stream, data, whole);
                let (last, record) = record.split_last().unwrap();
                assert_eq!(*last, b'\n');
                let line = decode(record).unwrap();
                assert_eq!(line.at_ns, 1_700_000_000_123_456_789);
                assert_eq!(line.stream, stream);
                let mut expected = data.to_vec();
                expected.extend(whole.then_some(b'\n'));
                assert_eq!(line.data, expected);
            }
        }
    }

    #[test]
    fn what_is_no_record_is_left_out() {
        for text in [
            "",
            "yesterday stdout F x",
            "2026-11-23T03:20:08Z stdlog F x",
            "2026-11-23T03:20:08Z stdout",
            "2026-11-23T03:20:08Z stdout Q x",
        ] {
            assert_eq!(decode(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn files_are_counted_upwards() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["log.9", "log.10", "log.x", "lock"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(numbers(dir.path()).unwrap(), [9, 10]);
    }
}
