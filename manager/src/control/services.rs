//! The rules about services, and what is shown of them.

use futures_util::Stream;
use prost::Message;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::WatchStream;
use tonic::Status;

use swarmlet_core::model::{MAX_SPEC_BYTES, Service, ServiceId, ServiceSpec, Task, TaskSpec};
use swarmlet_core::state::State;
use swarmlet_proto::v1;

use crate::raft::Raft;
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
        if new.registry_auth.is_none() && registry(&old.image) == registry(&new.image) {
            new.registry_auth.clone_from(&old.registry_auth);
        }
    }
}

/// The registry in an image reference, by Docker's rule: what comes before the first slash,
/// where it looks like a host; otherwise Docker Hub.
fn registry(image: &str) -> Option<&str> {
    let (host, _) = image.split_once('/')?;
    (host.contains(['.', ':']) || host == "localhost").then_some(host)
}

/// A service as it is shown: without credentials.
pub(super) fn shown(service: &Service) -> v1::Service {
    let mut service = service.clone();
    hide_credentials(&mut service.spec.task);
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
    let leadership = raft.watch_leadership();
    let mut last: Option<v1::WatchServiceResponse> = None;
    let mut over = false;
    // A change of the leader is no change of the state, and must end the stream all the same:
    // a deposed leader's state stands still.
    let states = WatchStream::new(raft.watch_state()).map(drop);
    let leaders = WatchStream::new(leadership.clone()).map(drop);
    states
        .merge(leaders)
        .map_while(move |()| {
            if over {
                return None;
            }
            if !leadership.borrow().is_self {
                over = true;
                return Some(Some(Err(status::not_leader())));
            }
            let now = view(&raft.state(), &id);
            over = now.service.is_none();
            let unchanged = last
                .as_ref()
                .is_some_and(|last| last.service == now.service && last.tasks == now.tasks);
            if unchanged {
                return Some(None);
            }
            last = Some(now.clone());
            Some(Some(Ok(now)))
        })
        .filter_map(|item| item)
}

fn view(state: &State, id: &ServiceId) -> v1::WatchServiceResponse {
    v1::WatchServiceResponse {
        version: state.version().0,
        service: state.service(id).map(shown),
        tasks: state.tasks_of(id).map(task_shown).collect(),
    }
}
