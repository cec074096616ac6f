//! The order in which people count: `ng.2` before `ng.10`.

use std::cmp::Ordering;

/// Compares two texts, runs of digits by their value.
pub(crate) fn natural(left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (left, right);
    while !left.is_empty() && !right.is_empty() {
        let (a, left_rest) = piece(left);
        let (b, right_rest) = piece(right);
        let both_numbers = a.as_bytes()[0].is_ascii_digit() && b.as_bytes()[0].is_ascii_digit();
        let order = if both_numbers {
            let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
            a.len().cmp(&b.len()).then_with(|| a.cmp(b))
        } else {
            a.cmp(b)
        };
        if order != Ordering::Equal {
            return order;
        }
        (left, right) = (left_rest, right_rest);
    }
    left.len().cmp(&right.len())
}

/// Splits off the first run of digits or of anything else; the text must not be empty.
fn piece(text: &str) -> (&str, &str) {
    let digits = text.as_bytes()[0].is_ascii_digit();
    let end = text
        .find(|c: char| c.is_ascii_digit() != digits)
        .unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_count_by_value() {
        let mut names = ["ng.10", "ng.2", "api", "ng.1", "ng", "n2g", "ng.02x", ""];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(
            names,
            ["", "api", "n2g", "ng", "ng.1", "ng.2", "ng.02x", "ng.10"]
        );
    }
}
