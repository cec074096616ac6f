//! Nothing stays behind: processes, control groups and files of a test run.
//!
//! Every process that a run starts inherits the variable [`RUN_VARIABLE`] with
//! the run's name, so that it is recognised whoever its parent is by now, and
//! no process of anybody else is ever hit. Three occasions to clean up:
//!
//! - [`Hosts`](crate::Hosts) is dropped;
//! - the test process ends without that (a static, a panic that aborts,
//!   signal 9): `test-reaper` notices, see `src/bin/test-reaper.rs`;
//! - the reaper was killed, too: the next run finds the directory of a run
//!   whose process is dead, see [`remove_dead_runs`].

use std::{
    collections::HashSet,
    env, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal},
};

use crate::{
    process::{Process, processes},
    wait_until,
};

/// The environment variable that marks the processes of a run.
pub const RUN_VARIABLE: &str = "SWARMLET_TEST_RUN";

/// Processes killed by signal 9 are gone at once, unless the disk is slow to
/// take what they had written.
const KILL_LIMIT: Duration = Duration::from_secs(20);

/// Where runs have their directories, each named `PID-STARTTIME-NUMBER`.
#[must_use]
pub fn runs_directory() -> PathBuf {
    env::temp_dir().join("swarmlet-hosts")
}

/// Control group, below each hierarchy's root, of a run's containers; each
/// host has one below it, with its name.
#[must_use]
pub fn control_group(run: &str) -> String {
    format!("swarmlet-test-{run}")
}

/// Kills what a run left and removes its control groups and its directory.
/// Does nothing for a run that is gone.
///
/// # Errors
///
/// When a process does not die or a file cannot be removed.
pub fn remove_run(directory: &Path) -> Result<()> {
    let run = directory
        .file_name()
        .and_then(|name| name.to_str())
        .context("no run's directory")?;
    kill_until_gone(&format!("processes of run {run}"), || remaining(run))?;
    for group in control_groups(&control_group(run))? {
        remove_groups(&group).with_context(|| format!("cannot remove {}", group.display()))?;
    }
    ignore_absence(fs::remove_dir_all(directory))
        .with_context(|| format!("cannot remove {}", directory.display()))
}

/// Removes the runs whose process has ended, and which nobody cleaned up.
///
/// # Errors
///
/// As [`remove_run`].
pub fn remove_dead_runs() -> Result<()> {
    let entries = match fs::read_dir(runs_directory()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for entry in entries {
        let directory = entry?.path();
        if owner(&directory).is_some_and(|alive| !alive) {
            eprintln!(
                "hosts: removing {}, its test has ended",
                directory.display()
            );
            remove_run(&directory)?;
        }
    }
    Ok(())
}

/// The processes that belong to a run: those with its mark, those in their
/// networks, those in its control groups, and the descendants of all of them.
/// The dead that wait for their parent do not count.
///
/// # Errors
///
/// When `/proc` cannot be read.
pub fn remaining(run: &str) -> Result<Vec<Process>> {
    let all = processes()?;
    let own = getpid();
    // Networks that are not the run's: a marked process is in one for the
    // moment before `nsenter` has moved it.
    let outside: HashSet<u64> = all
        .iter()
        .filter(|process| process.pid == own || process.pid == Pid::INIT)
        .filter_map(|process| process.network)
        .collect();
    let marked = |process: &&Process| process.was_started_with(RUN_VARIABLE, run);
    let networks: HashSet<u64> = all
        .iter()
        .filter(marked)
        .filter_map(|process| process.network)
        .filter(|network| !outside.contains(network))
        .collect();
    let grouped = grouped(&control_group(run))?;

    let mut found: HashSet<Pid> = all
        .iter()
        .filter(|process| {
            marked(process)
                || process
                    .network
                    .is_some_and(|network| networks.contains(&network))
                || grouped.contains(&process.pid.as_raw_nonzero().get())
        })
        .map(|process| process.pid)
        .collect();
    loop {
        let before = found.len();
        let children = all.iter().filter(|process| {
            Pid::from_raw(process.parent).is_some_and(|parent| found.contains(&parent))
        });
        found.extend(children.map(|process| process.pid).collect::<Vec<_>>());
        if found.len() == before {
            break;
        }
    }
    found.remove(&own);
    Ok(all
        .into_iter()
        .filter(|process| found.contains(&process.pid) && !process.zombie)
        .collect())
}

/// The processes in a control group, in all of its hierarchies, and in those below it.
pub(crate) fn group_members(name: &str) -> Result<Vec<Process>> {
    let members = grouped(name)?.into_iter().filter_map(Pid::from_raw);
    Ok(members
        .filter_map(Process::read)
        .filter(|process| !process.zombie)
        .collect())
}

/// Kills what `find` finds, again and again: a supervisor may start a process
/// between the look and the kill.
pub(crate) fn kill_until_gone(
    what: &str,
    mut find: impl FnMut() -> Result<Vec<Process>>,
) -> Result<()> {
    wait_until(KILL_LIMIT, &format!("end of {what}"), || {
        let found = find()?;
        for process in &found {
            signal(process, Signal::KILL)?;
        }
        let names: Vec<_> = found
            .iter()
            .map(|process| format!("{} {}", process.pid.as_raw_nonzero(), process.name))
            .collect();
        anyhow::ensure!(names.is_empty(), "still there: {}", names.join(", "));
        Ok(Some(()))
    })
}

/// Sends a signal to exactly this process; one that has ended is fine, and
/// another that got its number meanwhile is left alone.
pub(crate) fn signal(process: &Process, signal: Signal) -> Result<()> {
    let handle = match pidfd_open(process.pid, PidfdFlags::empty()) {
        Ok(handle) => handle,
        Err(Errno::SRCH) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if Process::read(process.pid).is_none_or(|now| now.start_time != process.start_time) {
        return Ok(());
    }
    match pidfd_send_signal(handle, signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether the process that a run's directory is named after is alive; none
/// for a directory with another sort of name.
fn owner(directory: &Path) -> Option<bool> {
    let mut parts = directory.file_name()?.to_str()?.split('-');
    let pid = Pid::from_raw(parts.next()?.parse().ok()?)?;
    let start_time: u64 = parts.next()?.parse().ok()?;
    Some(
        Process::read(pid)
            .is_some_and(|process| process.start_time == start_time && !process.zombie),
    )
}

/// A control group in every hierarchy where it is: one in version 2, one per
/// controller in version 1.
fn control_groups(name: &str) -> Result<Vec<PathBuf>> {
    let root = Path::new("/sys/fs/cgroup");
    let mut roots = vec![root.to_owned()];
    for entry in fs::read_dir(root)? {
        roots.push(entry?.path());
    }
    Ok(roots
        .into_iter()
        .map(|root| root.join(name))
        .filter(|group| group.is_dir())
        .collect())
}

/// Process ids in a control group and those below.
fn grouped(name: &str) -> Result<HashSet<i32>> {
    let mut found = HashSet::new();
    let mut groups = control_groups(name)?;
    while let Some(group) = groups.pop() {
        // A group may vanish while it is read: then nothing is in it.
        let members = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        found.extend(members.lines().filter_map(|line| line.parse::<i32>().ok()));
        groups.extend(subdirectories(&group));
    }
    Ok(found)
}

fn remove_groups(group: &Path) -> io::Result<()> {
    for below in subdirectories(group) {
        remove_groups(&below)?;
    }
    ignore_absence(fs::remove_dir(group))
}

fn subdirectories(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn ignore_absence(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            Ok(())
        } else {
            Err(error)
        }
    })
}
