//! A node's way from worker to manager and back, while its tasks and its connections go on.
//!
//! What the user wants comes with the session. The node asks for a certificate that says the
//! same, keeps it, and is put together anew; agent and balancer are those of any start.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use swarmlet_core::model::{NodeSpec, Role};
use swarmlet_manager::Manager;
use swarmlet_proto::identity::Identity;
use tokio_util::sync::CancellationToken;

use super::Daemon;
use super::node::Node;
use super::renew;
use super::settings::Settings;
use super::store::{Layout, NodeRecord};
use super::view::{Active, Phase};

/// Pause after an attempt that failed: a manager that is to be a worker is first taken out of
/// the voters, which takes an election where it was the leader.
const RETRY: Duration = Duration::from_millis(500);

/// Pause after the others refused to count on a new manager.
const VOTE_RETRY: Duration = Duration::from_secs(5);

/// Resolves once the user wants the node to be something else than it is; never for one that
/// is in no cluster.
pub(super) async fn wanted(phase: &Phase) -> Role {
    let Some(active) = phase.active() else {
        return std::future::pending().await;
    };
    let differs = |spec: &NodeSpec| (spec.role != active.role).then_some(spec.role);
    let mut connected = active.agent.connected();
    loop {
        let wanted = connected
            .borrow_and_update()
            .spec
            .as_ref()
            .and_then(differs);
        if let Some(role) = wanted {
            return role;
        }
        if connected.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

impl Daemon {
    /// Makes the node what it is wanted to be, or leaves it as it is and waits for a moment.
    ///
    /// # Errors
    /// The node was ended and does not come back: the next start of the daemon goes on.
    pub(super) async fn change_role(&self, role: Role) -> Result<()> {
        let mut node = self.node.lock().await;
        let Some(phase) = node.as_ref().map(Node::view) else {
            return Ok(());
        };
        let Some(active) = phase.active() else {
            return Ok(());
        };
        let (identity, record) = match certified(&self.layout, active, role).await {
            Ok(certified) => certified,
            Err(error) => {
                tracing::info!(%role, reason = format!("{error:#}"), "the node cannot change its role yet");
                drop(node);
                tokio::time::sleep(RETRY).await;
                return Ok(());
            }
        };
        tracing::info!(%role, "the node changes its role");
        self.views.show(Phase::Starting);
        let balancer = match node.take() {
            Some(old) => Some(old.stop().await),
            None => None,
        };
        identity.save(&self.layout.certificates())?;
        // What an earlier life as a manager left would be taken for this one's votes.
        self.layout.forget_votes()?;
        self.layout.save(&record)?;
        let settings = Settings::new(&self.flags, Some(&record))?;
        let restored = Node::restore(&self.layout, settings, record, balancer).await?;
        self.views.show(restored.view());
        *node = Some(restored);
        Ok(())
    }
}

/// A certificate for the role, and what is to be kept of the node then. Any manager signs; this
/// node's own may have been taken out of the voters already.
async fn certified(layout: &Layout, active: &Active, role: Role) -> Result<(Identity, NodeRecord)> {
    let record = layout.load()?.context("the node has left its swarm")?;
    let mut managers: Vec<SocketAddr> = record.managers.clone();
    managers.extend(active.agent.connected().borrow().manager);
    if let Some(manager) = &active.manager {
        let state = manager.state();
        managers.extend(
            state
                .nodes()
                .filter_map(|node| Some(node.manager.as_ref()?.address)),
        );
    }
    managers.sort_unstable();
    managers.dedup();
    managers.sort_by_key(|&address| address == record.advertise);
    let mut reason = anyhow::anyhow!("no manager is known");
    for manager in managers {
        let asked = renew::ask(manager, &active.identities, Some(record.advertise)).await;
        match asked.and_then(|renewed| read(renewed, &record, role)) {
            Ok(certified) => return Ok(certified),
            Err(error) => reason = error.context(format!("the manager at {manager}")),
        }
    }
    Err(reason)
}

fn read(
    renewed: renew::Renewed,
    record: &NodeRecord,
    role: Role,
) -> Result<(Identity, NodeRecord)> {
    let renew::Renewed {
        identity,
        raft_id,
        managers,
        incarnation,
    } = renewed;
    if identity.role != role {
        bail!("still sees a {}", identity.role);
    }
    let record = NodeRecord {
        raft_id: (role == Role::Manager).then_some(raft_id),
        votes: false,
        incarnation,
        managers: managers
            .into_iter()
            .filter(|&address| address != record.advertise)
            .collect(),
        ..record.clone()
    };
    Ok((identity, record))
}

/// Makes a new manager a voter, however long it takes, and keeps that it is one.
pub(super) async fn vote(
    layout: Layout,
    manager: Manager,
    record: NodeRecord,
    stop: CancellationToken,
) {
    let voting = async {
        while let Err(error) = manager.join_voters(&record.managers).await {
            let reason = format!("{:#}", anyhow::Error::new(error));
            tracing::warn!(reason, "the new manager is no voter yet");
            tokio::time::sleep(VOTE_RETRY).await;
        }
        let record = NodeRecord {
            votes: true,
            ..record
        };
        match layout.save(&record) {
            Ok(()) => tracing::info!("the new manager votes"),
            Err(error) => tracing::error!(
                error = format!("{error:#}"),
                "it cannot be kept that this manager votes"
            ),
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = voting => {}
    }
}
