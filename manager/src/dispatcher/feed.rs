//! The endpoint table, derived once for all sessions of this manager.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use swarmlet_core::endpoints::{self, Listener};
use swarmlet_core::model::Version;
use swarmlet_proto::v1;

use crate::raft::Raft;

/// Pause between two derivations. A table costs a pass over all tasks, and a service of a
/// hundred tasks starts them within moments of each other.
const INTERVAL: Duration = Duration::from_millis(20);

/// A cheap handle to what [`run`] derives.
#[derive(Clone)]
pub(crate) struct TableFeed {
    shared: Arc<Shared>,
}

struct Shared {
    /// The table as it is sent; its version is that of the last state that changed it.
    tables: watch::Sender<Arc<v1::EndpointTable>>,
    /// The state's version up to which the table is right.
    checked: watch::Sender<Version>,
}

impl TableFeed {
    pub(crate) fn new() -> Self {
        let shared = Shared {
            tables: watch::Sender::new(Arc::default()),
            checked: watch::Sender::new(Version(0)),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Sees every change of the table, and may skip some on the way to the latest.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<v1::EndpointTable>> {
        self.shared.tables.subscribe()
    }

    /// Waits until the table is right for a version of the state.
    pub(crate) async fn reached(&self, version: Version) {
        let mut checked = self.shared.checked.subscribe();
        // It cannot fail: the sender lives as long as this handle.
        let _ = checked.wait_for(|checked| *checked >= version).await;
    }
}

/// Derives until it is cancelled.
pub(crate) async fn run(feed: TableFeed, raft: Raft, stop: CancellationToken) {
    let mut states = raft.watch_state();
    let work = async {
        // Starts with what no state gives, so that the first table is always published.
        let mut last: Option<Vec<Listener>> = None;
        loop {
            let state = states.borrow_and_update().clone();
            let table = endpoints::derive(&state);
            if last.as_ref() != Some(&table.listeners) {
                feed.shared
                    .tables
                    .send_replace(Arc::new(v1::EndpointTable::from(&table)));
                last = Some(table.listeners);
            }
            feed.shared.checked.send_replace(state.version());
            sleep(INTERVAL).await;
            if states.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}
