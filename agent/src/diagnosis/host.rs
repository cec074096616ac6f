//! What the node sees of itself: disks, the engine, descriptors.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use swarmlet_core::diagnosis::{DescriptorUse, DiskSpace, Observation};
use swarmlet_core::model::DiskUser;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;

use super::Watched;
use crate::runtime::{Runtime, RuntimeError};

/// How often it looks. A log that runs wild writes a gigabyte in ten seconds.
const INTERVAL: Duration = Duration::from_secs(1);

/// An engine that takes longer to say that it is there hangs.
const ENGINE_DEADLINE: Duration = Duration::from_secs(2);

/// How long a look at disks and processes may take; a disk that hangs must not keep the engine
/// from being looked at.
const LOOK_DEADLINE: Duration = Duration::from_secs(2);

/// Looks around.
pub(super) struct Host {
    runtime: Arc<dyn Runtime>,
    watched: Watched,
    /// Whether the engine's own folder is among the disks already.
    engine_known: bool,
}

impl Host {
    /// Looks from now on, until `stop`.
    pub(super) fn start(
        runtime: Arc<dyn Runtime>,
        watched: Watched,
        stop: CancellationToken,
    ) -> watch::Receiver<Observation> {
        let (sender, receiver) = watch::channel(Observation::default());
        let mut host = Self {
            runtime,
            watched,
            engine_known: false,
        };
        tokio::spawn(async move {
            let mut clock = tokio::time::interval(INTERVAL);
            clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    _ = clock.tick() => {}
                }
                let before = sender.borrow().clone();
                let now = tokio::select! {
                    () = stop.cancelled() => return,
                    now = host.look(before) => now,
                };
                sender.send_replace(now);
            }
        });
        receiver
    }

    async fn look(&mut self, before: Observation) -> Observation {
        let watched = self.watched.clone();
        let looking = tokio::task::spawn_blocking(move || (disks(&watched), descriptors(&watched)));
        let (engine, looked) = tokio::join!(self.engine(), timeout(LOOK_DEADLINE, looking));
        let (disks, descriptors) = match looked {
            Ok(Ok(found)) => found,
            // What was seen last is the best that is known.
            Ok(Err(_)) | Err(_) => (before.disks, before.descriptors),
        };
        if engine.is_none() && !self.engine_known {
            self.find_engine().await;
        }
        Observation {
            failing: Vec::new(),
            disks,
            descriptors,
            engine,
        }
    }

    /// Why the engine does not answer; `None` while it does.
    async fn engine(&self) -> Option<String> {
        match timeout(ENGINE_DEADLINE, self.runtime.alive()).await {
            Ok(Ok(())) => None,
            Ok(Err(RuntimeError::Unavailable(reason) | RuntimeError::Refused(reason))) => {
                Some(reason)
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {} s", ENGINE_DEADLINE.as_secs())),
        }
    }

    /// Adds the engine's own folder to the disks, once it has told where that is.
    async fn find_engine(&mut self) {
        let Ok(Ok(engine)) = timeout(ENGINE_DEADLINE, self.runtime.describe()).await else {
            return;
        };
        self.engine_known = true;
        // An engine on another machine, or in another view of the disks, is not ours to watch.
        if let Some(path) = engine.storage.filter(|path| path.is_dir()) {
            self.watched.disks.push((DiskUser::Engine, path));
        }
    }
}

/// Free space, once for each disk: the first that lives on it is named.
fn disks(watched: &Watched) -> Vec<DiskSpace> {
    let mut seen = Vec::new();
    let mut disks = Vec::new();
    for (user, path) in &watched.disks {
        let Ok(found) = rustix::fs::statvfs(path) else {
            continue;
        };
        // Some filesystems have no number; those are told apart by their path.
        let same = found.f_fsid != 0 && seen.contains(&found.f_fsid);
        if same {
            continue;
        }
        seen.push(found.f_fsid);
        disks.push(DiskSpace {
            user: *user,
            path: path.display().to_string(),
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
        });
    }
    disks
}

fn descriptors(watched: &Watched) -> Vec<DescriptorUse> {
    let mut found = Vec::new();
    found.extend(used("daemon", Path::new("/proc/self")));
    for (name, pid_file) in &watched.processes {
        let pid = fs::read_to_string(pid_file).unwrap_or_default();
        if let Ok(pid) = pid.trim().parse::<u32>() {
            found.extend(used(name, &PathBuf::from(format!("/proc/{pid}"))));
        }
    }
    found
}

/// The descriptors of a process; `None` where it has ended or is not ours to look at.
fn used(name: &str, process: &Path) -> Option<DescriptorUse> {
    let limit = if process == Path::new("/proc/self") {
        // Without a descriptor to spare no file can be read.
        rustix::process::getrlimit(rustix::process::Resource::Nofile).current?
    } else {
        limit(&fs::read_to_string(process.join("limits")).ok()?)?
    };
    let folder = process.join("fd");
    // Newer kernels tell the number as the folder's size, which needs no descriptor.
    let open = match fs::metadata(&folder).map(|found| found.len()) {
        Ok(0) => match fs::read_dir(&folder) {
            Ok(entries) => entries.count() as u64,
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => {
                limit
            }
            Err(_) => return None,
        },
        Ok(open) => open,
        Err(_) => return None,
    };
    Some(DescriptorUse {
        process: name.to_owned(),
        open,
        limit,
    })
}

/// The soft limit in `/proc/PID/limits`; `None` where there is none.
fn limit(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_counted_against_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let before = used("daemon", Path::new("/proc/self")).unwrap();
        let held: Vec<_> = (0..50)
            .map(|_| fs::File::open(dir.path()).unwrap())
            .collect();
        let own = format!("/proc/{}", std::process::id());
        let after = used("balancer", Path::new(&own)).unwrap();
        // Tests beside this one open files, too.
        assert!(after.open + 20 > before.open + 50, "{before:?} {after:?}");
        assert_eq!(after.limit, before.limit);
        drop(held);
        assert_eq!(used("gone", Path::new("/proc/0")), None);
        let limits = "Limit  Soft Limit  Hard Limit  Units\n\
            Max open files            1024                 524288               files     \n";
        assert_eq!(limit(limits), Some(1024));
    }

    #[test]
    fn a_disk_is_looked_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let watched = Watched {
            disks: vec![
                (DiskUser::State, dir.path().to_owned()),
                (DiskUser::Engine, dir.path().to_owned()),
                (DiskUser::Engine, dir.path().join("missing")),
            ],
            processes: Vec::new(),
        };
        let found = disks(&watched);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].user, DiskUser::State);
        assert!(found[0].total_bytes > found[0].free_bytes);
    }
}
