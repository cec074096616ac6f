//! Waiting for a condition, with a deadline and a reason when it passes.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Time between two looks at a condition: short beside anything that is
/// measured here, long enough to leave two processor cores to what is waited for.
const INTERVAL: Duration = Duration::from_millis(10);

/// Calls `check` until it returns a value, for at most `limit`.
///
/// `Ok(None)` means "not yet". An error means the same, and the last one is
/// kept as the reason: while things come up, failing is how they say that
/// they are not there.
///
/// # Errors
///
/// When `limit` has passed; names `what` and the last error of `check`.
pub fn wait_until<T>(
    limit: Duration,
    what: &str,
    mut check: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        let reason = match check() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        // Checked after the condition, so that it is looked at once more at the very end.
        if started.elapsed() >= limit {
            let Some(reason) = reason else {
                bail!("waited {limit:?} in vain: {what}");
            };
            return Err(reason.context(format!("waited {limit:?} in vain: {what}")));
        }
        thread::sleep(INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_is_returned_once_it_is_there() {
        let mut calls = 0;
        let value = wait_until(Duration::from_secs(5), "third call", || {
            calls += 1;
            Ok((calls == 3).then_some(calls))
        });
        assert_eq!(value.unwrap(), 3);
    }

    #[test]
    fn a_deadline_names_the_condition_and_the_last_error() {
        let error =
            wait_until::<()>(Duration::ZERO, "the moon", || bail!("still day")).unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "waited 0ns in vain: the moon: still day"
        );
    }
}
