//! The balancer as a unit of systemd's.
//!
//! In a control group of its own it has nothing to do with what befalls the daemon's unit, from a
//! limit to `systemctl kill`, and it may do less than the daemon may: systemd reads what from
//! `swarmlet-lb-.service.d`, for the name of the unit begins like this (`systemd.unit(5)`). The
//! file is `packaging/swarmlet-lb.conf`.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;
use tokio::time::{Instant, timeout};

/// What the name of each begins with.
const PREFIX: &str = "swarmlet-lb-";

/// Time for systemd to answer; it does within milliseconds, but for a machine that is busy.
const DEADLINE: Duration = Duration::from_secs(3);

/// Pause between two looks at whether it still runs: each is a process.
const LOOK: Duration = Duration::from_millis(250);

/// A unit that was started.
pub(super) struct Unit {
    name: String,
    looked: Instant,
}

impl Unit {
    /// Has systemd run a program, whose output goes to `log`.
    ///
    /// # Errors
    /// systemd does not answer, or cannot start it; with what it said.
    pub(super) async fn start(program: &Path, words: &[OsString], log: &Path) -> Result<Self> {
        ensure!(
            Path::new("/run/systemd/system").is_dir(),
            "systemd does not run on this machine"
        );
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        // Two at a time have different names, also after a restart of the daemon.
        let name = format!("{PREFIX}{}", since.unwrap_or_default().as_millis());
        let output = format!("append:{}", log.display());
        let mut run = Command::new("systemd-run");
        run.args(["--quiet", "--collect", "--service-type=exec"])
            .arg(format!("--unit={name}"))
            .arg("--description=swarmlet balancer (ingress mesh)")
            .arg(format!("--property=StandardOutput={output}"))
            .arg(format!("--property=StandardError={output}"));
        if let Ok(level) = std::env::var("SWARMLET_LOG") {
            run.arg(format!("--setenv=SWARMLET_LOG={level}"));
        }
        run.arg("--").arg(program).args(words);
        let said = answer(run).await.context("cannot run systemd-run")?;
        if !said.status.success() {
            let text = String::from_utf8_lossy(&said.stderr);
            bail!("`systemd-run` failed ({}): {}", said.status, text.trim());
        }
        Ok(Self {
            name,
            looked: Instant::now(),
        })
    }

    /// Whether it runs no more; as it was a moment ago, for a look is expensive.
    ///
    /// # Errors
    /// systemd does not answer.
    pub(super) async fn has_ended(&mut self) -> Result<bool> {
        if self.looked.elapsed() < LOOK {
            return Ok(false);
        }
        let active = self.systemctl(&["is-active", "--quiet"]).await?;
        self.looked = Instant::now();
        is_inactive(active.status.code()).with_context(|| {
            let text = String::from_utf8_lossy(&active.stderr);
            format!("`systemctl is-active` failed: {}", text.trim())
        })
    }

    /// # Errors
    /// systemd does not answer.
    pub(super) async fn kill(&self) -> Result<()> {
        // One that has ended meanwhile is what is wanted.
        self.systemctl(&["kill", "--signal=KILL"]).await.map(drop)
    }

    async fn systemctl(&self, words: &[&str]) -> Result<Output> {
        let mut command = Command::new("systemctl");
        command.args(words).arg(&self.name);
        answer(command).await.context("cannot run systemctl")
    }
}

/// What the exit code of `systemctl is-active` means (`systemctl(1)`); nothing where systemd itself
/// was not reached, and then a balancer that runs must not be taken for one that has ended.
fn is_inactive(code: Option<i32>) -> Option<bool> {
    match code {
        Some(0) => Some(false),
        // Not active, and no such unit: systemd forgets those that have ended.
        Some(3 | 4) => Some(true),
        _ => None,
    }
}

async fn answer(mut command: Command) -> Result<Output> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(DEADLINE, command.output()).await;
    Ok(output.with_context(|| format!("systemd does not answer within {DEADLINE:?}"))??)
}

#[cfg(test)]
mod tests {
    use super::is_inactive;

    #[test]
    fn a_systemd_that_is_not_reached_says_nothing() {
        for (code, inactive) in [
            (Some(0), Some(false)),
            (Some(3), Some(true)),
            (Some(4), Some(true)),
            (Some(1), None),
            (None, None),
        ] {
            assert_eq!(is_inactive(code), inactive, "{code:?}");
        }
    }
}
