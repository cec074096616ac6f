//! What a runtime says of what containers have written.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use swarmlet_core::moment::nanoseconds;

/// The longest piece of a line. Docker cuts there as well; a program that never ends its line
/// must not fill anybody's memory.
pub const MAX_LINE: usize = 16 << 10;

/// Which lines are wanted. Moments are nanoseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogQuery {
    /// Whether to go on with what is written from now on, until the container ends.
    pub follow: bool,
    /// Lines before this are left out.
    pub since_ns: u64,
    /// Lines after this are left out.
    pub until_ns: Option<u64>,
    /// How many lines from the end; `None` for all.
    pub tail: Option<u64>,
    /// Whether to add what the logging driver was told to add.
    pub details: bool,
}

impl LogQuery {
    /// Whether a line of this moment is wanted.
    #[must_use]
    pub fn wants(&self, at_ns: u64) -> bool {
        at_ns >= self.since_ns && !self.is_past(at_ns)
    }

    /// Whether nothing from this moment on is wanted.
    #[must_use]
    pub fn is_past(&self, at_ns: u64) -> bool {
        self.until_ns.is_some_and(|until| at_ns > until)
    }
}

/// Where a container wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line, or a piece of one that is longer than [`MAX_LINE`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When it was written.
    pub at_ns: u64,
    /// Where to.
    pub stream: LogStream,
    /// The line with its line feed, unless it goes on in the next piece.
    pub data: Bytes,
    /// `key=value,key=value`; empty where nothing was asked for.
    pub details: String,
}

impl LogLine {
    /// Reads `MOMENT TEXT`, the form in which engines give lines.
    #[must_use]
    pub(crate) fn parse(stream: LogStream, text: &Bytes, details: &str) -> Option<Self> {
        let end = text.iter().position(|&byte| byte == b' ')?;
        let moment = std::str::from_utf8(&text[..end]).ok()?;
        Some(Self {
            at_ns: nanoseconds(moment)?,
            stream,
            data: text.slice(end + 1..),
            details: details.to_owned(),
        })
    }
}

/// The time by this node's clock.
pub(crate) fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

/// How long from now until a moment.
pub(crate) fn until(moment_ns: u64) -> Duration {
    Duration::from_nanos(moment_ns.saturating_sub(now_ns()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_engines_are_read() {
        let read = |text: &'static str| {
            let line = LogLine::parse(LogStream::Stdout, &Bytes::from_static(text.as_bytes()), "");
            line.map(|line| (line.at_ns, String::from_utf8(line.data.to_vec()).unwrap()))
        };
        let at = 1_700_000_000_123_456_789;
        for (text, expected) in [
            (
                "2023-11-14T22:13:20.123456789Z a b\n",
                Some((at, "a b\n".to_owned())),
            ),
            (
                "2023-11-14T22:13:20.123456789Z \n",
                Some((at, "\n".to_owned())),
            ),
            ("2023-11-14T22:13:20.123456789Z", None),
            ("yesterday a\n", None),
        ] {
            assert_eq!(read(text), expected, "{text:?}");
        }
    }

    #[test]
    fn bounds_are_inclusive() {
        let query = LogQuery {
            since_ns: 5,
            until_ns: Some(7),
            ..LogQuery::default()
        };
        let wanted: Vec<u64> = (0..10).filter(|&at| query.wants(at)).collect();
        assert_eq!(wanted, [5, 6, 7]);
        assert!(!query.is_past(0) && query.is_past(8));
    }
}
