//! Notices the end of a task's process within milliseconds.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::{BoxStream, StreamExt};
use swarmlet_core::model::TaskId;
use tokio::sync::broadcast;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_stream::wrappers::BroadcastStream;

use super::files::TaskDir;
use crate::runtime::RuntimeEvent;
use crate::runtime::exits::descriptor;

/// How often the lock is looked at where the kernel has no process descriptors (before 5.3),
/// and after a descriptor said that a process ended.
const POLL: Duration = Duration::from_millis(20);

/// Events that a reader may be behind; one that is further behind is told to look at all.
const BACKLOG: usize = 256;

/// Watches shims and tells when one has ended.
#[derive(Clone)]
pub(super) struct Watcher {
    events: broadcast::Sender<TaskId>,
    watched: Arc<Mutex<BTreeSet<TaskId>>>,
}

impl Default for Watcher {
    fn default() -> Self {
        Self {
            events: broadcast::channel(BACKLOG).0,
            watched: Arc::default(),
        }
    }
}

impl Watcher {
    /// Watches a task's shim until it ends; once is enough.
    pub(super) fn watch(&self, task: &TaskId, dir: &TaskDir, shim: u32) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if !watched.insert(task.clone()) {
            return;
        }
        drop(watched);
        let (watcher, task) = (self.clone(), task.clone());
        let dir = TaskDir::at(dir.path().to_owned());
        tokio::spawn(async move {
            wait(&dir, shim).await;
            watcher
                .watched
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&task);
            // Without a reader there is nobody to tell; the next one lists everything.
            let _unread = watcher.events.send(task);
        });
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
}

/// Whether the shim ends within `limit`.
pub(super) async fn ended(dir: &TaskDir, shim: u32, limit: Duration) -> bool {
    timeout_at(Instant::now() + limit, wait(dir, shim))
        .await
        .is_ok()
}

/// Returns once no shim has the folder's lock any more. The lock decides: the process id only
/// says when to look, and may be another process's.
async fn wait(dir: &TaskDir, shim: u32) {
    let mut descriptor = descriptor(shim);
    loop {
        match dir.is_locked() {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(path = %dir.path().display(), %error, "a task's lock cannot be read");
            }
        }
        match &descriptor {
            Some(process) => {
                if let Err(error) = process.readable().await.map(|_| ()) {
                    tracing::debug!(%error, "a process descriptor cannot be waited for");
                }
                descriptor = None;
            }
            None => sleep(POLL).await,
        }
    }
}
