//! The balancer as a process: how it is started, and what it runs.

use std::net::IpAddr;
use std::process::Stdio;

use anyhow::{Context, Result};
use swarmlet_lb::standalone::Start;
use tokio::process::{Child, Command};

use crate::args::LbArgs;
use crate::daemon::logging;
use crate::daemon::store::{Layout, open_log};

/// Starts a balancer that goes on when this process ends.
pub(super) fn spawn(layout: &Layout, ingress: &[IpAddr]) -> Result<Child> {
    let program = std::env::current_exe().context("the path of this program is unknown")?;
    let log = open_log(&layout.lb_log())?;
    let mut command = Command::new(program);
    command
        .arg("lb")
        .arg("--detached")
        .arg("--control")
        .arg(layout.lb_socket());
    for address in ingress {
        command.arg("--ingress-addr").arg(address.to_string());
    }
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("cannot open the balancer's log")?)
        .stderr(log)
        .spawn()
        .context("cannot start the balancer")
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
