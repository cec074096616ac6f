//! A manager as a whole: its parts, put together and run.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::middleware::from_fn_with_state;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use swarmlet_core::state::State;
use swarmlet_proto::REQUEST_LIMIT_BYTES;
use swarmlet_proto::transport::IdentityStore;
use swarmlet_proto::v1::ca_server::CaServer;
use swarmlet_proto::v1::control_server::ControlServer;
use swarmlet_proto::v1::dispatcher_server::DispatcherServer;
use swarmlet_proto::v1::logs_server::LogsServer;
use swarmlet_proto::v1::peer_server::PeerServer;

use crate::access::{self, Gate};
use crate::ca::CaService;
use crate::control::ControlService;
use crate::dialer::Dialer;
use crate::dispatcher::collector::{self, Collector};
use crate::dispatcher::feed::{self, TableFeed};
use crate::dispatcher::{DispatcherService, Sessions};
use crate::error::ManagerError;
use crate::forward::{self, Forwarder};
use crate::leader;
use crate::leader::intake::Intake;
use crate::leader::memory::Memory;
use crate::logs::{LogsService, MAX_MESSAGE_BYTES};
use crate::peer::PeerService;
use crate::raft::{Raft, RaftConfig};
use crate::request::CA_LIMIT_BYTES;
use crate::{revocation, roles};

/// The largest report of another manager in bytes: it holds those of many nodes.
const MAX_REPORT_BYTES: usize = 16 << 20;

/// How a manager runs.
#[derive(Debug, Clone)]
pub struct ManagerConfig {
    /// The node's data directory; Raft's files go into `raft` in it.
    pub data_dir: PathBuf,
    /// Address and port at which other nodes reach this manager.
    pub address: SocketAddr,
    /// How often the leader is heard of.
    pub heartbeat: Duration,
    /// Silence of the leader after which an election begins lies between these two.
    pub election: (Duration, Duration),
    /// Log entries between two snapshots.
    pub snapshot_every: u64,
    /// Whether this node has been a voter before. Its log must then be there: starting without
    /// it could undo what it has voted for.
    pub expect_log: bool,
    /// The incarnation of the cluster that this node has joined.
    pub incarnation: u64,
}

impl ManagerConfig {
    /// The usual timings, for a manager that starts for the first time.
    #[must_use]
    pub fn new(data_dir: PathBuf, address: SocketAddr) -> Self {
        let usual = RaftConfig::new(0, PathBuf::new());
        Self {
            data_dir,
            address,
            heartbeat: usual.heartbeat,
            election: usual.election,
            snapshot_every: usual.snapshot_every,
            expect_log: usual.expect_log,
            incarnation: usual.incarnation,
        }
    }

    pub(crate) fn raft(&self, raft_id: u64) -> RaftConfig {
        RaftConfig {
            raft_id,
            dir: self.data_dir.join("raft"),
            heartbeat: self.heartbeat,
            election: self.election,
            snapshot_every: self.snapshot_every,
            expect_log: self.expect_log,
            incarnation: self.incarnation,
        }
    }
}

/// A running manager; clones are handles of the same one.
#[derive(Clone)]
pub struct Manager {
    pub(crate) inner: Arc<Inner>,
}

/// The parts.
pub(crate) struct Inner {
    pub(crate) identities: IdentityStore,
    pub(crate) raft: Raft,
    pub(crate) dialer: Dialer,
    feed: TableFeed,
    collector: Collector,
    sessions: Sessions,
    intake: Intake,
    logs: LogsService,
    /// Whether a request has waited for a leader in vain.
    leaderless: Arc<AtomicBool>,
    stop: CancellationToken,
    tasks: Mutex<JoinSet<()>>,
}

impl Manager {
    /// Starts a manager that is part of a cluster: after a restart, or one that has just
    /// joined. The latter is not a voter yet; its caller serves [`routes`](Self::routes) and
    /// then calls [`join_voters`](Self::join_voters).
    ///
    /// # Errors
    /// [`ManagerError::Raft`] where the log cannot be used.
    pub async fn open(
        config: ManagerConfig,
        identities: IdentityStore,
        raft_id: u64,
    ) -> Result<Self, ManagerError> {
        let raft = open_raft(&config, &identities, raft_id).await?;
        Ok(Self::start(identities, raft))
    }

    /// Puts the parts together and starts those that work by themselves.
    pub(crate) fn start(identities: IdentityStore, raft: Raft) -> Self {
        let memory = Arc::new(Memory::default());
        let dialer = Dialer::new(identities.clone());
        let sessions = Sessions::default();
        let stop = CancellationToken::new();
        let inner = Inner {
            logs: LogsService::new(
                identities.identity().node.clone(),
                raft.clone(),
                dialer.clone(),
                sessions.clone(),
                stop.clone(),
            ),
            dialer,
            feed: TableFeed::new(),
            collector: Collector::default(),
            sessions,
            intake: Intake::new(raft.clone(), memory.clone()),
            leaderless: Arc::default(),
            stop,
            tasks: Mutex::default(),
            identities,
            raft: raft.clone(),
        };
        let stop = || inner.stop.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(leader::run(raft.clone(), memory, stop()));
        tasks.spawn(feed::run(inner.feed.clone(), raft.clone(), stop()));
        tasks.spawn(collector::run(
            inner.collector.clone(),
            raft.clone(),
            inner.intake.clone(),
            inner.dialer.clone(),
            stop(),
        ));
        tasks.spawn(roles::run(raft.clone(), stop()));
        tasks.spawn(revocation::run(inner.identities.clone(), raft, stop()));
        *inner.tasks.lock().unwrap_or_else(PoisonError::into_inner) = tasks;
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The services of the cluster port. Every call is checked against the rules of
    /// [`access`](crate) first, and what only the leader answers goes to the leader.
    #[must_use]
    pub fn routes(&self) -> Routes {
        let inner = &self.inner;
        let gate = Gate {
            cluster: inner.identities.identity().cluster.clone(),
            raft: inner.raft.clone(),
        };
        let dispatcher = DispatcherService {
            raft: inner.raft.clone(),
            dialer: inner.dialer.clone(),
            feed: inner.feed.clone(),
            collector: inner.collector.clone(),
            sessions: inner.sessions.clone(),
            stop: inner.stop.clone(),
        };
        let routes = Routes::new(inner.raft.service())
            .add_service(self.peer_server())
            .add_service(DispatcherServer::new(dispatcher))
            .add_service(self.logs_server())
            .add_service(
                CaServer::new(CaService::new(inner.raft.clone()))
                    .max_decoding_message_size(CA_LIMIT_BYTES),
            )
            .add_service(self.control_server());
        // The layer that is added last sees a request first.
        routes
            .into_axum_router()
            .layer(from_fn_with_state(self.forwarder(), forward::forward))
            .layer(from_fn_with_state(gate, access::guard))
            .into()
    }

    /// The services of the machine's own socket, where file permissions say who may call.
    #[must_use]
    pub fn local_routes(&self) -> Routes {
        Routes::new(self.control_server())
            .add_service(self.logs_server())
            .into_axum_router()
            .layer(from_fn_with_state(self.forwarder(), forward::forward))
            .into()
    }

    /// The identity that this manager shows; to be replaced in there when it is renewed.
    #[must_use]
    pub fn identities(&self) -> &IdentityStore {
        &self.inner.identities
    }

    /// The replicated log, for whoever shows how it does.
    #[must_use]
    pub fn raft(&self) -> &Raft {
        &self.inner.raft
    }

    /// The state as it has been applied on this manager.
    #[must_use]
    pub fn state(&self) -> Arc<State> {
        self.inner.raft.state()
    }

    /// Resolves once this manager cannot go on; never after [`shutdown`](Self::shutdown).
    pub async fn failed(&self) -> ManagerError {
        self.inner.raft.failed().await.into()
    }

    /// Stops: ends all sessions and the part in Raft. Nothing is lost by it; the manager stays
    /// a voter.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        let mut tasks = {
            let mut tasks = self
                .inner
                .tasks
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *tasks)
        };
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a task of the manager ended badly");
            }
        }
        self.inner.raft.shutdown().await;
    }

    /// The service for other managers, with its limit.
    pub(crate) fn peer_server(&self) -> PeerServer<PeerService> {
        let service = PeerService {
            raft: self.inner.raft.clone(),
            intake: self.inner.intake.clone(),
        };
        PeerServer::new(service).max_decoding_message_size(MAX_REPORT_BYTES)
    }

    /// What the command line asks; the same one on the port and on the socket.
    fn control_server(&self) -> ControlServer<ControlService> {
        ControlServer::new(ControlService::new(self.inner.raft.clone()))
            .max_decoding_message_size(REQUEST_LIMIT_BYTES)
    }

    /// The service that brings logs together; the same one on the port and on the socket.
    fn logs_server(&self) -> LogsServer<LogsService> {
        LogsServer::new(self.inner.logs.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    fn forwarder(&self) -> Forwarder {
        Forwarder {
            raft: self.inner.raft.clone(),
            dialer: self.inner.dialer.clone(),
            leaderless: self.inner.leaderless.clone(),
        }
    }
}

/// Opens Raft with connections of its own: a large answer on a shared one would hold up its
/// heartbeats.
pub(crate) async fn open_raft(
    config: &ManagerConfig,
    identities: &IdentityStore,
    raft_id: u64,
) -> Result<Raft, ManagerError> {
    let dialer = Dialer::new(identities.clone());
    let opened = Raft::open(config.raft(raft_id), move |address| dialer.channel(address));
    Ok(opened.await?)
}
