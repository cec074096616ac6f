//! The command line's side of the daemon's life: `init` and `join` start one where none
//! answers, and `leave` waits for its end.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::time::Instant;

use super::settings::data_dir;
use super::store::{Layout, open_log};
use crate::args::DaemonFlags;
use crate::client::{Client, ClientError};
use crate::install::settings;

/// Time for a daemon to answer on its socket. It does so within tens of milliseconds, before
/// it brings its node back.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// Time for a daemon to end: it stops its servers, which takes them a second at most.
const END_DEADLINE: Duration = Duration::from_secs(10);

/// Pause between two looks.
const POLL: Duration = Duration::from_millis(20);

/// The systemd unit that packages install.
const UNIT: &str = "swarmlet.service";

/// Whether a daemon had to be started.
#[derive(Debug)]
pub(crate) enum Started {
    /// It ran before.
    Before,
    /// By systemd.
    Systemd,
    /// As a detached process.
    Detached {
        /// Its process.
        pid: u32,
    },
}

/// Connects to the daemon; starts it where none answers.
///
/// # Errors
/// It cannot be started, or does not answer.
pub(crate) async fn ensure(socket: &Path, flags: &DaemonFlags) -> Result<(Client, Started)> {
    match Client::connect(socket).await {
        Ok(client) => {
            warn_of_settings(flags);
            return Ok((client, Started::Before));
        }
        Err(ClientError::NoDaemon(_)) => {}
        Err(error) => return Err(error.into()),
    }
    if systemd_has_unit() {
        // systemd starts the daemon without our flags and without our environment.
        for line in settings::keep(&flags.to_environment())? {
            eprintln!("Wrote {line} to {}.", settings::PATH);
        }
        eprintln!("Starting the swarmlet daemon (systemctl start {UNIT}).");
        let status = Command::new("systemctl").arg("start").arg(UNIT).status();
        if !status.context("cannot run systemctl")?.success() {
            bail!("systemd could not start {UNIT}: see journalctl -u {UNIT}");
        }
        let client = wait_for_answer(socket, || Ok(None)).await?;
        return Ok((client, Started::Systemd));
    }
    let (mut child, log) = spawn(socket, flags)?;
    let pid = child.id();
    eprintln!(
        "Started the swarmlet daemon (pid {pid}, log {}).",
        log.display()
    );
    let client = wait_for_answer(socket, || {
        let ended = child.try_wait().context("cannot watch the daemon")?;
        Ok(ended.map(|status| match last_line(&log) {
            Some(line) => format!("the daemon ended at once: {line}"),
            None => format!("the daemon ended at once ({status}): see {}", log.display()),
        }))
    })
    .await?;
    Ok((client, Started::Detached { pid }))
}

/// A daemon that runs has its settings, and is not restarted behind the user's back.
fn warn_of_settings(flags: &DaemonFlags) {
    let ignored = flags.named_environment();
    if ignored.is_empty() {
        return;
    }
    let lines = settings::lines(&ignored);
    let remedy = if systemd_has_unit() {
        format!(
            "put {lines} into {} and run `systemctl restart {UNIT}`",
            settings::PATH
        )
    } else {
        format!("restart it with {lines} in its environment")
    };
    eprintln!(
        "WARNING: the daemon runs already, and its own settings hold: to change them, {remedy}"
    );
}

fn systemd_has_unit() -> bool {
    Path::new("/run/systemd/system").is_dir()
        && Command::new("systemctl")
            .args(["cat", UNIT])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
}

fn spawn(socket: &Path, flags: &DaemonFlags) -> Result<(std::process::Child, PathBuf)> {
    let program = std::env::current_exe().context("the path of this program is unknown")?;
    let layout = Layout::new(data_dir(flags));
    layout.create()?;
    let path = layout.daemon_log();
    let log: File = open_log(&path)?;
    let child = Command::new(program)
        .arg("daemon")
        .arg("--detached")
        .arg("--socket")
        .arg(std::path::absolute(socket).context("the socket's path is unusable")?)
        .args(flags.to_args())
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("cannot open the daemon's log")?)
        .stderr(log)
        .spawn()
        .context("cannot start the daemon")?;
    Ok((child, path))
}

/// The last line of a log that has words in it.
fn last_line(log: &Path) -> Option<String> {
    let text = std::fs::read_to_string(log).ok()?;
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(line.strip_prefix("Error: ").unwrap_or(line).to_owned())
}

async fn wait_for_answer(
    socket: &Path,
    mut failure: impl FnMut() -> Result<Option<String>>,
) -> Result<Client> {
    let deadline = Instant::now() + START_DEADLINE;
    loop {
        match Client::connect(socket).await {
            Ok(client) => return Ok(client),
            Err(ClientError::NoDaemon(_)) => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(failure) = failure()? {
            bail!(failure);
        }
        if Instant::now() > deadline {
            bail!(
                "the daemon does not answer within {} s",
                START_DEADLINE.as_secs()
            );
        }
        tokio::time::sleep(POLL).await;
    }
}

impl Started {
    /// Ends a daemon that was started in vain; one that ran before, or that systemd keeps, stays.
    pub(crate) async fn undo(self, socket: &Path) {
        let Self::Detached { pid } = self else {
            return;
        };
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            // It may have ended by itself, which is what is wanted.
            let _ = kill_process(pid, Signal::TERM);
        }
        wait_for_end(socket, pid).await;
        eprintln!("Stopped the swarmlet daemon again (pid {pid}).");
    }
}

/// Waits until the daemon has ended, where it is one that ends by itself after `leave`; returns
/// at once for one that stays.
pub(crate) async fn wait_for_end(socket: &Path, pid: u32) {
    let Some(process) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return;
    };
    let deadline = Instant::now() + END_DEADLINE;
    while Instant::now() < deadline {
        let alive = test_kill_process(process).is_ok() && !is_zombie(pid);
        if !alive || !is_ending(socket).await {
            return;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Whether the process has ended, and only waits for its parent to look.
fn is_zombie(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| rest.trim_start().starts_with('Z'))
}

/// Whether the daemon is one that is about to end: it says so, or does not answer any more.
async fn is_ending(socket: &Path) -> bool {
    let Ok(client) = Client::connect(socket).await else {
        return true;
    };
    match client.info().await {
        Ok(info) => info.state == "ending",
        Err(_) => true,
    }
}
