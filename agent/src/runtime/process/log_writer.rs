//! Writes down what a command writes: the shim's side of a task's log.
//!
//! The command writes into pipes. It must never wait for its log, nor end because of it: what
//! cannot be written is counted and left out.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::records::{self, Limits};
use crate::runtime::log::{LogStream, MAX_LINE, now_ns};

/// The open end of a task's log.
pub(super) struct LogWriter {
    dir: PathBuf,
    limits: Limits,
    number: u64,
    file: Option<File>,
    written: u64,
    /// No moment is before the one that was written last, although clocks step back.
    last_ns: u64,
    /// Whether the last record may have been cut off.
    torn: bool,
    lost: u64,
}

impl LogWriter {
    /// Opens the log behind the files that are there.
    pub(super) fn open(dir: &Path, limits: Limits) -> io::Result<Self> {
        let number = records::numbers(dir)?.last().map_or(1, |last| last + 1);
        let mut writer = Self {
            dir: dir.to_owned(),
            limits,
            number,
            file: None,
            written: 0,
            last_ns: 0,
            torn: false,
            lost: 0,
        };
        writer.file = Some(writer.create()?);
        Ok(writer)
    }

    /// Writes a line, or a piece of one.
    fn line(&mut self, stream: LogStream, data: &[u8], whole: bool) {
        self.last_ns = now_ns().max(self.last_ns);
        let record = records::encode(self.last_ns, stream, data, whole);
        if self.append(&record).is_err() {
            self.lost += 1;
            return;
        }
        if self.lost > 0 {
            let text = format!("swarmlet: {} lines could not be written here", self.lost);
            let note = records::encode(self.last_ns, LogStream::Stderr, text.as_bytes(), true);
            if self.append(&note).is_ok() {
                self.lost = 0;
            }
        }
    }

    fn append(&mut self, record: &[u8]) -> io::Result<()> {
        let length = record.len() as u64;
        if self.written > 0 && self.written + length > self.limits.file_bytes {
            self.rotate()?;
        }
        let mut file = match self.file.take() {
            Some(file) => file,
            None => self.create()?,
        };
        if std::mem::take(&mut self.torn) {
            // Whoever reads leaves the rest of the record out.
            file.write_all(b"\n")?;
        }
        let result = file.write_all(record);
        self.torn = result.is_err();
        self.written += length;
        self.file = Some(file);
        result
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        self.number += 1;
        self.written = 0;
        self.torn = false;
        self.file = Some(self.create()?);
        let keep = u64::from(self.limits.files.max(1));
        for number in records::numbers(&self.dir)? {
            if number + keep <= self.number {
                fs::remove_file(records::path(&self.dir, number))?;
            }
        }
        Ok(())
    }

    fn create(&self) -> io::Result<File> {
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(records::path(&self.dir, self.number))
    }
}

/// Writes down everything that comes out of a pipe, until its other end is closed. Where there
/// is no log it is read all the same.
pub(super) fn copy(from: impl Read, stream: LogStream, log: &Mutex<Option<LogWriter>>) {
    let mut from = BufReader::with_capacity(MAX_LINE, from);
    let mut line = Vec::new();
    loop {
        let chunk = match from.fill_buf() {
            Ok([]) => break,
            Ok(chunk) => chunk,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        let room = MAX_LINE - line.len();
        let end = chunk.iter().take(room).position(|&byte| byte == b'\n');
        let taken = end.unwrap_or(chunk.len().min(room));
        line.extend_from_slice(&chunk[..taken]);
        from.consume(taken + usize::from(end.is_some()));
        if end.is_some() || line.len() == MAX_LINE {
            write(log, stream, &line, end.is_some());
            line.clear();
        }
    }
    if !line.is_empty() {
        // The last line has no end, and a reader is to see it so.
        write(log, stream, &line, false);
    }
}

fn write(log: &Mutex<Option<LogWriter>>, stream: LogStream, line: &[u8], whole: bool) {
    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(log) = log.as_mut() {
        log.line(stream, line, whole);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(dir: &Path) -> Vec<(LogStream, Vec<u8>)> {
        let mut lines = Vec::new();
        for number in records::numbers(dir).unwrap() {
            let text = fs::read(records::path(dir, number)).unwrap();
            for record in text.split(|&byte| byte == b'\n') {
                lines.extend(records::decode(record).map(|line| (line.stream, line.data.to_vec())));
            }
        }
        lines
    }

    fn copied(text: &[u8], limits: Limits) -> (tempfile::TempDir, Vec<Vec<u8>>) {
        let dir = tempfile::tempdir().unwrap();
        let log = Mutex::new(Some(LogWriter::open(dir.path(), limits).unwrap()));
        copy(text, LogStream::Stdout, &log);
        let lines = written(dir.path()).into_iter().map(|(_, line)| line);
        let lines = lines.collect();
        (dir, lines)
    }

    #[test]
    fn lines_are_cut_at_their_ends_and_long_ones_in_pieces() {
        let (_dir, lines) = copied(b"a\n\nb c\nno end", Limits::default());
        assert_eq!(lines, [&b"a\n"[..], b"\n", b"b c\n", b"no end"]);

        let long = vec![b'x'; 2 * MAX_LINE + 5];
        let mut text = long.clone();
        text.extend_from_slice(b"\nnext\n");
        let (_dir, lines) = copied(&text, Limits::default());
        let lengths: Vec<usize> = lines.iter().map(Vec::len).collect();
        assert_eq!(lengths, [MAX_LINE, MAX_LINE, 6, 5]);
        // A line of exactly the longest length is followed by its end alone.
        let mut text = vec![b'x'; MAX_LINE];
        text.push(b'\n');
        let (_dir, lines) = copied(&text, Limits::default());
        assert_eq!(lines.concat(), text);
    }

    #[test]
    fn files_are_bounded_and_the_latest_lines_stay() {
        let limits = Limits {
            file_bytes: 1000,
            files: 3,
        };
        let text: String = (0..1000).map(|n| format!("line {n}\n")).collect();
        let (dir, lines) = copied(text.as_bytes(), limits);
        let numbers = records::numbers(dir.path()).unwrap();
        assert_eq!(numbers.len(), 3);
        for number in &numbers {
            let size = fs::metadata(records::path(dir.path(), *number))
                .unwrap()
                .len();
            assert!(size <= 1000, "{size}");
        }
        assert_eq!(lines.last().unwrap(), b"line 999\n");
        let first = 1000 - lines.len();
        assert!(lines.len() > 30, "{}", lines.len());
        assert_eq!(lines[0], format!("line {first}\n").into_bytes());
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let gone = dir.path().join("task");
        fs::create_dir(&gone).unwrap();
        let limits = Limits {
            file_bytes: 10,
            files: 2,
        };
        let mut log = LogWriter::open(&gone, limits).unwrap();
        log.line(LogStream::Stdout, b"kept", true);
        fs::remove_dir_all(&gone).unwrap();
        // Each line wants a file of its own, which cannot be made.
        log.line(LogStream::Stdout, b"lost", true);
        log.line(LogStream::Stdout, b"lost", true);
        fs::create_dir(&gone).unwrap();
        log.line(LogStream::Stdout, b"back", true);
        let text: Vec<_> = written(&gone);
        assert_eq!(text.len(), 2, "{text:?}");
        assert_eq!(text[0].1, b"back\n");
        assert_eq!(text[1].1, b"swarmlet: 2 lines could not be written here\n");
    }
}
