//! Listening sockets held outside of the balancer.

use std::{collections::BTreeMap, net::SocketAddr, os::fd::OwnedFd, sync::Arc};

use super::{
    client::{Client, ClientError},
    wire::MAX_PER_FRAME,
};
use crate::table::Table;

/// Holds duplicates of a balancer's listening sockets, so that its end closes no
/// port: clients wait in the sockets' queues until the next balancer, which gets
/// them from here, accepts.
///
/// A port is closed only once everybody has closed it: whoever puts a table in
/// force calls [`Keeper::keep_only`] afterwards, or a removed port would accept
/// clients that nobody serves.
#[derive(Debug, Default)]
pub struct Keeper {
    held: BTreeMap<SocketAddr, Arc<OwnedFd>>,
    /// Number of the newest one that the balancer at work has told of.
    newest: u32,
    /// What is held is of an earlier balancer, and the one at work was not asked.
    is_of_earlier: bool,
}

impl Keeper {
    /// Holds nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many sockets are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether none is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Lets go of sockets whose port is not in this table.
    pub fn keep_only(&mut self, table: &Table) {
        let ports: std::collections::HashSet<u16> =
            table.listeners.iter().map(|one| one.port).collect();
        self.held
            .retain(|address, _| ports.contains(&address.port()));
    }

    /// What is held is of an earlier balancer: the next [`Keeper::update`] asks
    /// for everything.
    pub fn begin_anew(&mut self) {
        self.is_of_earlier = true;
    }

    /// Fetches the sockets that the balancer has opened since the last time. To
    /// be called after each table, and when ports that were not bound are.
    ///
    /// # Errors
    ///
    /// Those of the connection; what was held before is held still.
    pub async fn update(&mut self, balancer: &mut Client) -> Result<(), ClientError> {
        let mut newest = if self.is_of_earlier { 0 } else { self.newest };
        let mut fetched = BTreeMap::new();
        loop {
            let sockets = balancer.sockets(newest).await?;
            let is_last = sockets.len() < MAX_PER_FRAME;
            for (label, socket) in sockets {
                newest = newest.max(label.id);
                fetched.insert(label.address, Arc::new(socket));
            }
            if is_last {
                break;
            }
        }
        if self.is_of_earlier {
            self.held.clear();
        }
        self.held.extend(fetched);
        self.newest = newest;
        self.is_of_earlier = false;
        Ok(())
    }

    /// Lets go of them into the hands of whoever listens from now on.
    pub(crate) fn into_sockets(self) -> impl Iterator<Item = (SocketAddr, OwnedFd)> {
        self.held
            .into_iter()
            // Nobody else has one: a call that sends them borrows the keeper.
            .filter_map(|(address, socket)| Some((address, Arc::into_inner(socket)?)))
    }

    /// Offers all of them to a balancer that is about to get its first table. It
    /// keeps those that the table names and closes the others.
    ///
    /// # Errors
    ///
    /// Those of the connection, and [`ClientError::Refused`] if what is held is
    /// not what it should be. Everything is held still.
    pub async fn hand_over(&mut self, successor: &mut Client) -> Result<(), ClientError> {
        self.begin_anew();
        let all: Vec<_> = self.held.iter().collect();
        for some in all.chunks(MAX_PER_FRAME) {
            let addresses = some.iter().map(|(address, _)| **address).collect();
            let sockets = some.iter().map(|(_, socket)| Arc::clone(socket)).collect();
            successor.inherit(addresses, sockets).await?;
        }
        Ok(())
    }
}
