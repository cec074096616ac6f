//! `init --force-new-cluster`: the node's manager goes on without the others.
//!
//! ```text
//! may it? ─→ the node ends (tasks and connections go on) ─→ its log is rewritten ─→ it starts
//!                                                              ╰─ failed: it starts as it was
//! ```

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use swarmlet_manager::Manager;
use swarmlet_proto::v1;
use tokio::time::timeout;
use tonic::Status;

use super::Daemon;
use super::advertise::advertise;
use super::local_service::refused;
use super::node::{Node, SETTLE, manager_config};
use super::settings::Settings;
use super::store::NodeRecord;
use super::view::{Active, Phase};

/// How long a daemon that has just started may take to bring its node back.
const START: Duration = Duration::from_secs(30);

/// How long the only manager may take to lead: it asks nobody, and so some milliseconds.
const LEAD: Duration = Duration::from_secs(10);

/// Why a node in no cluster is refused.
const INACTIVE: &str = "This node is not part of a swarm, so there is none to go on with: run \
     `swarmlet init --force-new-cluster` on a manager that is left, or `swarmlet init` for a new \
     swarm";

/// Why a worker is refused.
const WORKER: &str = "This node is a worker, which has no copy of the swarm's state: run `swarmlet \
     init --force-new-cluster` on a manager that is left";

impl Daemon {
    /// Makes this node the only manager of its cluster, with the state that it has.
    pub(super) async fn go_on_alone(&self, wish: String) -> Result<v1::InitResponse, Status> {
        if let Phase::Starting = self.views.settled(START).await {
            return Err(Status::unavailable(
                "the daemon is bringing its node back, try again in a moment",
            ));
        }
        let mut node = self.node.lock().await;
        let Some(active) = node.as_ref().map(Node::view) else {
            return Err(Status::failed_precondition(INACTIVE));
        };
        let active = active
            .active()
            .ok_or_else(|| Status::failed_precondition(INACTIVE))?;
        let record = self
            .checked(active, &wish)
            .await
            .map_err(|error| refused(&error))?;
        let done = self.rewrite(&mut node, active, record).await;
        let left_behind = done.map_err(|error| refused(&error))?;
        let Some(alone) = node.as_ref() else {
            return Err(Status::internal("the node is gone"));
        };
        alone.settle(SETTLE).await;
        let welcome = alone.welcome().await?;
        Ok(v1::InitResponse {
            left_behind,
            ..welcome
        })
    }

    /// What is to be kept of the node then.
    async fn checked(&self, active: &Active, wish: &str) -> Result<NodeRecord> {
        let Some(manager) = &active.manager else {
            bail!(WORKER);
        };
        let record = self.layout.load()?.context(INACTIVE)?;
        let address = match wish {
            "" => record.advertise,
            wish => advertise(wish, record.settings.listen, None)?,
        };
        manager.may_go_on_alone(address != record.advertise).await?;
        Ok(NodeRecord {
            advertise: address,
            votes: true,
            managers: Vec::new(),
            ..record
        })
    }

    /// Ends the node, rewrites its log and starts it again; it starts in any case.
    async fn rewrite(
        &self,
        node: &mut Option<Node>,
        active: &Active,
        record: NodeRecord,
    ) -> Result<Vec<String>> {
        let raft_id = record.raft_id.context(WORKER)?;
        let before = self.layout.load()?.context(INACTIVE)?;
        tracing::warn!(address = %record.advertise, "told to go on without the other managers");
        self.views.show(Phase::Starting);
        let balancer = match node.take() {
            Some(old) => Some(old.stop().await),
            None => None,
        };
        // First: with an address that it does not have yet the node waits for the others as
        // before, while one without it would be the only manager at an address of the past.
        let config = manager_config(&self.layout, &record);
        let rewritten = match self.layout.save(&record) {
            Ok(()) => Manager::go_on_alone(config, raft_id, active.node.clone())
                .await
                .map_err(anyhow::Error::from),
            Err(error) => Err(error),
        };
        let record = if rewritten.is_ok() { record } else { before };
        let settings = Settings::new(&self.flags, Some(&record))?;
        let restored = Node::restore(&self.layout, settings, record, balancer).await?;
        let phase = restored.view();
        *node = Some(restored);
        self.views.show(phase.clone());
        let left_behind = rewritten?;
        leads(&phase).await?;
        Ok(left_behind)
    }
}

async fn leads(phase: &Phase) -> Result<SocketAddr> {
    let active = phase.active().context(INACTIVE)?;
    let manager = active.manager.as_ref().context(WORKER)?;
    let mut leadership = manager.raft().watch_leadership();
    let led = timeout(LEAD, leadership.wait_for(|now| now.is_self)).await;
    match led {
        Ok(Ok(_)) => Ok(active.address),
        Ok(Err(_)) | Err(_) => bail!(
            "this node is the only manager now, and does not lead within {} s: see its log",
            LEAD.as_secs()
        ),
    }
}
