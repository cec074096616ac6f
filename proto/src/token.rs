//! Join tokens, in Docker's form: `SWMTKN-1-<digest of the root certificate>-<secret>`.
//!
//! The digest lets a new node recognise the cluster before it trusts anything that it says;
//! the secret lets the cluster recognise the new node, and decides its role.

use std::fmt;
use std::str::FromStr;

use zeroize::Zeroizing;

const PREFIX: &str = "SWMTKN";
const VERSION: &str = "1";
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// 50 digits of base 36 hold the 256 bits of a SHA-256.
const DIGEST_LENGTH: usize = 50;

/// 25 digits of base 36 hold the 128 bits of a secret.
const SECRET_LENGTH: usize = 25;

/// A join token. Neither `Debug` nor an error ever shows its secret; `Display` does.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// SHA-256 of the cluster's root certificate in DER.
    pub ca_digest: [u8; 32],
    /// The secret as it is written in the token: 25 characters of `0-9a-z`.
    pub secret: Zeroizing<String>,
}

impl JoinToken {
    /// Makes the token of a cluster and a secret of 128 bits.
    #[must_use]
    pub fn new(ca_digest: [u8; 32], secret: &[u8; 16]) -> Self {
        Self {
            ca_digest,
            secret: Zeroizing::new(to_base36(secret, SECRET_LENGTH)),
        }
    }
}

/// SHA-256 of a root certificate in DER, as a token carries it.
#[must_use]
pub fn ca_digest(root: &[u8]) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, root);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    bytes
}

/// A text that is no join token. It never repeats the text, which may be a mistyped secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// It starts with something else, or with nothing.
    #[error(
        "invalid join token: it must start with {PREFIX}-{VERSION}- (print it on a manager with \
         `swarmlet join-token worker`)"
    )]
    Prefix,
    /// It is of another version.
    #[error("invalid join token: version {0:?} is unknown, this program reads version {VERSION}")]
    Version(String),
    /// It has more or fewer parts.
    #[error("invalid join token: {found} parts between dashes instead of 4 (was it copied whole?)")]
    Parts {
        /// How many there are.
        found: usize,
    },
    /// A part is too long or too short.
    #[error(
        "invalid join token: the {part} has {found} characters instead of {expected} (was it \
         copied whole?)"
    )]
    Length {
        /// `digest` or `secret`.
        part: &'static str,
        /// Its length.
        found: usize,
        /// What its length must be.
        expected: usize,
    },
    /// A character that does not occur in tokens.
    #[error(
        "invalid join token: character {character:?} at position {position} of the {part} is not \
         one of 0-9a-z"
    )]
    Character {
        /// `digest` or `secret`.
        part: &'static str,
        /// The character.
        character: char,
        /// Where it is, from 1.
        position: usize,
    },
    /// A part that is a larger number than can be.
    #[error("invalid join token: the {part} is out of range (was it mistyped?)")]
    Range {
        /// `digest` or `secret`.
        part: &'static str,
    },
}

// === impl JoinToken ===

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = to_base36(&self.ca_digest, DIGEST_LENGTH);
        write!(f, "{PREFIX}-{VERSION}-{digest}-{}", self.secret.as_str())
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(…)")
    }
}

impl FromStr for JoinToken {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Copied tokens bring line ends and spaces along.
        let parts: Vec<&str> = text.trim().split('-').collect();
        if parts[0] != PREFIX {
            return Err(InvalidToken::Prefix);
        }
        let [_, version, digest, secret] = parts[..] else {
            return Err(InvalidToken::Parts { found: parts.len() });
        };
        if version != VERSION {
            return Err(InvalidToken::Version(version.to_owned()));
        }
        let ca_digest = from_base36::<32>("digest", digest, DIGEST_LENGTH)?;
        from_base36::<16>("secret", secret, SECRET_LENGTH)?;
        Ok(Self {
            ca_digest,
            secret: Zeroizing::new(secret.to_owned()),
        })
    }
}

/// Writes a big-endian number in exactly `length` digits, which the caller knows to suffice.
fn to_base36(bytes: &[u8], length: usize) -> String {
    let mut number = Zeroizing::new(bytes.to_vec());
    let mut text = vec![b'0'; length];
    for place in text.iter_mut().rev() {
        let mut remainder = 0;
        for byte in number.iter_mut() {
            let value = remainder << 8 | u32::from(*byte);
            // The remainder was below 36, so that the quotient is below 256.
            *byte = (value / 36) as u8;
            remainder = value % 36;
        }
        *place = DIGITS[remainder as usize];
    }
    text.into_iter().map(char::from).collect()
}

fn from_base36<const N: usize>(
    part: &'static str,
    text: &str,
    length: usize,
) -> Result<[u8; N], InvalidToken> {
    let found = text.chars().count();
    if found != length {
        return Err(InvalidToken::Length {
            part,
            found,
            expected: length,
        });
    }
    let mut number = [0; N];
    for (index, character) in text.chars().enumerate() {
        let digit = match character {
            '0'..='9' | 'a'..='z' => character.to_digit(36),
            _ => None,
        };
        let mut carry = digit.ok_or(InvalidToken::Character {
            part,
            character,
            position: index + 1,
        })?;
        for byte in number.iter_mut().rev() {
            let value = u32::from(*byte) * 36 + carry;
            *byte = (value & 0xff) as u8;
            carry = value >> 8;
        }
        if carry != 0 {
            return Err(InvalidToken::Range { part });
        }
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZEROS: &str = "00000000000000000000000000000000000000000000000000";
    const SECRET: &str = "f5lxx1zz5pnorynqglhzmsp33";

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        let error = text.parse::<JoinToken>().unwrap_err().to_string();
        assert_eq!(error, format!("invalid join token: {expected}"));
    }

    #[test]
    fn tokens_read_back() {
        for (digest, secret) in [
            ([0; 32], [0; 16]),
            ([255; 32], [255; 16]),
            ([7; 32], [1; 16]),
        ] {
            let token = JoinToken::new(digest, &secret);
            let text = token.to_string();
            assert_eq!(text.len(), "SWMTKN-1-".len() + 50 + 1 + 25);
            assert_eq!(text.parse(), Ok(token.clone()));
            assert_eq!(format!(" {text}\n").parse(), Ok(token));
        }
    }

    #[test]
    fn the_form_is_fixed() {
        let mut digest = [0; 32];
        digest[31] = 37;
        let token = JoinToken::new(digest, &[255; 16]);
        assert_eq!(
            token.to_string(),
            format!("SWMTKN-1-{}11-{SECRET}", &ZEROS[2..])
        );
    }

    #[test]
    fn mistakes_are_named() {
        let prefix = "it must start with SWMTKN-1- (print it on a manager with `swarmlet \
                      join-token worker`)";
        refused("", prefix);
        refused("10.0.0.1:2377", prefix);
        refused(
            "SWMTKN-1-abc",
            "3 parts between dashes instead of 4 (was it copied whole?)",
        );
        refused(
            &format!("SWMTKN-2-{ZEROS}-{SECRET}"),
            "version \"2\" is unknown, this program reads version 1",
        );
        refused(
            &format!("SWMTKN-1-{}-{SECRET}", &ZEROS[1..]),
            "the digest has 49 characters instead of 50 (was it copied whole?)",
        );
        refused(
            &format!("SWMTKN-1-{ZEROS}-{}", &SECRET[1..]),
            "the secret has 24 characters instead of 25 (was it copied whole?)",
        );
        refused(
            &format!("SWMTKN-1-{ZEROS}-F{}", &SECRET[1..]),
            "character 'F' at position 1 of the secret is not one of 0-9a-z",
        );
        refused(
            &format!("SWMTKN-1-{}é-{SECRET}", &ZEROS[1..]),
            "character 'é' at position 50 of the digest is not one of 0-9a-z",
        );
    }

    #[test]
    fn numbers_that_are_too_large_are_refused() {
        refused(
            &format!("SWMTKN-1-{}-{SECRET}", "z".repeat(50)),
            "the digest is out of range (was it mistyped?)",
        );
        // One more than 128 bits hold.
        refused(
            &format!("SWMTKN-1-{ZEROS}-f5lxx1zz5pnorynqglhzmsp34"),
            "the secret is out of range (was it mistyped?)",
        );
    }

    #[test]
    fn secrets_are_not_printed() {
        let token = JoinToken::new([1; 32], &[2; 16]);
        assert!(!format!("{token:?}").contains(token.secret.as_str()));
        let broken = format!("SWMTKN-1-{ZEROS}-{SECRET}!");
        let error = broken.parse::<JoinToken>().unwrap_err();
        assert!(!format!("{error} {error:?}").contains(SECRET));
    }
}
