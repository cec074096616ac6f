//! What changes would do: the deciders' own answer, worked out on a copy of the state.

use std::sync::Arc;

use tonic::Status;

use swarmlet_core::model::{NodeId, NodeSpec, Version};
use swarmlet_core::plan::{self, Change, Object, Step};
use swarmlet_core::state::State;
use swarmlet_proto::v1;
use swarmlet_proto::v1::planned_change::Change as Request;

use super::{nodes, required, resolve, services};
use crate::raft::Raft;
use crate::{clock, random, status};

/// Most changes in one plan: `scale` names a service for each, and every change is applied.
const MOST_CHANGES: usize = 1000;

/// Reads what is thought of, with the rules that hold for doing it.
///
/// # Errors
/// One of the changes would be refused.
pub(super) async fn changes(
    state: &State,
    raft: &Raft,
    request: v1::PlanRequest,
) -> Result<Vec<Change>, Status> {
    if request.changes.len() > MOST_CHANGES {
        return Err(Status::invalid_argument(format!(
            "{} changes are too many for one plan: at most {MOST_CHANGES}",
            request.changes.len()
        )));
    }
    let mut changes = Vec::new();
    for change in request.changes {
        changes.push(one(state, raft, required(change.change, "change")?).await?);
    }
    Ok(changes)
}

async fn one(state: &State, raft: &Raft, request: Request) -> Result<Change, Status> {
    Ok(match request {
        Request::CreateService(request) => {
            let spec = services::validated(required(request.spec, "spec")?)?;
            Change::CreateService(Box::new(spec))
        }
        Request::UpdateService(request) => {
            let service = resolve::service(state, &request.id)?;
            let mut spec = services::validated(required(request.spec, "spec")?)?;
            services::keep_credentials(&service.spec, &mut spec);
            Change::UpdateService {
                id: service.id.clone(),
                expected: Version(request.expected),
                spec: Box::new(spec),
            }
        }
        Request::RollbackService(request) => Change::RollbackService {
            id: resolve::service(state, &request.id)?.id.clone(),
            expected: Version(request.expected),
        },
        Request::RebalanceService(request) => {
            Change::Rebalance(resolve::service(state, &request.id)?.id.clone())
        }
        Request::UpdateNode(request) => {
            let node = resolve::node(state, &request.id)?;
            let spec: NodeSpec = required(request.spec, "spec")?.try_into()?;
            nodes::may_become(state, node, spec.role, raft).await?;
            Change::UpdateNode {
                id: node.id.clone(),
                expected: Version(request.expected),
                spec,
            }
        }
    })
}

/// Works the plan out, on a thread of its own: with thousands of tasks it takes a while.
///
/// # Errors
/// One of the changes would be refused.
pub(super) async fn work_out(
    state: Arc<State>,
    changes: Vec<Change>,
) -> Result<v1::PlanResponse, Status> {
    let now = clock::now();
    let seed = random::seed().map_err(status::of_randomness)?;
    let work = move || {
        let plan = plan::plan(&state, &changes, now, seed)?;
        Ok(v1::PlanResponse {
            version: state.version().0,
            steps: plan.steps.iter().map(|step| shown(&state, step)).collect(),
            cut_short: !plan.is_complete,
        })
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Status::internal(format!("the plan was not worked out: {error}")))?
        .map_err(|rejection| status::of_rejection(&rejection))
}

fn shown(state: &State, step: &Step) -> v1::PlanStep {
    let hostname = |id: &NodeId| {
        let node = state.node(id);
        node.map_or_else(|| id.to_string(), |node| node.description.hostname.clone())
    };
    let (kind, name) = match &step.object {
        Object::Service(name) => ("service", name.clone()),
        Object::Node(id) => ("node", hostname(id)),
        Object::Task(name) => ("task", name.clone()),
    };
    v1::PlanStep {
        action: step.action.to_string(),
        kind: kind.to_owned(),
        name,
        from: step.from.as_ref().map(hostname),
        to: step.to.as_ref().map(hostname),
        reason: step.reason.clone(),
    }
}
