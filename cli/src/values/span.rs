//! Durations in Go's form: `10s`, `1m30s`, `1.5h`, `500ms`.

use std::time::Duration;

/// Reads a duration.
///
/// # Errors
/// Go's sentence, which names the text.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let invalid =
        || format!("invalid duration {text:?}: expected something like 10s, 1m30s or 500ms");
    let mut rest = text;
    let mut total: u128 = 0;
    if rest.is_empty() {
        return Err(invalid());
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let letters = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        if unit.is_empty() && !number.is_empty() {
            return Err(format!(
                "missing unit in duration {text:?}: write {text}s for seconds"
            ));
        }
        let nanoseconds = unit_nanoseconds(unit).and_then(|scale| times(number, scale));
        total = total
            .checked_add(nanoseconds.ok_or_else(invalid)?)
            .ok_or_else(invalid)?;
        rest = tail;
    }
    // Docker keeps durations as signed nanoseconds: 292 years.
    i64::try_from(total)
        .ok()
        .and_then(|total| u64::try_from(total).ok())
        .map(Duration::from_nanos)
        .ok_or_else(invalid)
}

fn unit_nanoseconds(unit: &str) -> Option<u128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

fn times(number: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    // Sixteen digits suffice for any duration, and keep the products far from overflow.
    if (whole.is_empty() && fraction.is_empty()) || whole.len() > 16 || fraction.len() > 16 {
        return None;
    }
    let read = |digits: &str| {
        if digits.is_empty() {
            Some(0)
        } else {
            digits.parse::<u128>().ok()
        }
    };
    let denominator = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    Some(read(whole)? * scale + read(fraction)? * scale / denominator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_does() {
        let invalid = |text: &str| {
            Err(format!(
                "invalid duration {text:?}: expected something like 10s, 1m30s or 500ms"
            ))
        };
        for (text, expected) in [
            ("0", Ok(Duration::ZERO)),
            ("10s", Ok(Duration::from_secs(10))),
            ("1m30s", Ok(Duration::from_secs(90))),
            ("500ms", Ok(Duration::from_millis(500))),
            ("1.5h", Ok(Duration::from_secs(5400))),
            (".5s", Ok(Duration::from_millis(500))),
            ("3us", Ok(Duration::from_micros(3))),
            ("", invalid("")),
            ("s", invalid("s")),
            ("-1s", invalid("-1s")),
            ("1d", invalid("1d")),
            ("1.1.1s", invalid("1.1.1s")),
            ("9999999999999h", invalid("9999999999999h")),
            (
                "10",
                Err("missing unit in duration \"10\": write 10s for seconds".to_owned()),
            ),
        ] {
            assert_eq!(duration(text), expected, "{text:?}");
        }
    }
}
