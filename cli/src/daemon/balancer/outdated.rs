//! Whether a balancer that was adopted is to be replaced: an upgrade has changed the program.

use std::fs;
use std::os::unix::fs::MetadataExt;

use swarmlet_lb::status::Status;

/// Whether a process is of another program than this one. A file that was replaced is another
/// program even if its version is the same, as with a package that was built again.
pub(super) fn is_outdated(status: &Status) -> bool {
    if status.program != env!("CARGO_PKG_VERSION") {
        return true;
    }
    let file = |process: &str| {
        let found = fs::metadata(format!("/proc/{process}/exe"));
        found.ok().map(|file| (file.dev(), file.ino()))
    };
    match (file("self"), file(&status.pid.to_string())) {
        (Some(own), Some(theirs)) => own != theirs,
        // Another user's process; the version has to do.
        _ => false,
    }
}
