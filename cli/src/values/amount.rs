//! Amounts of memory (`64m`, `1g`, `512MiB`) and of CPU (`0.5`).

/// Reads an amount of memory in bytes; every suffix counts in powers of 1024, as Docker's do.
///
/// # Errors
/// A sentence that names the text.
pub(crate) fn memory(text: &str) -> Result<u64, String> {
    let invalid =
        || format!("invalid size: '{text}': expected a number and a unit, such as 512m or 2g");
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let suffix = suffix.strip_prefix(' ').unwrap_or(suffix).to_lowercase();
    let unit = suffix.strip_suffix('b').unwrap_or(&suffix);
    let unit = match unit.strip_suffix('i') {
        // "i" stands between the unit and the "b"; by itself it says nothing.
        Some("") => return Err(invalid()),
        Some(unit) => unit,
        None => unit,
    };
    let power = match unit {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(invalid()),
    };
    scaled(number, 1024_u64.pow(power), Rounding::Down).ok_or_else(invalid)
}

/// Reads a number of CPUs as billionths of one.
///
/// # Errors
/// A sentence that names the text.
pub(crate) fn nano_cpus(text: &str) -> Result<u64, String> {
    let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction);
    if fraction.trim_end_matches('0').len() > 9 {
        return Err(format!("value is too precise: {text}"));
    }
    scaled(text, 1_000_000_000, Rounding::Refused)
        .ok_or_else(|| format!("failed to parse {text} as a rational number, such as 0.5"))
}

/// What to do with what is smaller than one.
#[derive(PartialEq, Eq)]
enum Rounding {
    Down,
    Refused,
}

/// A decimal number times a scale, without floating point; `None` if it is no number or too
/// large.
fn scaled(number: &str, scale: u64, rounding: Rounding) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let all_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    // Beyond 18 digits a fraction is smaller than any unit here, and would overflow below.
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) || fraction.len() > 18 {
        return None;
    }
    if number.ends_with('.') {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(scale)?;
    if fraction.is_empty() {
        return Some(whole);
    }
    let denominator = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let product = fraction.parse::<u128>().ok()? * u128::from(scale);
    if rounding == Rounding::Refused && product % denominator != 0 {
        return None;
    }
    whole.checked_add(u64::try_from(product / denominator).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_as_docker_does() {
        for (text, expected) in [
            ("0", 0),
            ("1024", 1024),
            ("64m", 64 << 20),
            ("64M", 64 << 20),
            ("1g", 1 << 30),
            ("1.5g", 3 << 29),
            ("512MiB", 512 << 20),
            ("512mb", 512 << 20),
            ("10 k", 10 << 10),
            ("2b", 2),
        ] {
            assert_eq!(memory(text), Ok(expected), "{text:?}");
        }
        for text in ["", "m", "-1", "1ib", "1x", "1.2.3", "99999999999p"] {
            let refusal =
                format!("invalid size: '{text}': expected a number and a unit, such as 512m or 2g");
            assert_eq!(memory(text), Err(refusal));
        }
    }

    #[test]
    fn cpus_are_exact() {
        for (text, expected) in [
            ("1", Ok(1_000_000_000)),
            ("0.5", Ok(500_000_000)),
            ("1.250", Ok(1_250_000_000)),
            ("0.000000001", Ok(1)),
            ("0.0000000001", Err("value is too precise: 0.0000000001")),
            (
                "half",
                Err("failed to parse half as a rational number, such as 0.5"),
            ),
            (
                "1.",
                Err("failed to parse 1. as a rational number, such as 0.5"),
            ),
            (
                "-1",
                Err("failed to parse -1 as a rational number, such as 0.5"),
            ),
        ] {
            assert_eq!(nano_cpus(text), expected.map_err(str::to_owned), "{text:?}");
        }
    }
}
