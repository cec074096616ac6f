//! A small deterministic generator: the same seed gives the same numbers on every machine.
//!
//! The shell draws the seed from the system; everything that core does with chance (task ids,
//! jitter, ties) follows from it, so that a decision can be repeated from its arguments.

use std::hash::Hasher;

/// SplitMix64 (Steele, Lea and Flood, 2014). Not for secrets.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator that starts from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A generator for one decision about one version of the state: a caller that passed the
    /// same seed twice would otherwise make the same task ids twice.
    #[must_use]
    pub fn for_version(seed: u64, version: u64) -> Self {
        Self(seed ^ Self(version).next_u64())
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next 128 bits, for an identifier.
    pub fn next_u128(&mut self) -> u128 {
        (u128::from(self.next_u64()) << 64) | u128::from(self.next_u64())
    }

    /// A number below `bound`, and zero where that is zero. The slight bias of the remainder
    /// does not matter for jitter.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64().checked_rem(bound).unwrap_or(0)
    }
}

/// A number that depends on the seed and the bytes alone, to order what is otherwise equal.
/// (The standard library's hashers may change with its version.)
pub(crate) fn tie(seed: u64, bytes: &[u8]) -> u64 {
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325 ^ seed);
    hasher.write(bytes);
    Random::new(hasher.finish()).next_u64()
}

/// FNV-1a, 64 bits.
struct Fnv(u64);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_splitmix64s() {
        // The reference implementation's first outputs for seed 1234567.
        let mut random = Random::new(1_234_567);
        assert_eq!(random.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(random.next_u64(), 3_203_168_211_198_807_973);
        assert!((0..100).all(|_| random.below(7) < 7));
        assert_eq!(random.below(0), 0);
    }

    #[test]
    fn versions_give_different_numbers() {
        let first = |version| Random::for_version(1, version).next_u128();
        assert_ne!(first(1), first(2));
        assert_eq!(first(2), first(2));
    }
}
