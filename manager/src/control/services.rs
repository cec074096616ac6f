//! The rules about services, and what is shown of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::{Stream, stream};
use prost::Message;
use tokio::sync::watch;
use tonic::Status;

use swarmlet_core::model::{
    MAX_SPEC_BYTES, NodeId, NodeState, Service, ServiceId, ServiceSpec, Task, TaskSpec,
};
use swarmlet_core::state::State;
use swarmlet_proto::v1;

use crate::raft::{Leadership, Raft};
use crate::status;

/// Reads a specification and refuses what cannot be carried out.
pub(super) fn validated(spec: v1::ServiceSpec) -> Result<ServiceSpec, Status> {
    let size = spec.encoded_len();
    // The entry that carries it has a limit of its own, and there is more in it.
    if size > MAX_SPEC_BYTES {
        return Err(Status::invalid_argument(format!(
            "the service specification is too large: {size} bytes, at most {MAX_SPEC_BYTES}"
        )));
    }
    let spec: ServiceSpec = spec.try_into()?;
    spec.validate().map_err(|error| status::of_spec(&error))?;
    Ok(spec)
}

/// Keeps the registry credentials where an update names none: they are never shown, so whoever
/// reads a specification, changes it and sends it back cannot send them. An image of another
/// registry does not get them: its owner would.
pub(super) fn keep_credentials(old: &ServiceSpec, new: &mut ServiceSpec) {
    for (old, new) in old.task.containers.iter().zip(&mut new.task.containers) {
        if new.registry_auth.is_none() && new.shares_registry(old) {
            new.registry_auth.clone_from(&old.registry_auth);
        }
    }
}

/// A service as it is shown: without credentials.
pub(super) fn shown(service: &Service) -> v1::Service {
    let mut service = service.clone();
    hide_credentials(&mut service.spec.task);
    if let Some(previous) = &mut service.previous_spec {
        hide_credentials(&mut previous.task);
    }
    (&service).into()
}

/// A task as it is shown: without credentials.
pub(super) fn task_shown(task: &Task) -> v1::Task {
    let mut task = task.clone();
    hide_credentials(&mut task.spec);
    (&task).into()
}

fn hide_credentials(spec: &mut TaskSpec) {
    for container in &mut spec.containers {
        container.registry_auth = None;
    }
}

/// A service and its tasks, after every change of them, until the service is gone. It ends
/// with an error where this manager does not lead any more; the caller then asks again.
pub(super) fn watch(
    raft: Raft,
    id: ServiceId,
) -> impl Stream<Item = Result<v1::WatchServiceResponse, Status>> + Send {
    let watch = Watch {
        states: raft.watch_state(),
        leadership: raft.watch_leadership(),
        id,
        last: None,
        over: false,
    };
    stream::unfold(watch, |mut watch| async move {
        let next = watch.next().await?;
        Some((next, watch))
    })
}

struct Watch {
    states: watch::Receiver<Arc<State>>,
    leadership: watch::Receiver<Leadership>,
    id: ServiceId,
    last: Option<v1::WatchServiceResponse>,
    over: bool,
}

impl Watch {
    async fn next(&mut self) -> Option<Result<v1::WatchServiceResponse, Status>> {
        while !self.over {
            // A deposed leader's state stands still, so its office is watched as well.
            if !self.leadership.borrow_and_update().is_self {
                self.over = true;
                return Some(Err(status::not_leader()));
            }
            let now = view(&self.states.borrow_and_update(), &self.id);
            let last = self.last.as_ref();
            if last.is_none_or(|last| is_news(last, &now)) {
                self.over = now.service.is_none();
                self.last = Some(now.clone());
                return Some(Ok(now));
            }
            let changed = tokio::select! {
                changed = self.states.changed() => changed,
                changed = self.leadership.changed() => changed,
            };
            // An error is the end of Raft on this manager.
            changed.ok()?;
        }
        None
    }
}

/// Whether anything is different but the version, which every change in the cluster raises.
fn is_news(last: &v1::WatchServiceResponse, now: &v1::WatchServiceResponse) -> bool {
    (&last.service, &last.tasks, &last.down_nodes) != (&now.service, &now.tasks, &now.down_nodes)
}

fn view(state: &State, id: &ServiceId) -> v1::WatchServiceResponse {
    let nodes: BTreeSet<&NodeId> = state.tasks_of(id).filter_map(|t| t.node.as_ref()).collect();
    let is_down = |id: &&&NodeId| {
        let node = state.node(id);
        node.is_none_or(|node| node.status.state == NodeState::Down)
    };
    v1::WatchServiceResponse {
        version: state.version().0,
        service: state.service(id).map(shown),
        tasks: state.tasks_of(id).map(task_shown).collect(),
        down_nodes: nodes
            .iter()
            .filter(is_down)
            .map(|id| id.to_string())
            .collect(),
    }
}
