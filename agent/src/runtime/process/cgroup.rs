//! Limits of a plain process: control groups, where there are some that this program may write.
//!
//! The agent makes a task's groups, so that it can say why where it may not. The command enters
//! them itself, before it becomes what it is to run (see [`super::shim`]): entered from outside,
//! it would already have started something that stays out.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use swarmlet_core::model::{Resources, TaskId};

/// Where Linux has them.
const ROOT: &str = "/sys/fs/cgroup";

/// All groups of tasks are below this one.
const PARENT: &str = "swarmlet";

/// CPU time is dealt out by this period, the kernel's own default.
const PERIOD_US: u64 = 100_000;

/// The kernel takes no smaller share of a period.
const LEAST_QUOTA_US: u64 = 1000;

/// How often and how far apart the removal of a group is tried: what has just been killed may
/// still be in it.
const TRIES: u32 = 25;
const PAUSE: Duration = Duration::from_millis(20);

/// Makes the groups of a task with its limits; none where nothing is limited.
///
/// # Errors
/// The system's, with the path. Nothing is left then.
pub(super) fn make(task: &TaskId, limits: &Resources) -> io::Result<Vec<PathBuf>> {
    let root = Path::new(ROOT);
    let mut made = Vec::new();
    let result = if root.join("cgroup.controllers").exists() {
        unified(root, task, limits, &mut made)
    } else {
        separate(root, task, limits, &mut made)
    };
    match result {
        Ok(()) => Ok(made),
        Err(error) => {
            remove(&made);
            Err(error)
        }
    }
}

/// Puts this process into groups.
///
/// # Errors
/// The system's.
pub(super) fn enter(groups: &[PathBuf]) -> io::Result<()> {
    // Zero stands for whoever writes it.
    groups
        .iter()
        .try_for_each(|group| write(&group.join("cgroup.procs"), "0"))
}

/// Removes groups that nothing is in any more.
pub(super) fn remove(groups: &[PathBuf]) {
    for group in groups {
        for _ in 0..TRIES {
            match fs::remove_dir(group) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(PAUSE);
                }
                // Gone, or not ours to remove: an empty group costs nothing.
                _ => break,
            }
        }
    }
}

/// Version 2: one group with a file for each limit.
fn unified(
    root: &Path,
    task: &TaskId,
    limits: &Resources,
    made: &mut Vec<PathBuf>,
) -> io::Result<()> {
    let settings = [
        (
            "cpu",
            "cpu.max",
            quota(limits).map(|q| format!("{q} {PERIOD_US}")),
        ),
        ("memory", "memory.max", amount(limits.memory_bytes)),
        ("pids", "pids.max", amount(limits.pids)),
    ];
    let parent = root.join(PARENT);
    let group = parent.join(task.as_str());
    for (controller, file, value) in settings {
        let Some(value) = value else { continue };
        if made.is_empty() {
            fs::create_dir_all(&group).map_err(|error| within(&group, &error))?;
            made.push(group.clone());
        }
        for above in [root, &parent] {
            write(
                &above.join("cgroup.subtree_control"),
                &format!("+{controller}"),
            )?;
        }
        write(&group.join(file), &value)?;
    }
    Ok(())
}

/// Version 1: a tree of its own for each kind of limit.
fn separate(
    root: &Path,
    task: &TaskId,
    limits: &Resources,
    made: &mut Vec<PathBuf>,
) -> io::Result<()> {
    let period = || Some(PERIOD_US.to_string());
    let settings = [
        (
            "cpu",
            "cpu.cfs_period_us",
            quota(limits).and_then(|_| period()),
        ),
        (
            "cpu",
            "cpu.cfs_quota_us",
            quota(limits).map(|q| q.to_string()),
        ),
        (
            "memory",
            "memory.limit_in_bytes",
            amount(limits.memory_bytes),
        ),
        ("pids", "pids.max", amount(limits.pids)),
    ];
    for (controller, file, value) in settings {
        let Some(value) = value else { continue };
        let group = root.join(controller).join(PARENT).join(task.as_str());
        if !made.contains(&group) {
            fs::create_dir_all(&group).map_err(|error| within(&group, &error))?;
            made.push(group.clone());
        }
        write(&group.join(file), &value)?;
    }
    Ok(())
}

fn quota(limits: &Resources) -> Option<u64> {
    let quota = u128::from(limits.nano_cpus) * u128::from(PERIOD_US) / 1_000_000_000;
    let quota = u64::try_from(quota).unwrap_or(u64::MAX).max(LEAST_QUOTA_US);
    (limits.nano_cpus != 0).then_some(quota)
}

fn amount(limit: u64) -> Option<String> {
    (limit != 0).then(|| limit.to_string())
}

fn write(path: &Path, value: &str) -> io::Result<()> {
    fs::write(path, value).map_err(|error| within(path, &error))
}

fn within(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_a_period() {
        let of = |nano_cpus| {
            quota(&Resources {
                nano_cpus,
                ..Resources::default()
            })
        };
        assert_eq!(of(0), None);
        assert_eq!(of(500_000_000), Some(50_000));
        assert_eq!(of(2_500_000_000), Some(250_000));
        assert_eq!(of(1), Some(LEAST_QUOTA_US));
        assert_eq!(of(u64::MAX), Some(1_844_674_407_370_955));
    }

    #[test]
    fn files_of_version_2_are_written_where_they_belong() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Resources {
            nano_cpus: 1_500_000_000,
            pids: 20,
            ..Resources::default()
        };
        let mut made = Vec::new();
        unified(dir.path(), &TaskId::from_random(5), &limits, &mut made).unwrap();
        let group = dir.path().join("swarmlet/0000000000000000000000005");
        assert_eq!(made, std::slice::from_ref(&group));
        let read = |path: PathBuf| fs::read_to_string(path).unwrap();
        assert_eq!(read(group.join("cpu.max")), "150000 100000");
        assert_eq!(read(group.join("pids.max")), "20");
        assert!(!group.join("memory.max").exists());
        // A real one takes each of them; a plain file keeps the last.
        assert_eq!(read(dir.path().join("cgroup.subtree_control")), "+pids");
    }
}
