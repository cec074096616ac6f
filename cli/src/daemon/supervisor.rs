//! The parent of a detached daemon: starts it again when it dies.
//!
//! Where systemd runs it does this. Elsewhere `init` and `join` start this process, and it
//! starts the daemon. It knows nothing of the node and holds nothing of it, so that there is
//! next to nothing in it to fail.
//!
//! ```text
//!             killed, or ended with an error
//!          ┌────────── pause ◀────────────┐
//!          ▼                              │
//!   start the daemon ──▶ wait for its end ┴──▶ ended on purpose ──▶ the end
//! ```
//!
//! On purpose is: `leave`, SIGTERM or SIGINT to the daemon, and SIGTERM or SIGINT to this
//! process, which passes it on. It also ends where its pid file is gone (somebody removed the
//! data directory) or another daemon has taken the directory. When it is killed itself with
//! signal 9 the daemon goes on alone.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio::time::Instant;

use super::store::{Layout, write_pid};
use super::{logging, settings};
use crate::args::DaemonFlags;

/// First and longest pause before the daemon is started again. The first is short because
/// managers elect another leader meanwhile; the longest keeps one that cannot run from
/// filling its log.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// A daemon that ran for this long has made up for the failures before.
const STABLE: Duration = Duration::from_secs(60);

/// An error this soon after the very first start is one of its settings: whoever started it
/// still waits for its answer, and is to be told instead of waiting for nothing.
const FIRST_START: Duration = Duration::from_secs(5);

/// Keeps a daemon running until it ends on purpose.
///
/// # Errors
/// It cannot be started at all.
pub(super) fn run(flags: &DaemonFlags, socket: &Path) -> Result<ExitCode> {
    // What ends the session of whoever started it must end neither this nor the daemon.
    rustix::process::setsid().context("cannot make a session of its own")?;
    let layout = Layout::new(settings::data_dir(flags));
    layout.create()?;
    write_pid(&layout.supervisor_pid(), std::process::id())?;
    logging::start();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(supervise(&layout, flags, socket));
    if is_ours(&layout) {
        // It is for people and scripts, and no more than that.
        let _ = std::fs::remove_file(layout.supervisor_pid());
    }
    result
}

async fn supervise(layout: &Layout, flags: &DaemonFlags, socket: &Path) -> Result<ExitCode> {
    let mut signals = Told {
        terminate: signal(SignalKind::terminate()).context("cannot listen to signals")?,
        interrupt: signal(SignalKind::interrupt()).context("cannot listen to signals")?,
    };
    let mut pauses = Pauses::default();
    let mut first = true;
    loop {
        let started = Instant::now();
        let mut daemon = start(flags, socket)?;
        let status = tokio::select! {
            status = daemon.wait() => status,
            () = signals.told() => {
                pass_on(&daemon);
                // However long the daemon takes: it is the one that has something to end.
                daemon.wait().await.context("cannot wait for the daemon")?;
                return Ok(ExitCode::SUCCESS);
            }
        };
        let status = status.context("cannot wait for the daemon")?;
        let lived = started.elapsed();
        if status.success() || (first && status.code().is_some() && lived < FIRST_START) {
            return Ok(exit_code(status));
        }
        first = false;
        let pause = pauses.after(lived);
        tracing::error!(%status, ?pause, "the daemon died; it is started again");
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = signals.told() => return Ok(ExitCode::SUCCESS),
        }
        if !is_ours(layout) {
            tracing::warn!("the supervisor's pid file is gone; the daemon is not started again");
            return Ok(ExitCode::SUCCESS);
        }
        if layout.lock().is_err() {
            tracing::warn!("another daemon has taken the data directory");
            return Ok(ExitCode::SUCCESS);
        }
    }
}

fn start(flags: &DaemonFlags, socket: &Path) -> Result<Child> {
    let program = std::env::current_exe().context("the path of this program is unknown")?;
    Command::new(program)
        .arg("daemon")
        .arg("--supervised")
        .arg("--socket")
        .arg(socket)
        .args(flags.to_args())
        .stdin(Stdio::null())
        .spawn()
        .context("cannot start the daemon")
}

/// Whether the pid file still names this process.
fn is_ours(layout: &Layout) -> bool {
    std::fs::read_to_string(layout.supervisor_pid())
        .is_ok_and(|text| text.trim().parse() == Ok(std::process::id()))
}

fn pass_on(daemon: &Child) {
    let pid = daemon.id().and_then(|pid| i32::try_from(pid).ok());
    if let Some(pid) = pid.and_then(Pid::from_raw) {
        // It may have ended at this very moment, which is what is wanted.
        let _ = kill_process(pid, Signal::TERM);
    }
}

/// The daemon's own code, as whoever started it would have seen it.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    code.and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from)
}

/// The signals that tell this process to end.
struct Told {
    terminate: Signals,
    interrupt: Signals,
}

impl Told {
    async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Pauses that grow while daemons die young.
#[derive(Default)]
struct Pauses {
    deaths: u32,
}

impl Pauses {
    fn after(&mut self, lived: Duration) -> Duration {
        if lived >= STABLE {
            self.deaths = 0;
        }
        let pause = PAUSE.0 * 2u32.saturating_pow(self.deaths.min(10));
        self.deaths = self.deaths.saturating_add(1);
        pause.min(PAUSE.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_forgotten_after_a_stable_run() {
        let mut pauses = Pauses::default();
        let young = Duration::from_secs(1);
        let first: Vec<u128> = (0..4).map(|_| pauses.after(young).as_millis()).collect();
        assert_eq!(first, [100, 200, 400, 800]);
        for _ in 0..100 {
            pauses.after(young);
        }
        assert_eq!(pauses.after(young), PAUSE.1);
        assert_eq!(pauses.after(STABLE), PAUSE.0);
    }
}
