//! The service `Ca`, answered by the leader.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use tonic::{Request, Response, Status};

use swarmlet_core::command::Command;
use swarmlet_core::model::{
    Availability, Cluster, InvalidAvailability, ManagerInfo, Node, NodeDescription, NodeId,
    NodeSpec, NodeState, NodeStatus, Role, Timestamp, Version,
};
use swarmlet_core::state::State;
use swarmlet_proto::v1;
use swarmlet_proto::v1::ca_server::Ca;

use super::limit::FailureLimit;
use super::{Subject, outside, secret, sign};
use crate::propose::{self, Refused};
use crate::raft::Raft;
use crate::{clock, forward, managers, random, status};

/// Attempts to give a new manager the next number; each failure means that another manager
/// has joined in between.
const MAX_ATTEMPTS: usize = 8;

/// The service.
#[derive(Clone)]
pub(crate) struct CaService {
    raft: Raft,
    limit: Arc<FailureLimit>,
}

impl CaService {
    pub(crate) fn new(raft: Raft) -> Self {
        Self {
            raft,
            limit: Arc::default(),
        }
    }

    async fn current(&self) -> Result<Arc<State>, Status> {
        let state = self.raft.linearizable().await;
        state.map_err(|error| status::of_proposal(&error))
    }

    /// The role that the secret gives; failures count against the source.
    fn admit(&self, cluster: &Cluster, presented: &str, source: IpAddr) -> Result<Role, Status> {
        if let Some(wait) = self.limit.wait(source, Instant::now()) {
            return Err(Status::resource_exhausted(format!(
                "too many failed attempts to join from {source}: try again in {} s",
                wait.as_secs().max(1)
            )));
        }
        let role = secret::role_of(cluster, presented).map_err(status::of_randomness)?;
        role.ok_or_else(|| {
            self.limit.failed(source, Instant::now());
            tracing::warn!(%source, "attempt to join with a wrong secret");
            Status::unauthenticated(
                "invalid join token: the secret does not match (was it rotated? run `swarmlet \
                 join-token worker|manager` on a manager)",
            )
        })
    }

    /// Adds the node to the state. A manager gets the next number among the voters, and
    /// another one where somebody else took that first.
    async fn add(&self, mut node: Node, address: Option<SocketAddr>) -> Result<Node, Status> {
        for _ in 0..MAX_ATTEMPTS {
            let state = self.current().await?;
            node.manager = match address {
                Some(address) => Some(place(&state, address)?),
                None => None,
            };
            let command = Command::AddNode {
                node: Box::new(node.clone()),
            };
            match propose::one(&self.raft, command).await {
                Ok(_) => return Ok(node),
                Err(Refused::OutOfSequence(_)) => {}
                Err(refused) => return Err(refused.into()),
            }
        }
        Err(Status::aborted(
            "several managers join at the same time: try again",
        ))
    }

    /// Gives a node that is to be a manager its place among them.
    async fn promote(&self, node: &Node, address: SocketAddr) -> Result<ManagerInfo, Status> {
        for _ in 0..MAX_ATTEMPTS {
            let manager = place(&*self.current().await?, address)?;
            let command = Command::SetManager {
                id: node.id.clone(),
                manager: Some(manager.clone()),
            };
            match propose::one(&self.raft, command).await {
                Ok(_) => return Ok(manager),
                Err(Refused::OutOfSequence(_)) => {}
                Err(refused) => return Err(refused.into()),
            }
        }
        Err(Status::aborted(
            "several managers join at the same time: try again",
        ))
    }
}

#[tonic::async_trait]
impl Ca for CaService {
    async fn join(
        &self,
        request: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinResponse>, Status> {
        let source = forward::source(&request)
            .ok_or_else(|| Status::internal("the caller's address is not known"))?;
        let request = request.into_inner();
        let state = self.current().await?;
        let cluster = cluster(&state)?;
        let role = self.admit(cluster, &request.secret, source)?;
        let address = match role {
            Role::Manager => Some(advertised(&request.address)?),
            Role::Worker => None,
        };
        let id = NodeId::from_random(random::bits().map_err(status::of_randomness)?);
        let subject = Subject {
            node: &id,
            cluster: &cluster.id,
            role,
        };
        let certificate = sign(&cluster.root_ca, &request.csr, subject, clock::date())
            .map_err(|error| status::of_ca(&error))?;
        let description = request
            .description
            .ok_or_else(|| Status::invalid_argument("the request has no node description"))?;
        let spec = NodeSpec {
            role,
            availability: availability(&request.availability)?,
            labels: Default::default(),
        };
        let node = new_node(id, spec, description.try_into()?);
        let node = self.add(node, address).await?;
        tracing::info!(node = %node.id, %role, %source, "node joined");
        Ok(Response::new(v1::JoinResponse {
            node_id: node.id.to_string(),
            cluster_id: cluster.id.to_string(),
            certificate,
            root: cluster.root_ca.certificate.clone(),
            role: role.to_string(),
            raft_id: node.manager.map_or(0, |manager| manager.raft_id),
            managers: managers::addresses(&state),
            incarnation: cluster.incarnation,
        }))
    }

    async fn check(
        &self,
        request: Request<v1::CheckRequest>,
    ) -> Result<Response<v1::CheckResponse>, Status> {
        let source = forward::source(&request)
            .ok_or_else(|| Status::internal("the caller's address is not known"))?;
        let request = request.into_inner();
        let state = self.current().await?;
        // Whoever has no secret must not have us try ports.
        let role = self.admit(cluster(&state)?, &request.secret, source)?;
        let tried = outside::address(&request.address, source)?;
        let ports = outside::try_ports(tried, &request.ports).await?;
        Ok(Response::new(v1::CheckResponse {
            now_ms: clock::now().0,
            role: role.to_string(),
            source: source.to_string(),
            tried: tried.to_string(),
            ports,
        }))
    }

    async fn renew(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::RenewResponse>, Status> {
        let peer = forward::caller(&request)
            .ok_or_else(|| Status::unauthenticated("a renewal needs a certificate"))?;
        let state = self.current().await?;
        let cluster = cluster(&state)?;
        let node = state.node(&peer.node).ok_or_else(|| {
            Status::permission_denied(format!("node {} is not part of the cluster", peer.node))
        })?;
        let address = &request.get_ref().address;
        let manager = match &node.manager {
            None if node.spec.role == Role::Manager && !address.is_empty() => {
                Some(self.promote(node, advertised(address)?).await?)
            }
            manager => manager.clone(),
        };
        let subject = Subject {
            node: &node.id,
            cluster: &cluster.id,
            // The state decides, not the old certificate: that is how a promotion or a
            // demotion reaches the node. One that is to be a worker stays a manager for as
            // long as it votes.
            role: match &manager {
                Some(_) => Role::Manager,
                None => Role::Worker,
            },
        };
        let csr = &request.get_ref().csr;
        let certificate = sign(&cluster.root_ca, csr, subject, clock::date())
            .map_err(|error| status::of_ca(&error))?;
        tracing::info!(node = %node.id, role = %subject.role, "certificate renewed");
        Ok(Response::new(v1::RenewResponse {
            certificate,
            root: cluster.root_ca.certificate.clone(),
            role: subject.role.to_string(),
            raft_id: manager.map_or(0, |manager| manager.raft_id),
            managers: managers::addresses(&state),
            incarnation: cluster.incarnation,
        }))
    }
}

fn cluster(state: &State) -> Result<&Cluster, Status> {
    state.cluster().ok_or_else(status::not_leader)
}

/// The place of a new manager among the voters.
fn place(state: &State, address: SocketAddr) -> Result<ManagerInfo, Status> {
    let taken = state.nodes().find(|node| {
        node.manager
            .as_ref()
            .is_some_and(|manager| manager.address == address)
    });
    if let Some(node) = taken {
        return Err(Status::already_exists(format!(
            "a manager at {address} is part of the cluster already (node {}): remove it with \
             `swarmlet node rm --force {}`, or advertise another address",
            node.id, node.id
        )));
    }
    Ok(ManagerInfo {
        raft_id: cluster(state)?.next_raft_id,
        address,
    })
}

fn advertised(text: &str) -> Result<SocketAddr, Status> {
    match text.parse::<SocketAddr>() {
        Ok(address) if !address.ip().is_unspecified() && address.port() != 0 => Ok(address),
        _ => Err(Status::invalid_argument(format!(
            "invalid address {text:?}: a manager advertises an address and a port that other \
             nodes can reach"
        ))),
    }
}

fn availability(text: &str) -> Result<Availability, Status> {
    text.parse()
        .map_err(|error: InvalidAvailability| Status::invalid_argument(error.to_string()))
}

/// A node that counts as silent until its first session.
fn new_node(id: NodeId, spec: NodeSpec, description: NodeDescription) -> Node {
    Node {
        id,
        version: Version::default(),
        created_at: Timestamp::default(),
        spec,
        description,
        status: NodeStatus {
            state: NodeState::Unknown,
            message: "it has joined and not reported yet".to_owned(),
            since: Timestamp::default(),
        },
        manager: None,
        port_problems: Vec::new(),
        problems: Vec::new(),
        superseded: false,
    }
}
