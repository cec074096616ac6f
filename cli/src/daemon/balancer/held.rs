//! The listening sockets, held in this process as well, for the time without a balancer.

use swarmlet_lb::control::{Client, ClientError, Keeper};
use swarmlet_lb::table::Table;

use super::link::Link;

/// Duplicates of the sockets that the balancer listens on.
#[derive(Default)]
pub(super) struct Held {
    keeper: Keeper,
    /// A connection of its own: what goes wrong with descriptors, of which there may be too
    /// few, must not cost the balancer its table.
    client: Option<Client>,
    /// The process that they are of.
    pid: u32,
    complained: bool,
}

impl Held {
    /// Fetches what is new. Without it the balancer forwards as well, but a port is closed
    /// for a moment when it dies.
    pub(super) async fn update(&mut self, link: &Link) {
        match self.try_update(link).await {
            Ok(()) => self.complained = false,
            Err(error) => {
                self.client = None;
                if !self.complained {
                    tracing::warn!(%error, "the balancer's listening sockets cannot be held");
                }
                self.complained = true;
            }
        }
    }

    /// Lets go of sockets whose port is not in the table.
    pub(super) fn keep_only(&mut self, table: &Table) {
        self.keeper.keep_only(table);
    }

    /// Offers everything to a process that has no table yet.
    ///
    /// # Errors
    /// It does not take it.
    pub(super) async fn hand_over(&mut self, link: &Link) -> Result<(), ClientError> {
        let mut client = Client::connect(link.control()).await?;
        self.keeper.hand_over(&mut client).await?;
        self.client = Some(client);
        self.pid = link.pid();
        Ok(())
    }

    async fn try_update(&mut self, link: &Link) -> Result<(), ClientError> {
        if self.pid != link.pid() {
            self.keeper.begin_anew();
            self.client = None;
            self.pid = link.pid();
        }
        let client = match &mut self.client {
            Some(client) => client,
            none => none.insert(Client::connect(link.control()).await?),
        };
        self.keeper.update(client).await
    }
}
