//! Keeping tasks and port allotments on disk.

use std::time::Duration;

use tokio::time::Instant;

use super::entry::Entry;
use super::{RELIST, Worker};
use crate::cause::chain;
use crate::store::StoreError;

/// Changes are collected for this long before they are written to disk: they come in bursts,
/// and a restart that misses the last ones learns them again, from the runtime and a manager.
pub(super) const SAVE_DELAY: Duration = Duration::from_millis(100);

impl Worker {
    /// Puts the allotments on disk, where they have changed: they have to be there before a
    /// container is made.
    pub(super) fn saving_ports(
        &mut self,
    ) -> Option<impl Future<Output = Result<(), StoreError>> + Send + use<>> {
        let ports = self.ports.take_changes()?;
        Some(self.store.save_ports(ports))
    }

    /// Notes that the tasks on disk are out of date.
    pub(super) fn changed(&mut self) {
        self.save_at
            .get_or_insert_with(|| Instant::now() + SAVE_DELAY);
    }

    /// Writes what is due.
    pub(super) async fn save(&mut self) {
        if let Some(saving) = self.saving_ports()
            && let Err(error) = saving.await
        {
            let reason = chain(&error);
            tracing::warn!(reason, "the task ports could not be kept on disk");
        }
        if self.save_at.is_some_and(|at| at <= Instant::now()) {
            self.save_tasks().await;
        }
    }

    /// Writes the tasks now.
    pub(super) async fn save_tasks(&mut self) {
        self.save_at = None;
        let tasks = self.entries.values().filter_map(Entry::to_keep).collect();
        if let Err(error) = self.store.save_tasks(tasks).await {
            let reason = chain(&error);
            tracing::warn!(reason, "the assignments could not be kept on disk");
            self.save_at = Some(Instant::now() + RELIST);
        }
    }
}
