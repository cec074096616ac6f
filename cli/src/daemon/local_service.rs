//! What the command line asks of its own machine's daemon: `Local` of local.proto.

use std::sync::Arc;

use axum::routing::any;
use swarmlet_core::model::{Availability, ClusterSpec, InvalidAvailability, RegistryAuth};
use swarmlet_lb::status::PortError;
use swarmlet_manager::Manager;
use swarmlet_manager::raft::state_hash;
use swarmlet_proto::v1;
use swarmlet_proto::v1::local_balancer_server::LocalBalancerServer;
use swarmlet_proto::v1::local_server::{Local, LocalServer};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use super::balancer::Condition;
use super::local_balancer::LocalBalancerService;
use super::node::{InitWish, JoinWish, Node, SETTLE_JOINED};
use super::settings::Settings;
use super::view::Phase;
use super::{AfterLeave, Daemon, gate};

/// Why `init` and `join` are refused on a node of a cluster.
const ACTIVE: &str = "This node is already part of a swarm. Use \"swarmlet leave\" to leave this \
     swarm and join another one.";

/// Why `leave` is refused elsewhere.
const INACTIVE: &str = "This node is not part of a swarm";

/// Everything that is served on the local socket.
pub(super) fn routes(daemon: Arc<Daemon>) -> Routes {
    let views = daemon.views.clone();
    let balancer = LocalBalancerService {
        views: views.clone(),
    };
    let local = LocalServer::new(LocalService { daemon })
        .max_decoding_message_size(swarmlet_proto::REQUEST_LIMIT_BYTES);
    Routes::new(local)
        .add_service(LocalBalancerServer::new(balancer))
        .into_axum_router()
        .route(
            "/swarmlet.v1.Control/{method}",
            any(gate::control).with_state(views.clone()),
        )
        // The rest of this service is between nodes.
        .route(
            "/swarmlet.v1.Logs/ReadLogs",
            any(gate::control).with_state(views),
        )
        .into()
}

struct LocalService {
    daemon: Arc<Daemon>,
}

#[tonic::async_trait]
impl Local for LocalService {
    async fn info(
        &self,
        _: Request<v1::InfoRequest>,
    ) -> Result<Response<v1::InfoResponse>, Status> {
        let phase = self.daemon.views.now();
        let active = phase.active();
        let text =
            |get: &dyn Fn(&super::view::Active) -> String| active.map(get).unwrap_or_default();
        Ok(Response::new(v1::InfoResponse {
            state: phase.name().to_owned(),
            node_id: text(&|active| active.node.to_string()),
            cluster_id: text(&|active| active.cluster.to_string()),
            role: text(&|active| active.role.to_string()),
            address: text(&|active| active.address.to_string()),
            runtime: text(&|active| active.runtime.to_string()),
            pid: std::process::id(),
            program_version: env!("CARGO_PKG_VERSION").to_owned(),
            raft: active
                .and_then(|active| active.manager.as_ref())
                .map(raft_info),
        }))
    }

    async fn diagnose(
        &self,
        _: Request<v1::DiagnoseRequest>,
    ) -> Result<Response<v1::DiagnoseResponse>, Status> {
        let phase = self.daemon.views.now();
        let Some(active) = phase.active() else {
            return Err(Status::failed_precondition(INACTIVE));
        };
        let session = active.agent.connected().borrow().clone();
        let condition = active.balancer.condition().borrow().clone();
        let port_errors = match &condition {
            Condition::Up(errors) => errors.as_slice(),
            Condition::Down => &[],
        };
        let text = |error: &PortError| format!("port {}: {}", error.port, error.reason);
        Ok(Response::new(v1::DiagnoseResponse {
            manager: session
                .manager
                .map(|manager| manager.to_string())
                .unwrap_or_default(),
            session_error: session.error.clone().unwrap_or_default(),
            expelled: active.expelled().unwrap_or_default(),
            balancer: condition != Condition::Down,
            port_errors: port_errors.iter().map(text).collect(),
            problems: active
                .agent
                .problems()
                .borrow()
                .iter()
                .map(Into::into)
                .collect(),
        }))
    }

    async fn resolve_image(
        &self,
        request: Request<v1::ResolveImageRequest>,
    ) -> Result<Response<v1::ResolveImageResponse>, Status> {
        let phase = self.daemon.views.now();
        let (active, _) = gate::of_manager(&phase)?;
        let v1::ResolveImageRequest {
            image,
            registry_auth,
        } = request.into_inner();
        let auth = registry_auth.map(|auth| RegistryAuth(auth.header));
        let resolved = active.agent.runtime().resolve(&image, auth.as_ref()).await;
        Ok(Response::new(match resolved {
            Ok(Some(resolved)) => v1::ResolveImageResponse {
                image: resolved.image,
                platforms: resolved.platforms.iter().map(Into::into).collect(),
                failure: String::new(),
            },
            Ok(None) => v1::ResolveImageResponse {
                image,
                ..v1::ResolveImageResponse::default()
            },
            Err(error) => v1::ResolveImageResponse {
                image,
                failure: error.to_string(),
                ..v1::ResolveImageResponse::default()
            },
        }))
    }

    async fn init(
        &self,
        request: Request<v1::InitRequest>,
    ) -> Result<Response<v1::InitResponse>, Status> {
        let request = request.into_inner();
        let daemon = self.daemon.clone();
        if request.force_new_cluster {
            let advertise = request.advertise_addr;
            let answer = spawned(async move { daemon.go_on_alone(advertise).await }).await?;
            return Ok(Response::new(answer));
        }
        let wish = InitWish {
            advertise: request.advertise_addr,
            availability: availability(&request.availability)?,
            spec: match request.spec {
                Some(spec) => ClusterSpec::try_from(spec)?,
                None => ClusterSpec::default(),
            },
        };
        // A command line that goes away in the middle must not leave half a node: the work goes
        // on in a task of its own.
        let answer = spawned(async move { daemon.init(wish).await }).await?;
        Ok(Response::new(answer))
    }

    async fn join(
        &self,
        request: Request<v1::LocalJoinRequest>,
    ) -> Result<Response<v1::LocalJoinResponse>, Status> {
        let request = request.into_inner();
        let wish = JoinWish {
            token: request
                .token
                .parse()
                .map_err(|error| Status::invalid_argument(format!("{error}")))?,
            remotes: request.remotes,
            advertise: request.advertise_addr,
            availability: availability(&request.availability)?,
        };
        let daemon = self.daemon.clone();
        let answer = spawned(async move { daemon.join(wish).await }).await?;
        Ok(Response::new(answer))
    }

    async fn leave(
        &self,
        request: Request<v1::LeaveRequest>,
    ) -> Result<Response<v1::LeaveResponse>, Status> {
        let force = request.into_inner().force;
        let daemon = self.daemon.clone();
        spawned(async move { daemon.leave(force).await }).await?;
        Ok(Response::new(v1::LeaveResponse {}))
    }
}

/// How far a manager's copy of the state has come.
fn raft_info(manager: &Manager) -> v1::RaftInfo {
    let state = manager.state();
    let hash = state_hash(&state);
    v1::RaftInfo {
        term: manager.raft().watch_leadership().borrow().term,
        applied_index: state.version().0,
        state_sha256: hash.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

async fn spawned<T: Send + 'static>(
    work: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> Result<T, Status> {
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(error) => Err(Status::internal(format!("the daemon failed: {error}"))),
    }
}

/// A refusal with its causes in one line.
pub(super) fn refused(error: &anyhow::Error) -> Status {
    Status::failed_precondition(format!("{error:#}"))
}

fn availability(text: &str) -> Result<Availability, Status> {
    text.parse()
        .map_err(|error: InvalidAvailability| Status::invalid_argument(error.to_string()))
}

impl Daemon {
    async fn init(&self, wish: InitWish) -> Result<v1::InitResponse, Status> {
        let mut node = self.node.lock().await;
        if node.is_some() {
            return Err(Status::failed_precondition(ACTIVE));
        }
        let settings = Settings::new(&self.flags, None).map_err(|error| refused(&error))?;
        let new = Node::init(&self.layout, settings, wish).await;
        let new = new.map_err(|error| refused(&error))?;
        let answer = new.welcome().await;
        self.views.show(new.view());
        *node = Some(new);
        answer
    }

    async fn join(&self, wish: JoinWish) -> Result<v1::LocalJoinResponse, Status> {
        let mut node = self.node.lock().await;
        if node.is_some() {
            return Err(Status::failed_precondition(ACTIVE));
        }
        let settings = Settings::new(&self.flags, None).map_err(|error| refused(&error))?;
        let new = Node::join(&self.layout, settings, wish).await;
        let new = new.map_err(|error| refused(&error))?;
        let heard = new.settle(SETTLE_JOINED).await;
        let phase = new.view();
        let answer = v1::LocalJoinResponse {
            node_id: phase
                .active()
                .map(|active| active.node.to_string())
                .unwrap_or_default(),
            role: phase
                .active()
                .map(|active| active.role.to_string())
                .unwrap_or_default(),
            unheard: !heard,
        };
        self.views.show(phase);
        *node = Some(new);
        Ok(answer)
    }

    async fn leave(&self, force: bool) -> Result<(), Status> {
        let mut node = self.node.lock().await;
        let Some(leaving) = node.as_ref() else {
            return Err(Status::failed_precondition(INACTIVE));
        };
        leaving
            .may_leave(force)
            .await
            .map_err(|error| refused(&error))?;
        // From here on there is no way back; the node is gone even if its remains are not.
        let result = match node.take() {
            Some(leaving) => leaving.leave(&self.layout).await,
            None => Ok(()),
        };
        match self.after_leave {
            AfterLeave::Stay => self.views.show(Phase::Inactive),
            AfterLeave::End => {
                self.views.show(Phase::Ending);
                self.layout.forget_daemon();
                self.end.cancel();
            }
        }
        result.map_err(|error| refused(&error))
    }
}
