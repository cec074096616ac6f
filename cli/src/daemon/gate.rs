//! The control service on the local socket: the manager's where there is one, and elsewhere an
//! answer that says why there is none, in Docker's words.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use swarmlet_manager::Manager;
use tonic::Status;
use tower::ServiceExt;

use super::view::{Active, Phase, Views};

/// What a node without a swarm answers.
pub(crate) const INACTIVE: &str = "This node is not a swarm manager. Use \"swarmlet init\" or \
     \"swarmlet join\" to connect this node to swarm and try again.";

/// What a worker answers.
pub(crate) const WORKER: &str = "This node is not a swarm manager. Worker nodes can't be used \
     to view or modify cluster state. Please run this command on a manager node or promote the \
     current node to a manager.";

/// How long a call waits for a node that is being brought back, or becomes a worker or a manager:
/// longer than that takes, and no longer than a user waits for an answer without a leader.
const SETTLE_WAIT: Duration = Duration::from_millis(1700);

/// Passes a call on to the manager, or refuses it.
pub(crate) async fn control(State(views): State<Views>, request: Request) -> Response {
    match manager(&views.settled(SETTLE_WAIT).await) {
        Ok(routes) => {
            let answered = routes.into_axum_router().oneshot(request).await;
            match answered {
                Ok(response) => response,
                Err(never) => match never {},
            }
        }
        Err(status) => status.into_http::<Body>(),
    }
}

fn manager(phase: &Phase) -> Result<tonic::service::Routes, Status> {
    let (_, manager) = of_manager(phase)?;
    Ok(manager.local_routes())
}

/// The node, where it is a manager of a cluster.
///
/// # Errors
/// What it answers elsewhere.
pub(super) fn of_manager(phase: &Phase) -> Result<(&Active, &Manager), Status> {
    match phase {
        Phase::Active(active) => match (active.expelled(), &active.manager) {
            (Some(expelled), _) => Err(Status::failed_precondition(expelled)),
            (None, Some(manager)) => Ok((active, manager)),
            (None, None) => Err(Status::failed_precondition(WORKER)),
        },
        Phase::Inactive | Phase::Ending => Err(Status::failed_precondition(INACTIVE)),
        Phase::Starting => Err(Status::unavailable(
            "the daemon is bringing its node back, try again in a moment",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_waits_for_a_node_that_is_about_to_be_there() {
        let views = Views::new(Phase::Starting);
        let call = control(State(views.clone()), Request::new(Body::empty()));
        let shown = async {
            tokio::task::yield_now().await;
            views.show(Phase::Inactive);
        };
        let (response, ()) = tokio::join!(call, shown);
        let status = Status::from_header_map(response.headers()).unwrap();
        assert_eq!(status.message(), INACTIVE);
    }
}
