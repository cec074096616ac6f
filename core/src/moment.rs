//! Moments in RFC 3339, as engines, files and people write them.

/// Nanoseconds of a second, in which lines of logs count.
const SECOND: u64 = 1_000_000_000;

/// Seconds of a day.
const DAY: i64 = 86_400;

/// A moment as Docker writes it: `2026-11-23T03:20:08.000000001Z`, always with nine digits.
#[must_use]
pub fn rfc3339(nanoseconds: u64) -> String {
    let fraction = nanoseconds % SECOND;
    format!("{}.{fraction:09}Z", whole(nanoseconds / SECOND))
}

/// A moment in milliseconds, with three digits: `2026-11-23T03:20:08.001Z`.
pub(crate) fn rfc3339_millis(milliseconds: u64) -> String {
    let fraction = milliseconds % 1000;
    format!("{}.{fraction:03}Z", whole(milliseconds / 1000))
}

/// Date and time without fraction and zone.
fn whole(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    let (year, month, day) = date(seconds / DAY);
    let second = seconds % DAY;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}",
        second / 3600,
        second / 60 % 60,
        second % 60,
    )
}

/// Reads a moment in RFC 3339, with or without a fraction. A date alone is its midnight, and one
/// without a zone is in UTC. `None` for anything else, and for what is before 1970 or after 2554.
#[must_use]
pub fn nanoseconds(text: &str) -> Option<u64> {
    let (date, time) = match text.split_once(['T', 't', ' ']) {
        Some((date, time)) => (date, time),
        None => (text, "00:00:00Z"),
    };
    let days = days(date)?;
    let (time, offset) = zone(time)?;
    let (clock, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut parts = clock.split(':');
    let hour = number(parts.next()?, 2, 23)?;
    let minute = number(parts.next()?, 2, 59)?;
    // A leap second counts as the one after it, as everywhere in Unix.
    let second = parts.next().map_or(Some(0), |part| number(part, 2, 60))?;
    if parts.next().is_some() || (time.contains('.') && fraction.is_empty()) {
        return None;
    }
    let seconds = days * DAY + hour * 3600 + minute * 60 + second - offset;
    u64::try_from(seconds)
        .ok()?
        .checked_mul(SECOND)?
        .checked_add(billionths(fraction)?)
}

/// A fraction's digits as nanoseconds; digits beyond those are cut.
fn billionths(digits: &str) -> Option<u64> {
    if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let digits = digits.bytes().chain(std::iter::repeat(b'0')).take(9);
    Some(digits.fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// Splits the zone off, as seconds east of Greenwich.
fn zone(time: &str) -> Option<(&str, i64)> {
    if let Some(time) = time.strip_suffix(['Z', 'z']) {
        return Some((time, 0));
    }
    let Some(at) = time.rfind(['+', '-']) else {
        return Some((time, 0));
    };
    let (time, zone) = time.split_at(at);
    let (hours, minutes) = zone[1..].split_once(':')?;
    let seconds = number(hours, 2, 23)? * 3600 + number(minutes, 2, 59)? * 60;
    Some((
        time,
        if zone.starts_with('-') {
            -seconds
        } else {
            seconds
        },
    ))
}

fn number(text: &str, digits: usize, most: i64) -> Option<i64> {
    let plain = text.len() == digits && text.bytes().all(|digit| digit.is_ascii_digit());
    let number = plain.then(|| text.parse().ok()).flatten()?;
    (number <= most).then_some(number)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn days(date: &str) -> Option<i64> {
    let mut parts = date.split('-');
    let year = number(parts.next()?, 4, 9999)?;
    let month = number(parts.next()?, 2, 12)?;
    let day = number(parts.next()?, 2, 31)?;
    if parts.next().is_some() || month == 0 || day == 0 || day > length(year, month) {
        return None;
    }
    // The year begins in March, so that its last day is the one that may be missing.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let before = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // 719468 days lie between March 1st of the year 0 and 1970-01-01.
    Some(before + (153 * month + 2) / 5 + day - 1 - 719_468)
}

fn length(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The date of a day counted from 1970-01-01: year, month, day.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (year + era * 400 + carry, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_with_nine_digits() {
        for (moment, expected) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400 * SECOND + 1, "2000-02-29T00:00:00.000000001Z"),
            (
                1_700_000_000 * SECOND + 123_456_789,
                "2023-11-14T22:13:20.123456789Z",
            ),
            (u64::MAX, "2554-07-21T23:34:33.709551615Z"),
        ] {
            assert_eq!(rfc3339(moment), expected);
            assert_eq!(nanoseconds(expected), Some(moment), "{expected}");
        }
    }

    #[test]
    fn milliseconds_have_three_digits() {
        for (moment, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_700_000_000_007, "2023-11-14T22:13:20.007Z"),
            (253_402_300_800_000, "10000-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339_millis(moment), expected);
        }
        // The end of time, at which sums stop, can be written as well.
        assert!(rfc3339_millis(u64::MAX).ends_with(".615Z"));
    }

    #[test]
    fn every_day_of_four_centuries_comes_back() {
        for day in 0..146_097 {
            let moment = day * 86_400 * SECOND;
            if let Some(moment) = (day < 213_000).then_some(moment) {
                assert_eq!(nanoseconds(&rfc3339(moment)), Some(moment), "day {day}");
            }
        }
    }

    #[test]
    fn forms_that_people_write() {
        let noon = nanoseconds("2026-11-23T12:00:00Z");
        for (text, expected) in [
            ("2026-11-23T13:00:00+01:00", noon),
            ("2026-11-23T07:30:00-04:30", noon),
            ("2026-11-23T12:00:00", noon),
            ("2026-11-23 12:00", noon),
            ("2026-11-23T12:00:00.5Z", noon.map(|n| n + SECOND / 2)),
            ("2026-11-23T12:00:00.0000000019Z", noon.map(|n| n + 1)),
            ("2026-11-23", noon.map(|n| n - 12 * 3600 * SECOND)),
            ("2026-02-29", None),
            ("2026-13-01", None),
            ("2026-11-23T24:00:00Z", None),
            ("2026-11-23T12:00:00.Z", None),
            ("2026-11-23T12:00:00.5x", None),
            ("2026-11-23T+1:00:00Z", None),
            ("1969-12-31", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(nanoseconds(text), expected, "{text}");
        }
    }
}
