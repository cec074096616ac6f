//! The service `Peer`: what managers tell each other beside Raft.

use tonic::{Request, Response, Status};

use swarmlet_core::command::Command;
use swarmlet_core::model::NodeId;
use swarmlet_core::state::State;
use swarmlet_proto::v1;
use swarmlet_proto::v1::peer_server::Peer;

use crate::leader::intake::Intake;
use crate::news;
use crate::raft::Raft;
use crate::{clock, propose, status};

/// The service. `Report` and `ReadVersion` are sent to the leader and refused by any other
/// manager; changes of the voters are forwarded to it.
#[derive(Clone)]
pub(crate) struct PeerService {
    pub(crate) raft: Raft,
    pub(crate) intake: Intake,
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn report(
        &self,
        request: Request<v1::ReportRequest>,
    ) -> Result<Response<v1::ReportResponse>, Status> {
        if !self.raft.watch_leadership().borrow().is_self {
            return Err(status::not_leader());
        }
        let batch = news::decode(request.into_inner(), clock::now())?;
        let accepted = self.intake.accept(&batch).await;
        accepted.map_err(|error| status::of_proposal(&error))?;
        Ok(Response::new(v1::ReportResponse {}))
    }

    async fn read_version(
        &self,
        _: Request<v1::ReadVersionRequest>,
    ) -> Result<Response<v1::ReadVersionResponse>, Status> {
        let state = self.raft.linearizable().await;
        let version = state
            .map_err(|error| status::of_proposal(&error))?
            .version()
            .0;
        Ok(Response::new(v1::ReadVersionResponse { version }))
    }

    async fn add_voter(
        &self,
        request: Request<v1::AddVoterRequest>,
    ) -> Result<Response<v1::AddVoterResponse>, Status> {
        let state = self.raft.linearizable().await;
        let state = state.map_err(|error| status::of_proposal(&error))?;
        let id = node_id(&request.get_ref().node_id)?;
        let node = known(&state, &id)?;
        let manager = node.manager.as_ref().ok_or_else(|| {
            Status::failed_precondition(format!("node {id} has not joined as a manager"))
        })?;
        let added = self.raft.add_voter(manager.raft_id, manager.address).await;
        added.map_err(|error| status::of_members(&error))?;
        tracing::info!(node = %id, raft_id = manager.raft_id, "manager is a voter");
        Ok(Response::new(v1::AddVoterResponse {}))
    }

    async fn remove_voter(
        &self,
        request: Request<v1::RemoveVoterRequest>,
    ) -> Result<Response<v1::RemoveVoterResponse>, Status> {
        let state = self.raft.linearizable().await;
        let state = state.map_err(|error| status::of_proposal(&error))?;
        let id = node_id(&request.get_ref().node_id)?;
        let Some(manager) = known(&state, &id)?.manager.clone() else {
            return Ok(Response::new(v1::RemoveVoterResponse {}));
        };
        let removed = self.raft.remove_voter(manager.raft_id).await;
        removed.map_err(|error| status::of_members(&error))?;
        // A leader that has removed itself cannot write this any more; its node asks the next
        // leader again, which then has nothing to do but this.
        let command = Command::SetManager {
            id: id.clone(),
            manager: None,
        };
        propose::one(&self.raft, command).await?;
        tracing::info!(node = %id, raft_id = manager.raft_id, "manager is no voter any more");
        Ok(Response::new(v1::RemoveVoterResponse {}))
    }
}

fn node_id(text: &str) -> Result<NodeId, Status> {
    NodeId::parse(text).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn known<'a>(state: &'a State, id: &NodeId) -> Result<&'a swarmlet_core::model::Node, Status> {
    state
        .node(id)
        .ok_or_else(|| Status::not_found(format!("no such node: {id}")))
}
