//! Moments for `--since` and `--until`, and how many lines `--tail` means.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use swarmlet_core::moment::nanoseconds;

use super::duration;

/// How many lines from the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tail(pub(crate) Option<u64>);

/// Reads a number of lines, or `all`.
///
/// # Errors
/// A sentence that names the text.
pub(crate) fn tail(text: &str) -> Result<Tail, String> {
    if text == "all" {
        return Ok(Tail(None));
    }
    let lines = text.parse();
    lines
        .map(|lines| Tail(Some(lines)))
        .map_err(|_| format!("invalid number of lines {text:?}: expected a whole number or all"))
}

/// Reads a moment: RFC 3339, a date, seconds since 1970, or how long ago it was.
///
/// # Errors
/// A sentence that names the text.
pub(crate) fn moment(text: &str) -> Result<u64, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    at(text, now.unwrap_or_default())
}

fn at(text: &str, now: Duration) -> Result<u64, String> {
    if let Some(moment) = nanoseconds(text) {
        return Ok(moment);
    }
    // Seconds since 1970 are a number alone, with nine digits behind the point at most.
    let plain = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    let ago = if plain && !text.is_empty() {
        duration(&format!("{text}s"))
    } else {
        duration(text).map(|ago| now.saturating_sub(ago))
    };
    ago.ok()
        .and_then(|since| u64::try_from(since.as_nanos()).ok())
        .ok_or_else(|| {
            format!("invalid time {text:?}: expected 2026-11-23T12:00:00Z, 1700000000 or 42m")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_absolute_or_ago() {
        let now = Duration::from_secs(1_700_000_000);
        let second = 1_000_000_000;
        for (text, expected) in [
            ("2023-11-14T22:13:20Z", Some(1_700_000_000 * second)),
            ("2023-11-14", Some(1_699_920_000 * second)),
            ("1136073600", Some(1_136_073_600 * second)),
            ("1136073600.000000001", Some(1_136_073_600 * second + 1)),
            ("10m", Some(1_699_999_400 * second)),
            ("1h30m", Some(1_699_994_600 * second)),
            ("", None),
            (".", None),
            ("soon", None),
            ("2023-11-14T25:00:00Z", None),
        ] {
            assert_eq!(at(text, now).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn numbers_of_lines() {
        assert_eq!(tail("all"), Ok(Tail(None)));
        assert_eq!(tail("0"), Ok(Tail(Some(0))));
        assert_eq!(
            tail("-1"),
            Err("invalid number of lines \"-1\": expected a whole number or all".to_owned())
        );
    }
}
