//! Brings logs of the node's tasks to the managers that ask for them.
//!
//! A manager asks over the session; what it asked for goes to it on a connection of its own,
//! at the pace at which it is read. From the engine to the reader's terminal nothing reads
//! ahead: a reader that stops makes everything before it stop, with a few lines in each hand,
//! and costs the session nothing. A manager that answers has had enough, or its reader has.

mod outbox;
mod reading;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use swarmlet_core::model::{Role, TaskId};
use swarmlet_proto::transport::{IdentityStore, channel};
use swarmlet_proto::v1;
use swarmlet_proto::v1::logs_client::LogsClient;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::runtime::log::LogQuery;
use crate::runtime::{Runtime, Scope};
use outbox::Outbox;

/// Requests that are answered at a time. Each costs a connection and one to the engine for each
/// of its tasks; managers allow fewer readers than this.
const MAX_READERS: usize = 128;

/// Messages on their way to the manager, behind which reading waits: a quarter of a megabyte.
const WAITING: usize = 4;

/// How long the manager may take to acknowledge the end.
const FAREWELL: Duration = Duration::from_secs(5);

/// Answers requests for logs; a copy is a handle of the same one.
#[derive(Clone)]
pub(crate) struct Publisher {
    identities: IdentityStore,
    runtime: Arc<dyn Runtime>,
    scope: Arc<Scope>,
    places: Arc<Semaphore>,
    stop: CancellationToken,
}

/// A task whose log is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    task: TaskId,
    query: LogQuery,
}

impl Publisher {
    pub(crate) fn new(
        identities: IdentityStore,
        runtime: Arc<dyn Runtime>,
        scope: Scope,
        stop: CancellationToken,
    ) -> Self {
        Self {
            identities,
            runtime,
            scope: Arc::new(scope),
            places: Arc::new(Semaphore::new(MAX_READERS)),
            stop,
        }
    }

    /// Begins to bring what a manager wants. A manager that hears nothing tells its reader so.
    pub(crate) fn bring(&self, request: v1::LogsWanted) {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            tracing::warn!("logs are not sent: {MAX_READERS} readers are served already");
            return;
        };
        let (Ok(address), Some(wanted)) = (request.address.parse(), wanted(&request)) else {
            tracing::warn!("a request for logs is malformed");
            return;
        };
        let publisher = self.clone();
        tokio::spawn(async move {
            let _place = place;
            tokio::select! {
                () = publisher.stop.cancelled() => {}
                () = publisher.publish(address, request.ticket, wanted) => {}
            }
        });
    }

    async fn publish(&self, address: SocketAddr, ticket: String, wanted: Vec<Wanted>) {
        let mut client = LogsClient::new(channel(address, &self.identities, Role::Manager));
        let (sender, messages) = mpsc::channel(WAITING);
        let answer = client.publish_logs(ReceiverStream::new(messages));
        tokio::pin!(answer);
        let read = async {
            let mut outbox = Outbox::new(sender);
            outbox.ticket(ticket).await?;
            reading::read(&*self.runtime, &self.scope, wanted, &mut outbox).await
        };
        let ended = tokio::select! {
            // The reader has gone, or the manager.
            ended = &mut answer => ended.map(|_| ()),
            // Read to the end, or nobody takes it any more; either way the manager answers.
            _read_or_closed = read => match tokio::time::timeout(FAREWELL, answer).await {
                Ok(ended) => ended.map(|_| ()),
                Err(_) => Err(tonic::Status::deadline_exceeded("no answer")),
            },
        };
        if let Err(status) = ended {
            tracing::debug!(manager = %address, reason = status.message(), "logs were not taken");
        }
    }
}

/// What a request wants of each task; `None` where it makes no sense.
fn wanted(request: &v1::LogsWanted) -> Option<Vec<Wanted>> {
    let query = request.query.unwrap_or_default();
    let wanted = request.tasks.iter().map(|log| {
        Some(Wanted {
            task: TaskId::parse(&log.task_id).ok()?,
            query: LogQuery {
                follow: query.follow,
                since_ns: log.since_ns,
                until_ns: (query.until_ns > 0).then_some(query.until_ns),
                tail: log.tail,
                details: query.details,
            },
        })
    });
    wanted.collect()
}
