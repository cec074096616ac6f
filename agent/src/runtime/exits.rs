//! Notices the end of a container's process before the engine tells of it.
//!
//! An engine first cleans up after a container and then tells that it died, which takes it a
//! few hundred milliseconds; clients would be sent there meanwhile. The kernel tells at once.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::stream::{BoxStream, StreamExt};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use swarmlet_core::model::TaskId;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

use super::{Container, RuntimeEvent};

/// Events that a reader may be behind; one that is further behind is told to look at all.
const BACKLOG: usize = 256;

/// Watches the processes of containers. Clones share what they watch.
#[derive(Debug, Clone)]
pub(super) struct Exits {
    events: broadcast::Sender<TaskId>,
    watched: Arc<Mutex<BTreeMap<String, Watched>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Watched {
    pid: u32,
    ended: bool,
}

impl Default for Exits {
    fn default() -> Self {
        Self {
            events: broadcast::channel(BACKLOG).0,
            watched: Arc::default(),
        }
    }
}

impl Exits {
    /// Watches a container that runs, and forgets one that does not.
    pub(super) fn observe(&self, container: &Container) {
        let mut watched = self.lock();
        if !container.is_running() {
            watched.remove(&container.id);
            return;
        }
        let pid = container.pid;
        let known = watched.get(&container.id).map(|watched| watched.pid);
        if known == Some(pid) || !is_of(pid, &container.id) {
            return;
        }
        let Some(process) = descriptor(pid) else {
            return;
        };
        watched.insert(container.id.clone(), Watched { pid, ended: false });
        let (exits, id, task) = (self.clone(), container.id.clone(), container.task.clone());
        tokio::spawn(async move {
            if let Err(error) = process.readable().await.map(|_| ()) {
                tracing::debug!(%error, "a process descriptor cannot be waited for");
                return;
            }
            let running = Watched { pid, ended: false };
            if let Some(watched) = exits.lock().get_mut(&id).filter(|found| **found == running) {
                watched.ended = true;
                // Without a reader there is nobody to tell; the next one lists everything.
                let _unread = exits.events.send(task);
            }
        });
    }

    /// Whether the process that the engine says runs is known to have ended.
    pub(super) fn contradicts(&self, container: &Container) -> bool {
        let ended = Watched {
            pid: container.pid,
            ended: true,
        };
        container.is_running() && self.lock().get(&container.id) == Some(&ended)
    }

    /// Forgets a container.
    pub(super) fn forget(&self, id: &str) {
        self.lock().remove(id);
    }

    /// The ends from now on.
    pub(super) fn events(&self) -> BoxStream<'static, RuntimeEvent> {
        BroadcastStream::new(self.events.subscribe())
            .map(|event| match event {
                Ok(task) => RuntimeEvent::Ended(task),
                Err(_) => RuntimeEvent::Relist,
            })
            .boxed()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the process is really the container's. The engine may count processes in another
/// namespace than this program, and then the number says nothing here.
fn is_of(pid: u32, container: &str) -> bool {
    pid != 0
        && std::fs::read_to_string(format!("/proc/{pid}/cgroup"))
            .is_ok_and(|groups| groups.contains(container))
}

/// A descriptor that becomes readable once the process has ended; `None` where there is no
/// such process, or the kernel (before 5.3) has no such descriptors.
pub(super) fn descriptor(pid: u32) -> Option<AsyncFd<OwnedFd>> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    #[expect(
        deprecated,
        reason = "its unsafe successor asks that the descriptor stays open, which owning it ensures"
    )]
    AsyncFd::with_interest(process, Interest::READABLE).ok()
}
