//! A node of a cluster: how it comes to be, what it is made of, and how it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use swarmlet_agent::runtime::{self, Choice, Runtime};
use swarmlet_agent::{Agent, AgentConfig, NodeFacts, Watched, describe};
use swarmlet_core::model::{
    Availability, ClusterSpec, DiskUser, NodeState, Resources, Role, RuntimeKind,
};
use swarmlet_manager::{BootstrapRequest, Manager, ManagerConfig};
use swarmlet_proto::identity::Identity;
use swarmlet_proto::token::JoinToken;
use swarmlet_proto::transport::{IdentityStore, serve};
use swarmlet_proto::v1;
use swarmlet_proto::v1::control_client::ControlClient;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::advertise::advertise;
use super::balancer::{Balancer, Launch};
use super::settings::{Settings, generic_resources};
use super::store::{Layout, NodeRecord, StoredRuntime};
use super::view::{Active, Phase};
use super::{join, renew, role};
use crate::args::RuntimeArg;

/// How long a manager that leaves tries to tell the others.
const LEAVE_VOTERS: Duration = Duration::from_secs(15);

/// How long `init` waits for the node to be ready: some fifty milliseconds usually. At an address
/// that is not this machine's it never is, and whoever mistyped one is to be told soon.
pub(super) const SETTLE: Duration = Duration::from_secs(3);

/// How long `join` waits for it. On a busy machine the engine takes its time to say what it is, and
/// the new manager to hear of its leader.
pub(super) const SETTLE_JOINED: Duration = Duration::from_secs(10);

/// What `init` asks for.
pub(super) struct InitWish {
    pub(super) advertise: String,
    pub(super) availability: Availability,
    pub(super) spec: ClusterSpec,
}

/// What `join` asks for.
pub(super) struct JoinWish {
    pub(super) token: JoinToken,
    pub(super) remotes: Vec<String>,
    pub(super) advertise: String,
    pub(super) availability: Availability,
}

/// A running node.
pub(crate) struct Node {
    record: NodeRecord,
    identities: IdentityStore,
    runtime: RuntimeKind,
    manager: Option<Manager>,
    agent: Arc<Agent>,
    balancer: Balancer,
    /// Ends what runs beside: the server and the renewal.
    stop: CancellationToken,
}

/// What a node is put together from.
struct Parts {
    record: NodeRecord,
    identities: IdentityStore,
    runtime: Arc<dyn Runtime>,
    facts: NodeFacts,
    manager: Option<Manager>,
    balancer: Option<Balancer>,
    /// A balancer that is started gets a unit of its own.
    lb_unit: bool,
    /// Ends what was started for it already.
    stop: CancellationToken,
}

impl Node {
    /// Makes a cluster with this node as its first.
    pub(super) async fn init(layout: &Layout, settings: Settings, wish: InitWish) -> Result<Self> {
        // Remains of an attempt that did not come to an end.
        layout.wipe()?;
        let address = advertise(&wish.advertise, settings.stored.listen, None)?;
        let listener = listen(settings.stored.listen).await?;
        let runtime = detect(&settings).await?;
        let facts = facts(&settings, address)?;
        let record = record(&settings, address, runtime.kind());
        let request = BootstrapRequest {
            spec: wish.spec,
            availability: wish.availability,
            description: describe(&facts, runtime.as_ref()).await,
        };
        let config = manager_config(layout, &record);
        let (manager, identity) = Manager::bootstrap(config, request).await?;
        let record = NodeRecord {
            raft_id: Some(FIRST_RAFT_ID),
            votes: true,
            ..record
        };
        let kept = identity
            .save(&layout.certificates())
            .context("cannot keep the node's certificate")
            .and_then(|()| layout.save(&record));
        if let Err(error) = kept {
            manager.shutdown().await;
            layout.wipe()?;
            return Err(error);
        }
        let stop = CancellationToken::new();
        serve_manager(&manager, listener, &stop);
        let parts = Parts {
            record,
            identities: manager.identities().clone(),
            runtime,
            facts,
            manager: Some(manager),
            balancer: None,
            lb_unit: settings.lb_unit,
            stop,
        };
        tracing::info!(%address, node = %identity.node, "made a swarm");
        let node = Self::start(layout, parts).await?;
        node.settle(SETTLE).await;
        Ok(node)
    }

    /// Makes this node one of a cluster that exists.
    pub(super) async fn join(layout: &Layout, settings: Settings, wish: JoinWish) -> Result<Self> {
        layout.wipe()?;
        // Whether it will have to listen is known only afterwards; what stands in the way of
        // it should be known before.
        let listener = listen(settings.stored.listen).await;
        let runtime = detect(&settings).await?;
        let listen_at = settings.stored.listen;
        let description = describe(&facts(&settings, listen_at)?, runtime.as_ref()).await;
        let joined = join::join(&wish, listen_at, &description).await?;
        let facts = facts(&settings, joined.advertise)?;
        let record = NodeRecord {
            raft_id: joined.raft_id,
            votes: joined.raft_id.is_some(),
            incarnation: joined.incarnation,
            managers: joined.managers.clone(),
            ..record(&settings, joined.advertise, runtime.kind())
        };
        let identity = joined.identity;
        let identities = IdentityStore::new(identity.clone())?;
        let stop = CancellationToken::new();
        let manager = match joined.raft_id {
            None => None,
            Some(raft_id) => {
                let listener =
                    listener.context("the node has joined as a manager but cannot be one")?;
                let config = manager_config(layout, &record);
                let manager = Manager::open(config, identities.clone(), raft_id).await?;
                serve_manager(&manager, listener, &stop);
                if let Err(error) = manager.join_voters(&joined.managers).await {
                    stop.cancel();
                    manager.shutdown().await;
                    layout.wipe()?;
                    return Err(error.into());
                }
                Some(manager)
            }
        };
        identity
            .save(&layout.certificates())
            .context("cannot keep the node's certificate")?;
        layout.save(&record)?;
        tracing::info!(address = %record.advertise, node = %identity.node, role = %identity.role, "joined a swarm");
        let parts = Parts {
            record,
            identities,
            runtime,
            facts,
            manager,
            balancer: None,
            lb_unit: settings.lb_unit,
            stop,
        };
        Self::start(layout, parts).await
    }

    /// Brings back the node that is on disk, with the balancer that this process has already.
    pub(super) async fn restore(
        layout: &Layout,
        settings: Settings,
        record: NodeRecord,
        balancer: Option<Balancer>,
    ) -> Result<Self> {
        let identity = Identity::load(&layout.certificates())?
            .context("the node's certificate is missing: restore it, or remove the node's data and join again")?;
        let record = NodeRecord {
            settings: settings.stored.clone(),
            ..record
        };
        layout.save(&record)?;
        let identities = IdentityStore::new(identity)?;
        let choice = match record.runtime {
            StoredRuntime::Docker => Choice::Docker,
            StoredRuntime::Process => Choice::Process,
        };
        let runtime = runtime::detect(choice, record.settings.docker_host.as_deref()).await?;
        let stop = CancellationToken::new();
        let manager = match record.raft_id {
            None => None,
            Some(raft_id) => {
                let listener = listen(record.settings.listen).await?;
                let config = ManagerConfig {
                    expect_log: record.votes,
                    ..manager_config(layout, &record)
                };
                let manager = Manager::open(config, identities.clone(), raft_id).await?;
                serve_manager(&manager, listener, &stop);
                if !record.votes {
                    let (layout, record) = (layout.clone(), record.clone());
                    tokio::spawn(role::vote(layout, manager.clone(), record, stop.clone()));
                }
                Some(manager)
            }
        };
        let parts = Parts {
            balancer,
            lb_unit: settings.lb_unit,
            facts: facts(&settings, record.advertise)?,
            record,
            identities,
            runtime,
            manager,
            stop,
        };
        tracing::info!("brought the node back");
        Self::start(layout, parts).await
    }

    /// Starts what every node has.
    async fn start(layout: &Layout, parts: Parts) -> Result<Self> {
        let Parts {
            record,
            identities,
            runtime,
            facts,
            manager,
            balancer,
            lb_unit,
            stop,
        } = parts;
        let start = || {
            let stored = &record.settings;
            let launch = Launch {
                layout: layout.clone(),
                ingress: stored.ingress.clone(),
                settings: stored.balancer.clone(),
                in_unit: lb_unit,
            };
            Balancer::start(launch, stored.http.port())
        };
        let balancer = balancer.unwrap_or_else(start);
        let mut managers = record.managers.clone();
        if manager.is_some() {
            managers.insert(0, record.advertise);
        }
        let identity = identities.identity();
        let config = AgentConfig {
            data_dir: layout.agent(),
            node: identity.node.clone(),
            cluster: identity.cluster.clone(),
            advertise: facts.advertise,
            hostname: facts.hostname,
            task_ports: facts.task_ports,
            reserve: facts.reserve,
            generic: facts.generic,
            watched: watched(layout),
            managers,
        };
        let sink = Arc::new(balancer.clone());
        let kind = runtime.kind();
        let agent = Agent::start(config, identities.clone(), runtime, sink).await?;
        let agent = Arc::new(agent);
        tokio::spawn(renew::run(
            layout.certificates(),
            identities.clone(),
            agent.clone(),
            stop.clone(),
        ));
        Ok(Self {
            record,
            identities,
            runtime: kind,
            manager,
            agent,
            balancer,
            stop,
        })
    }

    /// Waits until the node's agent has reported, so that who looks at the list of nodes next
    /// finds it ready. Nothing depends on it, and so it waits only for a moment; says whether it
    /// has.
    pub(super) async fn settle(&self, moment: Duration) -> bool {
        let settled = async {
            let mut connected = self.agent.connected();
            let session = connected
                .wait_for(|connection| connection.manager.is_some())
                .await
                .is_ok();
            if let (true, Some(manager)) = (session, &self.manager) {
                let node = self.identities.identity().node.clone();
                let mut states = manager.raft().watch_state();
                // It fails only where the manager has ended.
                let _ = states
                    .wait_for(|state| {
                        state
                            .node(&node)
                            .is_some_and(|node| node.status.state == NodeState::Ready)
                    })
                    .await;
            }
        };
        let in_time = tokio::time::timeout(moment, settled).await.is_ok();
        if !in_time {
            tracing::warn!("the agent has no session with a manager yet");
        }
        in_time
    }

    /// What it is, for everybody who only wants to know.
    pub(super) fn view(&self) -> Phase {
        let identity = self.identities.identity();
        Phase::Active(Active {
            node: identity.node.clone(),
            cluster: identity.cluster.clone(),
            // A certificate is kept before the rest is: what the node is made of counts.
            role: match self.manager {
                Some(_) => Role::Manager,
                None => Role::Worker,
            },
            address: self.record.advertise,
            runtime: self.runtime,
            manager: self.manager.clone(),
            identities: self.identities.clone(),
            agent: self.agent.clone(),
            balancer: self.balancer.clone(),
        })
    }

    /// What `init` answers: who this is, and how others join.
    pub(super) async fn welcome(&self) -> Result<v1::InitResponse, Status> {
        let Some(manager) = &self.manager else {
            return Err(Status::internal("the first node is no manager"));
        };
        let request = v1::JoinTokenRequest {
            role: Role::Worker.to_string(),
            rotate: false,
        };
        let mut control = ControlClient::new(manager.local_routes());
        let token = control.join_token(request).await?.into_inner().token;
        Ok(v1::InitResponse {
            node_id: self.identities.identity().node.to_string(),
            worker_token: token,
            address: self.record.advertise.to_string(),
            left_behind: Vec::new(),
        })
    }

    /// Leaves the voters where this node is one, or says why it must not. `force` leaves
    /// whatever is lost by it.
    ///
    /// # Errors
    /// Docker's words on managers that leave.
    pub(super) async fn may_leave(&self, force: bool) -> Result<()> {
        const MANAGER: &str = "You are attempting to leave the swarm on a node that is \
             participating as a manager.";
        let Some(manager) = &self.manager else {
            return Ok(());
        };
        if manager.raft().superseded().is_some() {
            // It has been none of theirs for long.
            return Ok(());
        }
        if manager.raft().voters().len() <= 1 {
            if force {
                return Ok(());
            }
            bail!(
                "{MANAGER} Removing the last manager erases all current state of the swarm. Use \
                 `--force` to ignore this message."
            );
        }
        let left = tokio::time::timeout(LEAVE_VOTERS, manager.leave()).await;
        let reason = match left {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => format!("{:#}", anyhow::Error::new(error)),
            Err(_) => "the other managers do not answer".to_owned(),
        };
        if force {
            tracing::warn!(
                reason,
                "leaving although the other managers could not be told"
            );
            return Ok(());
        }
        bail!(
            "{MANAGER} It could not be taken out of them: {reason}. Leaving all the same may cost \
             the swarm its quorum, and the only way to restore a swarm that has lost consensus is \
             to reinitialize it. Use `--force` to suppress this message."
        )
    }

    /// Ends the node for good: its tasks, its balancer, and what is on disk.
    pub(super) async fn leave(self, layout: &Layout) -> Result<()> {
        let tasks = self.agent.leave().await;
        self.balancer.stop().await;
        self.stop_manager().await;
        layout.wipe()?;
        tracing::info!("left the swarm");
        tasks.context("the node has left the swarm, but something of it is left")
    }

    /// Ends what runs in this process. Tasks and the balancer go on; its handle is given back
    /// for a node that is made of it anew.
    pub(super) async fn stop(self) -> Balancer {
        self.agent.stop().await;
        self.stop_manager().await;
        self.balancer
    }

    async fn stop_manager(&self) {
        self.stop.cancel();
        if let Some(manager) = &self.manager {
            manager.shutdown().await;
        }
    }
}

/// The number that a cluster's first manager gets.
const FIRST_RAFT_ID: u64 = 1;

async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address} for other nodes (choose another with --listen-addr)")
    })
}

fn serve_manager(manager: &Manager, listener: TcpListener, stop: &CancellationToken) {
    let serving = serve(
        listener,
        manager.identities().clone(),
        manager.routes(),
        stop.clone().cancelled_owned(),
    );
    tokio::spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(
                error = format!("{:#}", anyhow::Error::new(error)),
                "the cluster port failed"
            );
        }
    });
}

async fn detect(settings: &Settings) -> Result<Arc<dyn Runtime>> {
    let choice = match settings.runtime {
        RuntimeArg::Auto => Choice::Auto,
        RuntimeArg::Docker => Choice::Docker,
        RuntimeArg::Process => Choice::Process,
    };
    Ok(runtime::detect(choice, settings.stored.docker_host.as_deref()).await?)
}

fn facts(settings: &Settings, address: SocketAddr) -> Result<NodeFacts> {
    let stored = &settings.stored;
    Ok(NodeFacts {
        hostname: stored.hostname.clone(),
        advertise: address.ip(),
        task_ports: stored.task_ports,
        probe_port: 0,
        reserve: Resources {
            nano_cpus: stored.reserve_nano_cpus,
            memory_bytes: stored.reserve_memory_bytes,
            ..Resources::default()
        },
        generic: generic_resources(&stored.generic_resources)?,
    })
}

/// What must not run out under the node.
fn watched(layout: &Layout) -> Watched {
    Watched {
        disks: vec![(DiskUser::State, layout.root().to_owned())],
        processes: vec![("balancer".to_owned(), layout.lb_pid())],
    }
}

fn record(settings: &Settings, advertise: SocketAddr, runtime: RuntimeKind) -> NodeRecord {
    NodeRecord {
        advertise,
        raft_id: None,
        votes: false,
        incarnation: 0,
        managers: Vec::new(),
        runtime: match runtime {
            RuntimeKind::Docker => StoredRuntime::Docker,
            RuntimeKind::Process => StoredRuntime::Process,
        },
        settings: settings.stored.clone(),
    }
}

pub(super) fn manager_config(layout: &Layout, record: &NodeRecord) -> ManagerConfig {
    let (shortest, longest) = record.settings.raft_election_ms;
    ManagerConfig {
        heartbeat: Duration::from_millis(record.settings.raft_heartbeat_ms),
        election: (
            Duration::from_millis(shortest),
            Duration::from_millis(longest),
        ),
        incarnation: record.incarnation,
        ..ManagerConfig::new(layout.root().to_owned(), record.advertise)
    }
}
