//! systemd, by its own command line.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The unit.
pub(super) const UNIT: &str = "swarmlet.service";

/// Whether systemd is what runs this machine (the test that `sd_booted(3)` names).
pub(super) fn runs() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Runs `systemctl ARGS`.
///
/// # Errors
/// It fails; with what it said.
pub(super) fn run(args: &[&str]) -> Result<()> {
    let output = Command::new("systemctl")
        .args(args)
        .stdin(Stdio::null())
        .output()
        .context("cannot run systemctl")?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    bail!(
        "`systemctl {}` failed ({}): {}",
        args.join(" "),
        output.status,
        said.trim()
    )
}

/// Whether the unit's daemon runs.
pub(super) fn is_active() -> bool {
    run(&["--quiet", "is-active", UNIT]).is_ok()
}
