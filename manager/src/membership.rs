//! A manager's way into the cluster and out of it.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tonic::Status;

use swarmlet_core::command::Command;
use swarmlet_core::model::{
    Availability, Cluster, ClusterId, ClusterSpec, JoinSecret, ManagerInfo, Node, NodeDescription,
    NodeId, NodeSpec, NodeState, NodeStatus, Role, RootCa, Timestamp, Version,
};
use swarmlet_proto::identity::{self, Identity};
use swarmlet_proto::transport::IdentityStore;
use swarmlet_proto::v1;
use swarmlet_proto::v1::peer_client::PeerClient;

use crate::ca::{self, Subject, secret};
use crate::error::ManagerError;
use crate::manager::{Manager, ManagerConfig, open_raft};
use crate::raft::Raft;
use crate::{clock, random};

/// The number of a cluster's first manager.
const FIRST_RAFT_ID: u64 = 1;

/// How long it is tried to become a voter: a new manager may first have to fetch the state.
const JOIN_WITHIN: Duration = Duration::from_secs(120);

/// How long it is tried to leave the voters; a leader that leaves waits for the others to
/// elect another one.
const LEAVE_WITHIN: Duration = Duration::from_secs(15);

/// How long one manager may take to answer.
const ANSWER_WAIT: Duration = Duration::from_secs(60);

/// Pause between two rounds of asking.
const PAUSE: Duration = Duration::from_millis(250);

/// What a new cluster begins with.
#[derive(Debug, Clone)]
pub struct BootstrapRequest {
    /// Its settings.
    pub spec: ClusterSpec,
    /// Whether the first node takes tasks.
    pub availability: Availability,
    /// What the first node says of itself.
    pub description: NodeDescription,
}

impl Manager {
    /// Makes a new cluster with this node as its first manager. The identity that comes back
    /// is to be stored by the caller; the manager uses it already
    /// ([`identities`](Self::identities)).
    ///
    /// # Errors
    /// [`ManagerError`]; where the log is in use already, the node is part of a cluster.
    pub async fn bootstrap(
        config: ManagerConfig,
        request: BootstrapRequest,
    ) -> Result<(Self, Identity), ManagerError> {
        let cluster_id = ClusterId::from_random(random::bits()?);
        let node_id = NodeId::from_random(random::bits()?);
        let root = ca::new_root(&cluster_id, clock::date())?;
        let identity = first_identity(&root, &cluster_id, &node_id)?;
        let identities = IdentityStore::new(identity.clone())?;
        let init = Command::InitCluster {
            node: Box::new(first_node(&config, &request, node_id)),
            cluster: Box::new(first_cluster(cluster_id, root, request.spec)?),
        };

        let raft = open_raft(&config, &identities, FIRST_RAFT_ID).await?;
        if let Err(error) = init_cluster(&raft, &config, init).await {
            raft.shutdown().await;
            return Err(error);
        }
        Ok((Self::start(identities, raft), identity))
    }

    /// Makes this manager, which has joined and listens, a voter. Any of the managers will do
    /// to ask; they are asked in turn. Asking again is harmless.
    ///
    /// # Errors
    /// [`ManagerError::Managers`] with the last answer once two minutes have passed, or at once
    /// where the cluster refuses.
    pub async fn join_voters(&self, managers: &[SocketAddr]) -> Result<(), ManagerError> {
        let node_id = self.inner.identities.identity().node.to_string();
        self.ask(
            "cannot become a voter",
            managers,
            JOIN_WITHIN,
            |mut peer| {
                let request = v1::AddVoterRequest {
                    node_id: node_id.clone(),
                };
                async move {
                    let v1::AddVoterResponse {} = peer.add_voter(request).await?.into_inner();
                    Ok(())
                }
            },
        )
        .await
    }

    /// Takes this manager out of the voters, for good. It goes on serving until it is
    /// [shut down](Self::shutdown).
    ///
    /// # Errors
    /// [`ManagerError::Members`] where the others would have no quorum, or where there are no
    /// others; [`ManagerError::Managers`] where none of them answers.
    pub async fn leave(&self) -> Result<(), ManagerError> {
        let own = self.inner.identities.identity().node.clone();
        let state = self.state();
        let manager = state.node(&own).and_then(|node| node.manager.as_ref());
        let Some(raft_id) = manager.map(|manager| manager.raft_id) else {
            return Ok(());
        };
        if self.inner.raft.watch_leadership().borrow().is_self {
            self.inner.raft.remove_voter(raft_id).await?;
        }
        let others: Vec<SocketAddr> = state
            .nodes()
            .filter(|node| node.id != own)
            .filter_map(|node| Some(node.manager.as_ref()?.address))
            .collect();
        let node_id = own.to_string();
        self.ask(
            "cannot leave the voters",
            &others,
            LEAVE_WITHIN,
            |mut peer| {
                let request = v1::RemoveVoterRequest {
                    node_id: node_id.clone(),
                };
                async move {
                    let v1::RemoveVoterResponse {} = peer.remove_voter(request).await?.into_inner();
                    Ok(())
                }
            },
        )
        .await
    }

    /// Asks managers in turn until one of them has done it.
    async fn ask<F>(
        &self,
        what: &'static str,
        managers: &[SocketAddr],
        within: Duration,
        call: impl Fn(PeerClient<tonic::transport::Channel>) -> F,
    ) -> Result<(), ManagerError>
    where
        F: Future<Output = Result<(), Status>>,
    {
        let deadline = Instant::now() + within;
        let mut reason = "there is no other manager".to_owned();
        while !managers.is_empty() && Instant::now() < deadline {
            for &address in managers {
                let peer = PeerClient::new(self.inner.dialer.channel(address));
                match timeout(ANSWER_WAIT, call(peer)).await {
                    Ok(Ok(())) => return Ok(()),
                    Ok(Err(status)) if status.code() == tonic::Code::FailedPrecondition => {
                        let reason = status.message().to_owned();
                        return Err(ManagerError::Managers { what, reason });
                    }
                    Ok(Err(status)) => reason = format!("{address}: {}", status.message()),
                    Err(_) => reason = format!("{address} does not answer"),
                }
                tracing::debug!(%reason, "{what}, trying on");
            }
            sleep(PAUSE).await;
        }
        Err(ManagerError::Managers { what, reason })
    }
}

async fn init_cluster(
    raft: &Raft,
    config: &ManagerConfig,
    init: Command,
) -> Result<(), ManagerError> {
    raft.bootstrap(config.address).await?;
    let committed = raft.propose(vec![init]).await?;
    for result in committed.results {
        result?;
    }
    Ok(())
}

fn first_identity(
    root: &RootCa,
    cluster: &ClusterId,
    node: &NodeId,
) -> Result<Identity, ManagerError> {
    let new = identity::new_key_and_csr()?;
    let subject = Subject {
        node,
        cluster,
        role: Role::Manager,
    };
    let certificate = ca::sign(root, &new.csr, subject, clock::date())?;
    Ok(Identity::new(
        certificate,
        new.key,
        root.certificate.clone(),
    )?)
}

fn first_cluster(
    id: ClusterId,
    root_ca: RootCa,
    spec: ClusterSpec,
) -> Result<Cluster, ManagerError> {
    let secret = |role| -> Result<JoinSecret, ManagerError> { Ok(secret::rotate(&root_ca, role)?) };
    Ok(Cluster {
        id,
        version: Version::default(),
        created_at: Timestamp::default(),
        spec,
        worker_secret: secret(Role::Worker)?,
        manager_secret: secret(Role::Manager)?,
        root_ca,
        schema: Cluster::SCHEMA,
        next_raft_id: FIRST_RAFT_ID + 1,
        incarnation: 0,
    })
}

fn first_node(config: &ManagerConfig, request: &BootstrapRequest, id: NodeId) -> Node {
    Node {
        id,
        version: Version::default(),
        created_at: Timestamp::default(),
        spec: NodeSpec {
            role: Role::Manager,
            availability: request.availability,
            labels: Default::default(),
        },
        description: request.description.clone(),
        status: NodeStatus {
            state: NodeState::Unknown,
            message: "it has made the cluster and not reported yet".to_owned(),
            since: Timestamp::default(),
        },
        manager: Some(ManagerInfo {
            raft_id: FIRST_RAFT_ID,
            address: config.address,
        }),
        port_problems: Vec::new(),
        problems: Vec::new(),
        superseded: false,
    }
}
