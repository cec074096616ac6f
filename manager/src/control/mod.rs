//! The service `Control`: what the command line asks of the cluster, answered by the leader.
//!
//! Every call is read from a linearizable state or proposed to the log, so that a user sees
//! what he has just done whichever manager he asks. [`nodes`] and [`services`] hold the
//! rules, [`resolve`] finds objects by what users call them.

mod nodes;
mod plan;
pub(crate) mod resolve;
mod services;
#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use tonic::{Request, Response, Status};

use swarmlet_core::command::Command;
use swarmlet_core::model::{NodeSpec, Role, ServiceId, Task, Version};
use swarmlet_core::rebalance;
use swarmlet_core::state::State;
use swarmlet_proto::v1;
use swarmlet_proto::v1::control_server::Control;

use crate::ca::secret;
use crate::forward::MayBeStale;
use crate::raft::Raft;
use crate::{managers, propose, random, status};

/// The service.
#[derive(Clone)]
pub(crate) struct ControlService {
    raft: Raft,
}

impl ControlService {
    pub(crate) fn new(raft: Raft) -> Self {
        Self { raft }
    }

    async fn current(&self) -> Result<Arc<State>, Status> {
        let state = self.raft.linearizable().await;
        state.map_err(|error| status::of_proposal(&error))
    }

    /// The state to answer a read from: the latest one, or what this replica has where the
    /// managers have no leader, and the answer says so.
    async fn readable<T>(&self, request: &Request<T>) -> Result<Arc<State>, Status> {
        match request.extensions().get::<MayBeStale>() {
            Some(MayBeStale) => Ok(self.raft.state()),
            None => {
                let state = self.raft.linearizable().await;
                state.map_err(|error| status::of_read(&error))
            }
        }
    }

    async fn propose(&self, command: Command) -> Result<Version, Status> {
        Ok(propose::one(&self.raft, command).await?)
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Control for ControlService {
    async fn list_nodes(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Answer<v1::ListNodesResponse> {
        let state = self.readable(&request).await?;
        Ok(Response::new(nodes::list(&state, &self.raft)))
    }

    async fn update_node(
        &self,
        request: Request<v1::UpdateNodeRequest>,
    ) -> Answer<v1::UpdateNodeResponse> {
        let request = request.into_inner();
        let state = self.current().await?;
        let node = resolve::node(&state, &request.id)?;
        let spec: NodeSpec = required(request.spec, "spec")?.try_into()?;
        nodes::may_become(&state, node, spec.role, &self.raft).await?;
        let command = Command::UpdateNode {
            id: node.id.clone(),
            expected: Version(request.expected),
            spec,
        };
        let version = self.propose(command).await?.0;
        Ok(Response::new(v1::UpdateNodeResponse { version }))
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Answer<v1::RemoveNodeResponse> {
        let request = request.into_inner();
        let state = self.current().await?;
        let node = resolve::node(&state, &request.id)?;
        let how = if request.force {
            nodes::Removal::Forced
        } else {
            nodes::Removal::Asked
        };
        nodes::may_remove(node, &self.raft.voters(), how)?;
        nodes::withdraw(node, &self.raft).await?;
        let id = node.id.clone();
        let version = self.propose(Command::RemoveNode { id }).await?.0;
        Ok(Response::new(v1::RemoveNodeResponse { version }))
    }

    async fn create_service(
        &self,
        request: Request<v1::CreateServiceRequest>,
    ) -> Answer<v1::CreateServiceResponse> {
        let spec = required(request.into_inner().spec, "spec")?;
        let spec = services::validated(spec)?;
        let id = ServiceId::from_random(random::bits().map_err(status::of_randomness)?);
        let command = Command::CreateService {
            id: id.clone(),
            spec: Box::new(spec),
        };
        let version = self.propose(command).await?.0;
        Ok(Response::new(v1::CreateServiceResponse {
            id: id.to_string(),
            version,
        }))
    }

    async fn update_service(
        &self,
        request: Request<v1::UpdateServiceRequest>,
    ) -> Answer<v1::UpdateServiceResponse> {
        let request = request.into_inner();
        let state = self.current().await?;
        let service = resolve::service(&state, &request.id)?;
        let mut spec = services::validated(required(request.spec, "spec")?)?;
        services::keep_credentials(&service.spec, &mut spec);
        let command = Command::UpdateService {
            id: service.id.clone(),
            expected: Version(request.expected),
            spec: Box::new(spec),
        };
        let version = self.propose(command).await?.0;
        Ok(Response::new(v1::UpdateServiceResponse { version }))
    }

    async fn rollback_service(
        &self,
        request: Request<v1::RollbackServiceRequest>,
    ) -> Answer<v1::RollbackServiceResponse> {
        let request = request.into_inner();
        let state = self.current().await?;
        let command = Command::RollbackService {
            id: resolve::service(&state, &request.id)?.id.clone(),
            expected: Version(request.expected),
            message: "manually requested rollback".to_owned(),
        };
        let version = self.propose(command).await?.0;
        Ok(Response::new(v1::RollbackServiceResponse { version }))
    }

    async fn rebalance_service(
        &self,
        request: Request<v1::RebalanceServiceRequest>,
    ) -> Answer<v1::RebalanceServiceResponse> {
        let state = self.current().await?;
        let id = &resolve::service(&state, &request.get_ref().id)?.id;
        let (version, moves) = match rebalance::start(&state, id) {
            Some((command, moves)) => (self.propose(command).await?.0, moves),
            None => (state.version().0, 0),
        };
        Ok(Response::new(v1::RebalanceServiceResponse {
            version,
            moves,
        }))
    }

    async fn remove_service(
        &self,
        request: Request<v1::RemoveServiceRequest>,
    ) -> Answer<v1::RemoveServiceResponse> {
        let state = self.current().await?;
        let id = resolve::service(&state, &request.get_ref().id)?.id.clone();
        let version = self.propose(Command::RemoveService { id }).await?.0;
        Ok(Response::new(v1::RemoveServiceResponse { version }))
    }

    async fn list_services(
        &self,
        request: Request<v1::ListServicesRequest>,
    ) -> Answer<v1::ListServicesResponse> {
        let state = self.readable(&request).await?;
        Ok(Response::new(v1::ListServicesResponse {
            version: state.version().0,
            // One that is being removed is gone for its user; what is left of its tasks shows
            // on their nodes.
            services: state
                .services()
                .filter(|service| !service.removing)
                .map(services::shown)
                .collect(),
        }))
    }

    async fn list_tasks(
        &self,
        request: Request<v1::ListTasksRequest>,
    ) -> Answer<v1::ListTasksResponse> {
        let state = self.readable(&request).await?;
        let request = request.get_ref();
        let service = match request.service_id.as_str() {
            "" => None,
            name => Some(&resolve::service(&state, name)?.id),
        };
        let node = match request.node_id.as_str() {
            "" => None,
            name => Some(&resolve::node(&state, name)?.id),
        };
        let matches = |task: &&Task| {
            service.is_none_or(|service| task.service == *service)
                && node.is_none_or(|node| task.node.as_ref() == Some(node))
        };
        Ok(Response::new(v1::ListTasksResponse {
            version: state.version().0,
            tasks: state
                .tasks()
                .filter(matches)
                .map(services::task_shown)
                .collect(),
        }))
    }

    type WatchServiceStream =
        Pin<Box<dyn Stream<Item = Result<v1::WatchServiceResponse, Status>> + Send>>;

    async fn watch_service(
        &self,
        request: Request<v1::WatchServiceRequest>,
    ) -> Answer<Self::WatchServiceStream> {
        let state = self.current().await?;
        let id = resolve::service(&state, &request.get_ref().service_id)?
            .id
            .clone();
        let stream = services::watch(self.raft.clone(), id);
        Ok(Response::new(Box::pin(stream)))
    }

    async fn plan(&self, request: Request<v1::PlanRequest>) -> Answer<v1::PlanResponse> {
        let state = self.current().await?;
        let changes = plan::changes(&state, &self.raft, request.into_inner()).await?;
        Ok(Response::new(plan::work_out(state, changes).await?))
    }

    async fn join_token(
        &self,
        request: Request<v1::JoinTokenRequest>,
    ) -> Answer<v1::JoinTokenResponse> {
        let request = request.get_ref();
        let role = match request.role.as_str() {
            "worker" => Role::Worker,
            "manager" => Role::Manager,
            other => {
                return Err(Status::invalid_argument(format!(
                    "unknown role {other:?}: expected worker or manager"
                )));
            }
        };
        let mut state = self.current().await?;
        if request.rotate {
            let root = &state.cluster().ok_or_else(status::not_leader)?.root_ca;
            let secret = secret::rotate(root, role).map_err(status::of_randomness)?;
            let version = self
                .propose(Command::RotateJoinSecret { role, secret })
                .await?;
            tracing::info!(%role, %version, "join token rotated");
            state = self.current().await?;
        }
        let cluster = state.cluster().ok_or_else(status::not_leader)?;
        Ok(Response::new(v1::JoinTokenResponse {
            token: secret::token(cluster, role).to_string(),
            addresses: nodes::leader_first(managers::addresses(&state), &self.raft),
        }))
    }
}

fn required<T>(field: Option<T>, name: &str) -> Result<T, Status> {
    field.ok_or_else(|| Status::invalid_argument(format!("the request has no {name}")))
}
