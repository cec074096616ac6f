//! Taking over from the balancer that runs.

use std::{path::Path, time::Duration};

use super::Error;
use crate::{
    balancer::Handle,
    control::{Client, ClientError, Keeper},
};

/// The balancer that runs. It has made room at its control socket and gave away
/// duplicates of its listening sockets; it still listens.
pub(super) struct Predecessor {
    client: Client,
    pid: u32,
    sockets: Keeper,
}

/// A balancer whose sockets somebody else listens on, too.
pub(super) struct Retiring {
    client: Client,
    pid: u32,
}

impl Predecessor {
    /// `None` where there is none.
    pub(super) async fn find(control: &Path) -> Result<Option<Self>, Error> {
        let client = match Client::connect(control).await {
            Err(ClientError::Connect { .. }) => {
                tracing::info!("there is no balancer to take over from");
                return Ok(None);
            }
            connected => connected.map_err(Error::TakeOver)?,
        };
        Self::prepare(client)
            .await
            .map(Some)
            .map_err(Error::TakeOver)
    }

    async fn prepare(mut client: Client) -> Result<Self, ClientError> {
        let pid = client.status().await?.pid;
        let mut sockets = Keeper::new();
        sockets.update(&mut client).await?;
        client.step_aside().await?;
        Ok(Self {
            client,
            pid,
            sockets,
        })
    }

    /// Offers its sockets to the next table of `successor`.
    pub(super) async fn hand_over(self, successor: &Handle) -> Retiring {
        tracing::info!(
            pid = self.pid,
            sockets = self.sockets.len(),
            "taking over from the balancer that runs"
        );
        // It ends only with this process.
        let _ = successor
            .inherit(self.sockets.into_sockets().collect())
            .await;
        Retiring {
            client: self.client,
            pid: self.pid,
        }
    }
}

impl Retiring {
    /// Has it end with its connections, or after `patience`.
    pub(super) async fn retire(mut self, patience: Duration) {
        if let Err(error) = self.client.retire(patience).await {
            tracing::warn!(
                pid = self.pid,
                %error,
                "the balancer before cannot be told to end, end it by hand if it runs"
            );
        }
    }
}
