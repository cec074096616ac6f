//! Texts of others: what an engine, a check or a system says of a failure has no bound of its own.

/// Stands for what was cut off.
const MORE: &str = "…";

/// A text of so many bytes at most; one that is longer ends with an ellipsis.
#[must_use]
pub fn cut(mut text: String, most_bytes: usize) -> String {
    if text.len() > most_bytes {
        let end = text.floor_char_boundary(most_bytes.saturating_sub(MORE.len()));
        text.truncate(end);
        text.push_str(MORE);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn long_texts_end_between_two_characters() {
        for (text, most, expected) in [
            ("", 4, ""),
            ("abcd", 4, "abcd"),
            ("abcde", 4, "a…"),
            ("öböb", 6, "öböb"),
            ("öböbö", 6, "öb…"),
            ("ööö", 4, "…"),
        ] {
            assert_eq!(cut(text.to_owned(), most), expected, "{text}");
        }
    }
}
