//! What the balancer tells without being asked, so that nobody has to poll.

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::status::PortError;

/// Events kept for a subscriber that is slower than they come. A whole node's
/// endpoints ejected at once fit; whoever is slower gets [`Event::Missed`].
const BACKLOG: usize = 1024;

/// Something that changed in the balancer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The ports that cannot be bound changed; this is the complete new list.
    PortErrors {
        /// One entry for each port that is not, or not wholly, bound.
        errors: Vec<PortError>,
    },
    /// An endpoint is left out and probed until it answers again.
    Ejected {
        /// The published port.
        port: u16,
        /// The endpoint.
        id: String,
        /// What the connect met.
        reason: String,
    },
    /// An ejected endpoint takes connections again.
    Restored {
        /// The published port.
        port: u16,
        /// The endpoint.
        id: String,
    },
    /// A draining or removed endpoint has no connection left. One that has none
    /// to begin with is told at once, before its table is acknowledged.
    Drained {
        /// The published port.
        port: u16,
        /// The endpoint.
        id: String,
    },
    /// The balancer listens no more, and ends with its connections.
    ShuttingDown,
    /// This subscriber was too slow: ask for the status.
    Missed {
        /// How many events are lost.
        count: u64,
    },
}

/// Where events go out to any number of subscribers.
#[derive(Debug, Clone)]
pub(crate) struct Hub(broadcast::Sender<Event>);

/// One subscriber's end.
#[derive(Debug)]
pub(crate) struct Subscription(broadcast::Receiver<Event>);

impl Hub {
    pub(crate) fn new() -> Self {
        Self(broadcast::channel(BACKLOG).0)
    }

    pub(crate) fn publish(&self, event: Event) {
        tracing::debug!(?event, "event");
        // An error here means that nobody listens, which is nobody's fault.
        let _ = self.0.send(event);
    }

    pub(crate) fn subscribe(&self) -> Subscription {
        Subscription(self.0.subscribe())
    }
}

impl Subscription {
    /// The next event. Pends for ever once the hub is gone, which it is only
    /// when the balancer ends.
    pub(crate) async fn next(&mut self) -> Event {
        match self.0.recv().await {
            Ok(event) => event,
            Err(broadcast::error::RecvError::Lagged(count)) => Event::Missed { count },
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}
