//! `install` and `uninstall`: the program, its systemd units and its settings on this machine.
//!
//! Both may be repeated, and the Debian package does the same by dpkg's means; the files of
//! both are in `packaging/`. Start reading at [`install`]; what is written where is in
//! [`files`], and how a node is brought to rest in [`halt`].

mod files;
pub(crate) mod halt;
pub(crate) mod settings;
mod systemd;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::args::{InstallArgs, UninstallArgs};
use crate::daemon::store::Layout;
use crate::output::print;
use files::{Change, Files};
use halt::Halted;

/// Puts the program, its units and its settings in place, and starts the daemon.
///
/// # Errors
/// What is to be said to the user.
pub(crate) async fn install(args: &InstallArgs) -> Result<()> {
    let files = Files::of_this_machine();
    let own = std::env::current_exe().context("the path of this program is unknown")?;
    let program = files.program_for(&own);
    if args.print {
        return print(&files.describe(&program)).map_err(Into::into);
    }
    need_root("install")?;
    if let Some(unit) = files.packaged_unit() {
        bail!(
            "a package has installed swarmlet already ({}): upgrade that, or remove it first",
            unit.display()
        );
    }
    if !systemd::runs() {
        bail!(
            "systemd does not run on this machine: let your own supervisor run `{} daemon`, or \
             leave it to `swarmlet init` and `swarmlet join`, which start a daemon where none runs",
            own.display()
        );
    }
    let mut changes = vec![files.place_program(&own, &program)?];
    changes.push(files.place_unit(&program)?);
    changes.push(files.place_lb()?);
    changes.push(files.place_settings()?);
    for change in &changes {
        print(&format!("{change}\n"))?;
    }
    systemd::run(&["daemon-reload"])?;
    systemd::run(&["--quiet", "enable", systemd::UNIT])?;
    if args.no_start {
        print("Enabled: it starts with the machine, or by `systemctl start swarmlet`.\n")?;
        return Ok(());
    }
    start(&files, &changes[..2]).await?;
    print("The swarmlet daemon runs. Next: `swarmlet init`, or `swarmlet join`.\n")?;
    Ok(())
}

/// Starts the unit, or restarts it where the program or the unit are new.
async fn start(files: &Files, changes: &[Change]) -> Result<()> {
    if systemd::is_active() {
        if changes.iter().any(Change::is_one) {
            systemd::run(&["restart", systemd::UNIT])?;
        }
        return Ok(());
    }
    // A daemon that `init` or `join` has started has the data directory: systemd takes over.
    let layout = layout(files)?;
    if let Some(pid) = halt::stop_daemon(&layout).await? {
        print(&format!(
            "Stopped the daemon that ran without systemd (pid {pid}); its tasks and the balancer go on.\n"
        ))?;
    }
    systemd::run(&["start", systemd::UNIT])
}

/// Takes away what [`install`] put in place.
///
/// # Errors
/// What is to be said to the user.
pub(crate) async fn uninstall(args: &UninstallArgs) -> Result<()> {
    need_root("uninstall")?;
    let files = Files::of_this_machine();
    let installed = files.installed_program()?;
    if installed.is_none()
        && let Some(unit) = files.packaged_unit()
    {
        bail!(
            "a package has installed swarmlet ({}): remove that (apt-get remove swarmlet)",
            unit.display()
        );
    }
    let layout = layout(&files)?;
    if args.purge && !args.force && layout.root().is_dir() && layout.load()?.is_some() {
        bail!(
            "this node belongs to a swarm, and a purge removes its part of the swarm's state: \
             run `swarmlet leave` first, or use --force to suppress this message"
        );
    }
    if installed.is_some() && systemd::runs() {
        systemd::run(&["--quiet", "disable", "--now", systemd::UNIT])?;
    }
    // What cannot be stopped must not keep the rest installed for ever.
    match halt::halt(&layout).await {
        Ok(halted) => print(&halted.to_string())?,
        Err(error) => eprintln!("WARNING: not everything of this node has stopped: {error:#}"),
    }
    files.remove_socket_dir();
    for removed in files.remove_program_and_units(installed.as_deref())? {
        print(&format!("Removed {}\n", removed.display()))?;
    }
    if systemd::runs() {
        systemd::run(&["daemon-reload"])?;
    }
    if args.purge {
        for removed in files.purge(layout.root())? {
            print(&format!("Removed {}\n", removed.display()))?;
        }
    } else {
        let kept = files.kept(layout.root());
        if !kept.is_empty() {
            print(&format!("Kept {} (--purge removes it).\n", list(&kept)))?;
        }
    }
    Ok(())
}

/// `swarmlet halt`: ends everything of this machine's node and keeps its state. A package calls
/// it when it is removed.
///
/// # Errors
/// Something does not end.
pub(crate) async fn halt() -> Result<()> {
    need_root("halt")?;
    let halted: Halted = halt::halt(&layout(&Files::of_this_machine())?).await?;
    print(&halted.to_string())?;
    Ok(())
}

/// The data directory of the installed daemon.
fn layout(files: &Files) -> Result<Layout> {
    Ok(Layout::new(files.data_dir()?))
}

fn need_root(command: &str) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let print = match command {
        "install" => "; `swarmlet install --print` shows what it would write",
        _ => "",
    };
    bail!("`swarmlet {command}` must be run as root (try sudo){print}")
}

fn list(paths: &[PathBuf]) -> String {
    let names: Vec<_> = paths.iter().map(|path: &PathBuf| show(path)).collect();
    names.join(", ")
}

fn show(path: &Path) -> String {
    path.display().to_string()
}
