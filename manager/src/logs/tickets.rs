//! Tickets: which agent may bring logs to which reader.
//!
//! A ticket is random, is for one node, and is good once. So a node can bring lines only where
//! it was asked to, and a reader that has gone is found by nobody.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use swarmlet_core::model::NodeId;
use swarmlet_proto::v1;
use tokio::sync::oneshot;
use tonic::{Status, Streaming};

use crate::random::{self, NoRandomness};

/// What an agent brings. Dropping it tells the agent that nobody reads any more.
#[derive(Debug)]
pub(crate) struct Inbound {
    messages: Streaming<v1::PublishLogsRequest>,
    _done: oneshot::Sender<()>,
}

impl Inbound {
    pub(super) fn new(
        messages: Streaming<v1::PublishLogsRequest>,
        done: oneshot::Sender<()>,
    ) -> Self {
        Self {
            messages,
            _done: done,
        }
    }

    /// The next message; `None` after the last.
    pub(super) async fn next(&mut self) -> Result<Option<v1::PublishLogsRequest>, Status> {
        self.messages.message().await
    }
}

/// The tickets that are out.
#[derive(Clone, Default)]
pub(crate) struct Tickets {
    out: Arc<Mutex<BTreeMap<String, Ticket>>>,
}

struct Ticket {
    node: NodeId,
    reader: oneshot::Sender<Inbound>,
}

/// A reader's side of a ticket, which is void once this is dropped.
pub(super) struct Stub {
    pub(super) ticket: String,
    brought: oneshot::Receiver<Inbound>,
    tickets: Tickets,
}

impl Tickets {
    /// Makes a ticket for a node.
    pub(super) fn issue(&self, node: &NodeId) -> Result<Stub, NoRandomness> {
        let (reader, brought) = oneshot::channel();
        let ticket = format!("{:032x}", random::bits()?);
        let entry = Ticket {
            node: node.clone(),
            reader,
        };
        self.lock().insert(ticket.clone(), entry);
        Ok(Stub {
            ticket,
            brought,
            tickets: self.clone(),
        })
    }

    /// Takes a ticket in, and gives the way to its reader. Somebody else's is left alone.
    pub(super) fn take(
        &self,
        ticket: &str,
        node: &NodeId,
    ) -> Result<oneshot::Sender<Inbound>, Status> {
        let mut out = self.lock();
        match out.get(ticket) {
            Some(found) if found.node == *node => {}
            Some(_) => {
                tracing::warn!(%node, "logs refused: the ticket is another node's");
                return Err(Status::permission_denied("the ticket is another node's"));
            }
            None => {
                return Err(Status::not_found("nobody waits for these logs any more"));
            }
        }
        let found = out.remove(ticket);
        found
            .map(|ticket| ticket.reader)
            .ok_or_else(|| Status::not_found("nobody waits for these logs any more"))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Ticket>> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stub {
    /// Waits until the agent comes; `None` where it never will.
    pub(super) async fn brought(mut self) -> Option<Inbound> {
        (&mut self.brought).await.ok()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.tickets.lock().remove(&self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_ticket_is_one_nodes_and_good_once() {
        let tickets = Tickets::default();
        let (own, other) = (NodeId::from_random(1), NodeId::from_random(2));
        let stub = tickets.issue(&own).unwrap();
        let refused = tickets.take(&stub.ticket, &other).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::PermissionDenied);
        drop(tickets.take(&stub.ticket, &own).unwrap());
        let again = tickets.take(&stub.ticket, &own).unwrap_err();
        assert_eq!(again.code(), tonic::Code::NotFound);
        assert!(stub.brought().await.is_none());
    }

    #[test]
    fn a_reader_that_has_gone_leaves_no_ticket() {
        let tickets = Tickets::default();
        let own = NodeId::from_random(1);
        let stub = tickets.issue(&own).unwrap();
        let ticket = stub.ticket.clone();
        drop(stub);
        assert!(tickets.take(&ticket, &own).is_err());
        assert!(tickets.lock().is_empty());
    }
}
