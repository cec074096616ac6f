//! The balancer as a process: how it is started, and what it runs.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result};
use swarmlet_lb::standalone::Start;
use tokio::process::{Child, Command};

use super::link::Launch;
use super::unit::Unit;
use crate::args::LbArgs;
use crate::daemon::logging;
use crate::daemon::store::open_log;

/// A balancer that was told to start.
pub(super) enum Process {
    /// A child, for as long as this process lives.
    Child(Child),
    /// What systemd runs.
    Unit(Unit),
}

/// Starts a balancer that goes on when this process ends.
///
/// # Errors
/// It cannot be started.
pub(super) async fn start(launch: &Launch) -> Result<Process> {
    if launch.in_unit {
        let log = launch.layout.lb_log();
        match Unit::start(&program()?, &arguments(launch), &log).await {
            Ok(unit) => return Ok(Process::Unit(unit)),
            // Better a mesh in the daemon's unit than none.
            Err(error) => tracing::warn!(
                error = format!("{error:#}"),
                "the balancer gets no unit of its own"
            ),
        }
    }
    Ok(Process::Child(spawn(launch)?))
}

fn spawn(launch: &Launch) -> Result<Child> {
    let log = open_log(&launch.layout.lb_log())?;
    Command::new(program()?)
        .args(arguments(launch))
        .arg("--detached")
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("cannot open the balancer's log")?)
        .stderr(log)
        .spawn()
        .context("cannot start the balancer")
}

fn program() -> Result<PathBuf> {
    std::env::current_exe().context("the path of this program is unknown")
}

fn arguments(launch: &Launch) -> Vec<OsString> {
    let mut words = vec!["lb".into(), "--control".into()];
    words.push(launch.layout.lb_socket().into());
    for address in &launch.ingress {
        words.push("--ingress-addr".into());
        words.push(address.to_string().into());
    }
    words
}

impl Process {
    /// How it has ended, if it has.
    ///
    /// # Errors
    /// Nobody says.
    pub(super) async fn ended(&mut self) -> Result<Option<String>> {
        match self {
            Self::Child(child) => {
                let status = child.try_wait().context("cannot wait for the balancer")?;
                Ok(status.map(|status| status.to_string()))
            }
            Self::Unit(unit) => {
                let ended = unit.has_ended().await?;
                Ok(ended.then(|| "as systemd says".to_owned()))
            }
        }
    }

    /// # Errors
    /// The system refuses.
    pub(super) async fn kill(&mut self) -> Result<()> {
        match self {
            Self::Child(child) => child.start_kill().map_err(Into::into),
            Self::Unit(unit) => unit.kill().await,
        }
    }

    /// Lets it go its own way.
    pub(super) fn release(self) {
        // A child is waited for, so that it leaves no zombie.
        if let Self::Child(mut child) = self {
            tokio::spawn(async move {
                match child.wait().await {
                    Ok(status) => tracing::info!(%status, "the balancer's process ended"),
                    Err(error) => tracing::warn!(%error, "cannot wait for the balancer"),
                }
            });
        }
    }
}

/// `swarmlet lb`: runs a balancer until it is told to end, by a file or for a daemon.
///
/// # Errors
/// It cannot begin.
pub(crate) fn run(args: &LbArgs) -> Result<()> {
    if args.detached {
        // What ends the daemon's session (a terminal that closes, Ctrl-C) must not end this.
        rustix::process::setsid().context("cannot make a session of its own")?;
    }
    logging::start();
    // Bytes are the balancer's own threads' business; this runtime has the control socket.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    if let Some(file) = &args.config {
        let start = if args.takeover {
            Start::TakeOver
        } else {
            Start::Alone
        };
        runtime.block_on(swarmlet_lb::standalone::run(file, start))?;
    }
    if let Some(control) = &args.control {
        let mut config = swarmlet_lb::Config::new(control);
        if !args.ingress_addr.is_empty() {
            config.ingress.clone_from(&args.ingress_addr);
        }
        runtime.block_on(swarmlet_lb::run(config))?;
    }
    Ok(())
}
