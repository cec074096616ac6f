//! The envelope around everything that Raft keeps on disk.
//!
//! Log and snapshots hold the cluster's root key and registry credentials, so each record is
//! encrypted and authenticated. The record's kind and index are authenticated with it, so that
//! records cannot be swapped; any bit that flips is noticed.
//!
//! ```text
//! version (1) | key id (4, big endian) | nonce (12) | ciphertext and tag (n + 16)
//! ```
//!
//! The keys are in the file `key`, one line each, `ID HEX`, the last one in use: a rotation
//! appends a line, and a line may go once no record names its id any longer.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::durable;

/// The layout above.
const VERSION: u8 = 1;
const HEADER_LEN: usize = 1 + 4;
const KEY_LEN: usize = 32;

/// What a record is; no record opens as another kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A log entry.
    Entry = 1,
    /// Vote, purge marker and end of the log.
    Head = 2,
    /// The witness beside the log.
    Witness = 3,
    /// A snapshot.
    Snapshot = 4,
}

/// Seals and opens records.
pub(crate) struct Sealer {
    keys: BTreeMap<u32, LessSafeKey>,
    current: u32,
    random: SystemRandom,
}

/// Why a record does not open, or there is no key for it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SealError {
    #[error("it is too short to be a sealed record ({0} bytes)")]
    Short(usize),
    #[error("its envelope has version {0}, this program knows version {VERSION}")]
    Version(u8),
    #[error("it is sealed with key {0}, which is not in the key file")]
    UnknownKey(u32),
    #[error("it does not match its seal: the bytes were changed, or the key is another one")]
    Broken,
    #[error("the system has no random bytes")]
    Random,
    #[error("line {0} of the key file is not `ID HEX` with 64 hexadecimal digits")]
    Line(usize),
    #[error("the key file holds no key")]
    NoKey,
    #[error("the key file cannot be read or written")]
    File(#[from] io::Error),
}

impl Sealer {
    /// Reads the keys.
    pub(crate) fn load(path: &Path) -> Result<Self, SealError> {
        let text = Zeroizing::new(fs::read_to_string(path)?);
        let mut keys = BTreeMap::new();
        let mut current = None;
        for (number, line) in text.lines().enumerate() {
            let (id, key) = parse_line(line).ok_or(SealError::Line(number + 1))?;
            keys.insert(id, key);
            current = Some(id);
        }
        let current = current.ok_or(SealError::NoKey)?;
        Ok(Self {
            keys,
            current,
            random: SystemRandom::new(),
        })
    }

    /// Makes the first key and writes it down.
    pub(crate) fn create(path: &Path) -> Result<Self, SealError> {
        let mut key = Zeroizing::new([0; KEY_LEN]);
        SystemRandom::new()
            .fill(key.as_mut())
            .map_err(|_| SealError::Random)?;
        let line = Zeroizing::new(format!("1 {}\n", *hex(key.as_ref())));
        durable::replace(path, &[line.as_bytes()])?;
        Self::load(path)
    }

    /// Seals a record; `index` tells it from the others of its kind.
    pub(crate) fn seal(&self, kind: Kind, index: u64, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        // Random nonces: a counter would have to be durable before each use, and 96 random
        // bits do not repeat within any number of records that one key will see.
        let mut nonce = [0; NONCE_LEN];
        self.random
            .fill(&mut nonce)
            .map_err(|_| SealError::Random)?;
        let tag_len = CHACHA20_POLY1305.tag_len();
        let mut sealed = Vec::with_capacity(HEADER_LEN + NONCE_LEN + plain.len() + tag_len);
        sealed.push(VERSION);
        sealed.extend_from_slice(&self.current.to_be_bytes());
        let aad = associated(&sealed, kind, index);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plain);
        let key = self.keys.get(&self.current).ok_or(SealError::NoKey)?;
        let tag = key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                aad,
                &mut sealed[HEADER_LEN + NONCE_LEN..],
            )
            .map_err(|_| SealError::Broken)?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// Opens a record that was sealed with the same kind and index.
    pub(crate) fn open(&self, kind: Kind, index: u64, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (header, rest) = sealed
            .split_at_checked(HEADER_LEN)
            .ok_or(SealError::Short(sealed.len()))?;
        let (nonce, body) = rest
            .split_at_checked(NONCE_LEN)
            .ok_or(SealError::Short(sealed.len()))?;
        if header[0] != VERSION {
            return Err(SealError::Version(header[0]));
        }
        let id = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
        let key = self.keys.get(&id).ok_or(SealError::UnknownKey(id))?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Broken)?;
        let mut body = body.to_vec();
        let length = key
            .open_in_place(nonce, associated(header, kind, index), &mut body)
            .map_err(|_| SealError::Broken)?
            .len();
        body.truncate(length);
        Ok(body)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealer(key {})", self.current)
    }
}

/// What is authenticated beside the record: the envelope's header, the kind and the index.
fn associated(header: &[u8], kind: Kind, index: u64) -> Aad<[u8; HEADER_LEN + 9]> {
    let mut bytes = [0; HEADER_LEN + 9];
    bytes[..HEADER_LEN].copy_from_slice(header);
    bytes[HEADER_LEN] = kind as u8;
    bytes[HEADER_LEN + 1..].copy_from_slice(&index.to_be_bytes());
    Aad::from(bytes)
}

fn parse_line(line: &str) -> Option<(u32, LessSafeKey)> {
    let (id, digits) = line.split_once(' ')?;
    if digits.len() != 2 * KEY_LEN || !digits.is_ascii() {
        return None;
    }
    let mut key = Zeroizing::new([0; KEY_LEN]);
    for (byte, pair) in key.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    let key = UnboundKey::new(&CHACHA20_POLY1305, key.as_ref()).ok()?;
    Some((id.parse().ok()?, LessSafeKey::new(key)))
}

fn hex(bytes: &[u8]) -> Zeroizing<String> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    // Reserved at once, so that no copy of the key stays behind in a string that grew.
    let mut text = Zeroizing::new(String::with_capacity(2 * bytes.len()));
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn sealer() -> (tempfile::TempDir, Sealer) {
        let dir = tempfile::tempdir().unwrap();
        let sealer = Sealer::create(&dir.path().join("key")).unwrap();
        (dir, sealer)
    }

    #[test]
    fn a_record_opens_as_what_it_was_sealed_and_as_nothing_else() {
        let (_dir, sealer) = sealer();
        let sealed = sealer.seal(Kind::Entry, 7, b"payload").unwrap();

        assert_eq!(sealer.open(Kind::Entry, 7, &sealed).unwrap(), b"payload");
        assert!(!sealed.windows(7).any(|window| window == b"payload"));
        for (kind, index) in [(Kind::Entry, 8), (Kind::Head, 7), (Kind::Snapshot, 7)] {
            assert!(matches!(
                sealer.open(kind, index, &sealed),
                Err(SealError::Broken)
            ));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let (_dir, sealer) = sealer();
        let sealed = sealer.seal(Kind::Head, 0, b"vote").unwrap();
        for position in 0..sealed.len() {
            for bit in 0..8 {
                let mut damaged = sealed.clone();
                damaged[position] ^= 1 << bit;
                assert!(
                    sealer.open(Kind::Head, 0, &damaged).is_err(),
                    "bit {bit} of byte {position}"
                );
            }
            assert!(sealer.open(Kind::Head, 0, &sealed[..position]).is_err());
        }
    }

    #[test]
    fn a_second_key_seals_and_the_first_one_still_opens() {
        let (dir, first) = sealer();
        let old = first.seal(Kind::Entry, 1, b"old").unwrap();
        let path = dir.path().join("key");
        let line = format!("2 {}\n", "ab".repeat(32));
        fs::write(&path, fs::read_to_string(&path).unwrap() + &line).unwrap();

        let both = Sealer::load(&path).unwrap();
        assert_eq!(both.open(Kind::Entry, 1, &old).unwrap(), b"old");
        let new = both.seal(Kind::Entry, 2, b"new").unwrap();
        assert!(matches!(
            first.open(Kind::Entry, 2, &new),
            Err(SealError::UnknownKey(2))
        ));

        fs::write(&path, line).unwrap();
        let second = Sealer::load(&path).unwrap();
        assert_eq!(second.open(Kind::Entry, 2, &new).unwrap(), b"new");
        assert!(matches!(
            second.open(Kind::Entry, 1, &old),
            Err(SealError::UnknownKey(1))
        ));
    }

    #[test]
    fn the_key_file_is_private_and_read_strictly() {
        let (dir, _sealer) = sealer();
        let path = dir.path().join("key");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        for (text, line) in [("1 abcd\n", 1), ("x\n", 1)] {
            fs::write(&path, text).unwrap();
            assert!(matches!(Sealer::load(&path), Err(SealError::Line(n)) if n == line));
        }
        fs::write(&path, "").unwrap();
        assert!(matches!(Sealer::load(&path), Err(SealError::NoKey)));
    }
}
