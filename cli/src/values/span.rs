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

/// Writes a duration as Go and so Docker does: `5s`, `1m30s`, `500ms`.
pub(crate) fn shown_duration(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos();
    let small = [("ns", 1), ("µs", 1_000), ("ms", 1_000_000)];
    if nanoseconds == 0 {
        return "0s".to_owned();
    }
    if nanoseconds < 1_000_000_000 {
        let fits = |&&(_, scale): &&(&str, u128)| scale <= nanoseconds;
        let (unit, scale) = small.iter().rev().find(fits).unwrap_or(&("ns", 1));
        return decimal(nanoseconds, *scale) + unit;
    }
    let seconds = duration.as_secs();
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let rest = decimal(nanoseconds % 60_000_000_000, 1_000_000_000);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

/// A quotient without zeros at its end; `scale` is a power of ten.
fn decimal(number: u128, scale: u128) -> String {
    let (whole, rest) = (number / scale, number % scale);
    if rest == 0 {
        return whole.to_string();
    }
    let places = scale.ilog10() as usize;
    let digits = format!("{rest:0places$}");
    format!("{whole}.{}", digits.trim_end_matches('0'))
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
    fn durations_are_written_as_they_are_read() {
        for (nanoseconds, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (500_000_000, "500ms"),
            (1_000_000_000, "1s"),
            (1_050_000_000, "1.05s"),
            (90_000_000_000, "1m30s"),
            (600_000_000_000, "10m0s"),
            (5_400_000_000_000, "1h30m0s"),
            (3_600_500_000_000, "1h0m0.5s"),
        ] {
            assert_eq!(shown_duration(Duration::from_nanos(nanoseconds)), text);
            assert_eq!(duration(text), Ok(Duration::from_nanos(nanoseconds)));
        }
    }

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
