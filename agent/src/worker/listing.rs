//! Looking at all containers, and what follows when the engine does not answer.

use std::collections::BTreeSet;
use std::time::Duration;

use swarmlet_core::model::TaskId;
use tokio::time::Instant;

use super::entry::Entry;
use super::{Done, Worker, now};
use crate::runtime::{Container, RuntimeError};

/// How soon the containers are looked at again where the engine did not answer: five seconds
/// after its return everything is to be as it should.
const LIST_AGAIN: Duration = Duration::from_millis(500);

/// A list that takes longer says that the engine hangs. It is waited for all the same: an
/// engine that was only slow must not be asked twice.
const HANGS: Duration = Duration::from_secs(2);

impl Worker {
    /// Asks for all containers, once more after the list under way where there is one.
    pub(super) fn list(&mut self) {
        if self.listing.is_some() {
            self.list_again = true;
            return;
        }
        let (runtime, scope) = (self.runtime.clone(), self.scope.clone());
        let handle = self
            .jobs
            .spawn(async move { Done::Listed(runtime.list(&scope).await) });
        self.listing = Some(handle.id());
        self.list_due = Some(Instant::now() + HANGS);
    }

    /// Looks after lists that are due, or that do not come.
    pub(super) fn attend_list(&mut self, moment: Instant) {
        if self.list_due.is_none_or(|due| due > moment) {
            return;
        }
        self.list_due = None;
        if self.listing.is_some() {
            self.engine_answers(false);
        } else {
            self.list();
        }
    }

    fn engine_answers(&self, answers: bool) {
        self.engine.send_if_modified(|before| {
            let news = *before != answers;
            if news && answers {
                tracing::info!("the container engine answers again");
            } else if news {
                tracing::warn!(
                    "the container engine does not answer; its tasks are left as they were"
                );
            }
            *before = answers;
            news
        });
    }

    /// Takes a list, or what came of it: `None` where it was cut off.
    pub(super) fn listed(&mut self, listed: Option<Result<Vec<Container>, RuntimeError>>) {
        self.listing = None;
        self.list_due = None;
        match listed {
            Some(Ok(containers)) => {
                self.engine_answers(true);
                self.found(containers);
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "the containers cannot be listed");
                self.engine_is_away();
            }
            None => self.engine_is_away(),
        }
        if std::mem::take(&mut self.list_again) {
            self.list();
        }
    }

    /// Notes that nothing is known of the containers until a list succeeds.
    fn engine_is_away(&mut self) {
        self.listed = false;
        self.list_due = Some(Instant::now() + LIST_AGAIN);
        self.engine_answers(false);
    }

    /// Compares all containers with what is known of them, and has a closer look at those
    /// that differ: a list may be older than the last step.
    fn found(&mut self, containers: Vec<Container>) {
        self.listed = true;
        self.strangers.clear();
        let mut missing: BTreeSet<TaskId> = self
            .entries
            .values()
            .filter(|entry| entry.container.is_some())
            .map(|entry| entry.id.clone())
            .collect();
        for container in containers {
            missing.remove(&container.task);
            match self.entries.get_mut(&container.task) {
                Some(entry) => entry.look |= entry.container.as_ref() != Some(&container),
                None if self.complete => {
                    tracing::info!(container = %container.id, task = %container.task, "removing a container without a task");
                    let entry = Entry::stray(container, now());
                    self.entries.insert(entry.id.clone(), entry);
                }
                None if container.is_running() => {
                    self.strangers
                        .insert(container.task.clone(), container.address);
                }
                None => {}
            }
        }
        for id in missing {
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.look = true;
            }
        }
    }
}
