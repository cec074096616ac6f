//! Reads a task's log: the agent's side.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt};

use super::files::{self, Spec, TaskDir};
use super::records::{self, Limits};
use crate::runtime::RuntimeError;
use crate::runtime::log::{LogLine, LogQuery, now_ns};

/// How often a log that is followed is looked at. People read along, and a look costs less than
/// a millionth of a processor's second.
const POLL: Duration = Duration::from_millis(100);

/// How much is read at a time.
const CHUNK: usize = 64 << 10;

/// Docker's words for a driver that keeps nothing.
const UNREADABLE: &str = "configured logging driver does not support reading";

/// The lines of the task in a folder.
pub(super) fn stream(
    dir: TaskDir,
    mut query: LogQuery,
) -> BoxStream<'static, Result<LogLine, RuntimeError>> {
    if !query.follow {
        // A command that writes faster than somebody reads would never be read to its end.
        let now = now_ns();
        query.until_ns = Some(query.until_ns.map_or(now, |until| until.min(now)));
    }
    let reader = Reader {
        dir,
        query,
        place: None,
    };
    stream::unfold(Some(reader), |reader| async move {
        match next(reader?).await {
            Ok(Some((lines, reader))) => {
                Some((lines.into_iter().map(Ok).collect::<Vec<_>>(), reader))
            }
            Ok(None) => None,
            Err(error) => Some((vec![Err(error)], None)),
        }
    })
    .flat_map(stream::iter)
    .boxed()
}

struct Reader {
    dir: TaskDir,
    query: LogQuery,
    place: Option<Place>,
}

/// The next lines, and the reader unless they are the last ones.
async fn next(mut reader: Reader) -> Result<Option<(Vec<LogLine>, Option<Reader>)>, RuntimeError> {
    loop {
        let work = move || {
            let round = reader.round();
            (reader, round)
        };
        let (back, round) = tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| RuntimeError::Refused(format!("reading the log failed: {error}")))?;
        reader = back;
        match round? {
            Round::Lines(lines) => return Ok(Some((lines, Some(reader)))),
            Round::Last(lines) => return Ok(Some((lines, None))),
            Round::Over => return Ok(None),
            Round::Quiet => tokio::time::sleep(POLL).await,
        }
    }
}

enum Round {
    Lines(Vec<LogLine>),
    /// What comes after these is not wanted.
    Last(Vec<LogLine>),
    Over,
    Quiet,
}

impl Reader {
    fn round(&mut self) -> Result<Round, RuntimeError> {
        let unreadable = |error: io::Error| {
            RuntimeError::Refused(format!("the log of the task cannot be read: {error}"))
        };
        // Looked at before the lines are: the shim writes the last one before it says that its
        // command has ended.
        let over = !self.query.follow
            || self.dir.exit().exists()
            || !self.dir.is_locked().map_err(unreadable)?
            || self.query.is_past(now_ns());
        let mut place = match self.place.take() {
            Some(place) => place,
            None => self.open()?,
        };
        let lines = place.read(&self.dir).map_err(unreadable)?;
        self.place = Some(place);
        if lines.is_empty() {
            return Ok(if over { Round::Over } else { Round::Quiet });
        }
        let past = lines.iter().any(|line| self.query.is_past(line.at_ns));
        let wanted = lines.into_iter();
        let wanted = wanted.filter(|line| self.query.wants(line.at_ns)).collect();
        Ok(if past {
            Round::Last(wanted)
        } else {
            Round::Lines(wanted)
        })
    }

    fn open(&self) -> Result<Place, RuntimeError> {
        let unreadable = |error: io::Error| {
            RuntimeError::Refused(format!("the log of the task cannot be read: {error}"))
        };
        let spec = files::read::<Spec>(&self.dir.spec()).map_err(unreadable)?;
        match spec {
            None => Err(RuntimeError::Refused(
                "the container was removed".to_owned(),
            )),
            Some(spec) if spec.log == Limits::NONE => {
                Err(RuntimeError::Refused(UNREADABLE.to_owned()))
            }
            Some(_) => Place::open(&self.dir, self.query.tail).map_err(unreadable),
        }
    }
}

/// A place in the files.
struct Place {
    number: u64,
    file: Option<File>,
    /// A record that is not complete yet.
    rest: Vec<u8>,
}

impl Place {
    /// The beginning, or so many records before the end.
    fn open(dir: &TaskDir, tail: Option<u64>) -> io::Result<Self> {
        let numbers = records::numbers(dir.path())?;
        let Some(tail) = tail else {
            return Self::at(dir, numbers.first().copied().unwrap_or(0));
        };
        let mut wanted = tail;
        let mut place = Self::at(dir, numbers.last().copied().unwrap_or(0))?;
        for (age, number) in numbers.into_iter().rev().enumerate() {
            if age > 0 {
                if wanted == 0 {
                    break;
                }
                place = Self::at(dir, number)?;
            }
            if let Some(file) = &mut place.file {
                wanted -= seek_back(file, wanted)?;
            }
        }
        Ok(place)
    }

    fn at(dir: &TaskDir, number: u64) -> io::Result<Self> {
        let file = match File::open(records::path(dir.path(), number)) {
            Ok(file) => Some(file),
            // Removed by the rotation a moment ago, or not made yet: the next one is it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Self {
            number,
            file,
            rest: Vec::new(),
        })
    }

    /// Some records, or none where there are none yet.
    fn read(&mut self, dir: &TaskDir) -> io::Result<Vec<LogLine>> {
        loop {
            let lines = self.read_file()?;
            if !lines.is_empty() {
                return Ok(lines);
            }
            let numbers = match records::numbers(dir.path()) {
                Ok(numbers) => numbers,
                // The task was removed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(error) => return Err(error),
            };
            let Some(next) = numbers.into_iter().find(|number| *number > self.number) else {
                return Ok(Vec::new());
            };
            // What was written between the last look and the rotation; the file is complete.
            let lines = self.read_file()?;
            if !lines.is_empty() {
                return Ok(lines);
            }
            *self = Self::at(dir, next)?;
        }
    }

    fn read_file(&mut self) -> io::Result<Vec<LogLine>> {
        let Some(file) = &mut self.file else {
            return Ok(Vec::new());
        };
        let mut chunk = vec![0; CHUNK];
        loop {
            let length = file.read(&mut chunk)?;
            if length == 0 {
                return Ok(Vec::new());
            }
            self.rest.extend_from_slice(&chunk[..length]);
            let Some(end) = self.rest.iter().rposition(|&byte| byte == b'\n') else {
                // No record is as long as this: it is none.
                if self.rest.len() > CHUNK {
                    self.rest.clear();
                }
                continue;
            };
            let rest = self.rest.split_off(end + 1);
            let complete = std::mem::replace(&mut self.rest, rest);
            let records = complete.split(|&byte| byte == b'\n');
            let lines: Vec<LogLine> = records.filter_map(records::decode).collect();
            if !lines.is_empty() {
                return Ok(lines);
            }
        }
    }
}

/// Moves to the beginning of the last `wanted` lines of a file; returns how many there are.
fn seek_back(file: &mut File, wanted: u64) -> io::Result<u64> {
    let mut position = file.seek(SeekFrom::End(0))?;
    let mut found = 0;
    let mut chunk = vec![0; CHUNK];
    if wanted == 0 {
        return Ok(0);
    }
    while position > 0 {
        let length = position.min(CHUNK as u64);
        position -= length;
        file.seek(SeekFrom::Start(position))?;
        let chunk = &mut chunk[..usize::try_from(length).unwrap_or(CHUNK)];
        file.read_exact(chunk)?;
        for (index, _) in chunk.iter().enumerate().rev().filter(|(_, b)| **b == b'\n') {
            // The end of the line before the first wanted one.
            if found == wanted {
                file.seek(SeekFrom::Start(position + index as u64 + 1))?;
                return Ok(found);
            }
            found += 1;
        }
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::runtime::log::LogStream;

    /// A folder with files of so many lines each, numbered on from file to file.
    fn folder(files: &[u64]) -> (tempfile::TempDir, TaskDir) {
        let dir = tempfile::tempdir().unwrap();
        let mut line = 0;
        for (number, lines) in files.iter().enumerate() {
            let text: Vec<u8> = (0..*lines)
                .flat_map(|_| {
                    line += 1;
                    let text = format!("line {line}");
                    records::encode(line, LogStream::Stdout, text.as_bytes(), true)
                })
                .collect();
            fs::write(records::path(dir.path(), number as u64 + 4), text).unwrap();
        }
        let task = TaskDir::at(dir.path().to_owned());
        (dir, task)
    }

    fn read_all(place: &mut Place, dir: &TaskDir) -> Vec<u64> {
        let mut moments = Vec::new();
        loop {
            let lines = place.read(dir).unwrap();
            if lines.is_empty() {
                return moments;
            }
            moments.extend(lines.iter().map(|line| line.at_ns));
        }
    }

    #[test]
    fn the_last_lines_are_found_across_files() {
        let (_dir, task) = folder(&[3, 2500, 0, 2]);
        let total = 2505;
        for tail in [0, 1, 2, 3, 2000, 2502, 2503, 2505, 9000] {
            let mut place = Place::open(&task, Some(tail)).unwrap();
            let expected: Vec<u64> = (total - tail.min(total) + 1..=total).collect();
            assert_eq!(read_all(&mut place, &task), expected, "tail {tail}");
        }
        let mut place = Place::open(&task, None).unwrap();
        assert_eq!(read_all(&mut place, &task).len(), 2505);
    }

    #[test]
    fn a_reader_goes_on_over_rotations_and_half_records() {
        let (dir, task) = folder(&[2]);
        let mut place = Place::open(&task, None).unwrap();
        assert_eq!(read_all(&mut place, &task), [1, 2]);
        let record = records::encode(3, LogStream::Stderr, b"three", true);
        let first = records::path(dir.path(), 4);
        let append = |bytes: &[u8]| {
            let mut file = fs::OpenOptions::new().append(true).open(&first).unwrap();
            io::Write::write_all(&mut file, bytes).unwrap();
        };
        append(&record[..10]);
        assert!(read_all(&mut place, &task).is_empty());
        append(&record[10..]);
        append(&records::encode(4, LogStream::Stdout, b"four", true));
        // Rotated, and the file that was read is gone.
        fs::write(
            records::path(dir.path(), 6),
            records::encode(5, LogStream::Stdout, b"five", true),
        )
        .unwrap();
        fs::remove_file(&first).unwrap();
        assert_eq!(read_all(&mut place, &task), [3, 4, 5]);
        fs::remove_dir_all(dir.path()).unwrap();
        assert!(read_all(&mut place, &task).is_empty());
    }

    #[test]
    fn garbage_is_left_out() {
        let (dir, task) = folder(&[1]);
        let mut text = vec![b'x'; 3 * CHUNK];
        text.push(b'\n');
        text.extend(records::encode(9, LogStream::Stdout, b"after", true));
        fs::write(records::path(dir.path(), 5), text).unwrap();
        let mut place = Place::open(&task, None).unwrap();
        assert_eq!(read_all(&mut place, &task), [1, 9]);
    }
}
