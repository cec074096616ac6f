//! Random numbers for jitter and starting places, where prediction does no harm.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A number that differs between processes and from call to call. The standard
/// library seeds its hash maps from the system's random source; that is good
/// enough here and spares a dependency.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
