//! Whether a balancer that was adopted is to be replaced: an upgrade has changed the program.

use swarmlet_lb::status::{ProgramFile, Status};

/// Whether a process is of another program than this one. A file that was replaced is another
/// program even if its version is the same, as with a package that was built again.
pub(super) fn is_outdated(status: &Status) -> bool {
    if status.program != env!("CARGO_PKG_VERSION") {
        return true;
    }
    match (ProgramFile::own(), status.program_file) {
        (Some(own), Some(theirs)) => own != theirs,
        // Nobody knows; the version has to do.
        _ => false,
    }
}
