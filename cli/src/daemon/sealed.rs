//! A JSON file that tells whether it is as it was written: the digest of what it says comes before
//! that. A bit that flipped in an address or a number would make another node of it, and JSON
//! takes it for what somebody meant.
//!
//! The file as a whole is JSON as well, for people and scripts that read it.

use ring::digest::{SHA256, digest};

const BEFORE_DIGEST: &str = "{\"sha256\": \"";
const AFTER_DIGEST: &str = "\",\n\"node\": ";
const END: &str = "}\n";

/// Digits of a digest.
const DIGITS: usize = 64;

/// A file that says `contents`, which is JSON.
pub(super) fn seal(contents: &str) -> String {
    let sum = sum(contents);
    format!("{BEFORE_DIGEST}{sum}{AFTER_DIGEST}{contents}{END}")
}

/// What a file says, once it is known to be what was written.
///
/// # Errors
/// How it differs.
pub(super) fn open(file: &[u8]) -> Result<&str, &'static str> {
    if file.is_empty() {
        return Err("it is empty");
    }
    let whole = std::str::from_utf8(file).ok().and_then(|text| {
        let text = text.strip_prefix(BEFORE_DIGEST)?;
        let (sum, text) = text.split_at_checked(DIGITS)?;
        let contents = text.strip_prefix(AFTER_DIGEST)?.strip_suffix(END)?;
        Some((sum, contents))
    });
    match whole {
        None => Err("it is cut off, or not written by swarmlet"),
        Some((said, contents)) if said == sum(contents) => Ok(contents),
        Some(_) => Err("its contents do not match their digest"),
    }
}

fn sum(contents: &str) -> String {
    let digest = digest(&SHA256, contents.as_bytes());
    digest.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_and_every_byte_counts() {
        let written = seal("{\n  \"a\": 1\n}");
        assert_eq!(open(written.as_bytes()), Ok("{\n  \"a\": 1\n}"));
        serde_json::from_str::<serde_json::Value>(&written).unwrap();
        for at in 0..written.len() {
            assert!(open(&written.as_bytes()[..at]).is_err(), "{at} bytes");
            for bit in 0..8 {
                let mut flipped = written.clone().into_bytes();
                flipped[at] ^= 1 << bit;
                assert!(open(&flipped).is_err(), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let check = |file: &str, expected| assert_eq!(open(file.as_bytes()), Err(expected));
        check("", "it is empty");
        check("{\"a\": 1}", "it is cut off, or not written by swarmlet");
        let edited = seal("{\"a\": 1}").replace('1', "2");
        check(&edited, "its contents do not match their digest");
    }
}
