//! Random numbers of the system: identifiers, salts, and the seeds of decisions.

use ring::rand::{SecureRandom, SystemRandom};

/// The system gave no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system's random source gives nothing")]
pub struct NoRandomness;

/// Fills a buffer.
pub(crate) fn fill(buffer: &mut [u8]) -> Result<(), NoRandomness> {
    SystemRandom::new().fill(buffer).map_err(|_| NoRandomness)
}

/// 128 bits for an identifier.
pub(crate) fn bits() -> Result<u128, NoRandomness> {
    let mut bytes = [0; 16];
    fill(&mut bytes)?;
    Ok(u128::from_le_bytes(bytes))
}

/// 64 bits for the seed of one round of decisions.
pub(crate) fn seed() -> Result<u64, NoRandomness> {
    let mut bytes = [0; 8];
    fill(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}
