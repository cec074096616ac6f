//! Rounds, in which everybody has a turn: what a machine does besides hits all alike then.

use std::time::Instant;

use anyhow::Result;

/// Makes so many rounds, numbered from 0, and says on standard error how far it has come.
///
/// # Errors
///
/// The first round's that fails.
pub fn in_rounds(rounds: u32, mut round: impl FnMut(u32) -> Result<()>) -> Result<()> {
    let begun = Instant::now();
    for number in 0..rounds {
        round(number)?;
        eprintln!(
            "round {} of {rounds} done after {:.0} s",
            number + 1,
            begun.elapsed().as_secs_f64()
        );
    }
    Ok(())
}
