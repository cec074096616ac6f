//! What the system does not let the daemon do, with what to do about it.
//!
//! The first thing that many a user types is `swarmlet init` without root, and that something of
//! /var/lib or /run is denied says neither that root may, nor that root is not needed.

use std::io::{self, ErrorKind};

use rustix::process::geteuid;

/// The system's error about a file or directory of the daemon's own; `what` says what could not
/// be done, with its path.
pub(super) fn failed(error: io::Error, what: &str) -> anyhow::Error {
    let advice = advice(error.kind(), geteuid().is_root()).unwrap_or_default();
    anyhow::Error::new(error).context(format!("{what}{advice}"))
}

/// What to do; nothing is known of what is denied to root (a read-only mount, a policy).
fn advice(kind: ErrorKind, is_root: bool) -> Option<&'static str> {
    (kind == ErrorKind::PermissionDenied && !is_root).then_some(
        " (run it as root, with sudo for instance; without root name a --data-dir and a --socket \
         in a directory of your own)",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_not_root_is_told_to_become_root() {
        let told = |kind, is_root| advice(kind, is_root).is_some();
        assert!(told(ErrorKind::PermissionDenied, false));
        assert!(!told(ErrorKind::PermissionDenied, true));
        assert!(!told(ErrorKind::ReadOnlyFilesystem, false));
    }

    #[test]
    fn the_systems_error_stays_the_cause() {
        let error = failed(io::Error::from(ErrorKind::NotFound), "cannot open /x");
        assert_eq!(format!("{error:#}"), "cannot open /x: entity not found");
        let cause = error.downcast_ref::<io::Error>().unwrap();
        assert_eq!(cause.kind(), ErrorKind::NotFound);
    }
}
