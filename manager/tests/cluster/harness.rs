//! Managers on loopback, and the calls that tests make of them.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::service::Routes;
use tonic::transport::Channel;

use swarmlet_core::model::{
    Availability, Cluster, ClusterSpec, ContainerSpec, LbPolicy, NodeDescription, NodeId, Platform,
    PortMode, PortSpec, Protocol, Resources, RestartPolicy, Role, RuntimeKind, ServiceMode,
    ServiceSpec, TaskSpec, UpdateConfig,
};
use swarmlet_manager::{BootstrapRequest, Manager, ManagerConfig};
use swarmlet_proto::identity::{Identity, new_key_and_csr};
use swarmlet_proto::token::JoinToken;
use swarmlet_proto::transport::{self, IdentityStore};
use swarmlet_proto::v1;
use swarmlet_proto::v1::ca_client::CaClient;
use swarmlet_proto::v1::control_client::ControlClient;

/// Long enough for two busy cores; what a test waits for comes in a fraction of it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// One manager with its server.
pub(crate) struct Node {
    pub(crate) manager: Manager,
    pub(crate) address: SocketAddr,
    pub(crate) raft_id: u64,
    stop: CancellationToken,
    dir: Arc<TempDir>,
}

/// The control client of a manager's own socket.
pub(crate) type Control = ControlClient<Routes>;

impl Node {
    /// Makes a cluster of one.
    pub(crate) async fn first() -> Self {
        Self::first_with(ClusterSpec::default()).await
    }

    pub(crate) async fn first_with(spec: ClusterSpec) -> Self {
        log_to_stderr();
        let dir = Arc::new(TempDir::new().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let request = BootstrapRequest {
            spec,
            availability: Availability::Active,
            description: description("m1"),
        };
        let config = ManagerConfig::new(dir.path().to_owned(), address);
        let (manager, identity) = Manager::bootstrap(config, request).await.unwrap();
        assert_eq!(identity.role, Role::Manager);
        Self::serve(manager, listener, 1, dir)
    }

    /// Adds a manager by way of this one.
    pub(crate) async fn another(&self) -> Self {
        let dir = Arc::new(TempDir::new().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let token = self.token(Role::Manager).await;
        let joined = join(self.address, &token, &address.to_string())
            .await
            .unwrap();
        let identities = IdentityStore::new(joined.identity).unwrap();
        let config = ManagerConfig::new(dir.path().to_owned(), address);
        let manager = Manager::open(config, identities, joined.raft_id)
            .await
            .unwrap();
        let node = Self::serve(manager, listener, joined.raft_id, dir);
        node.manager.join_voters(&[self.address]).await.unwrap();
        node
    }

    fn serve(manager: Manager, listener: TcpListener, raft_id: u64, dir: Arc<TempDir>) -> Self {
        let stop = CancellationToken::new();
        let (identities, routes) = (manager.identities().clone(), manager.routes());
        let address = listener.local_addr().unwrap();
        // Dropped as a whole when the test stops it, as a process that is killed would be.
        let stopped = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                served = transport::serve(listener, identities, routes, std::future::pending()) => {
                    served.unwrap();
                }
            }
        });
        Self {
            manager,
            address,
            raft_id,
            stop,
            dir,
        }
    }

    /// Changes what the user wants of a node.
    pub(crate) async fn update_node(
        &self,
        id: &str,
        edit: impl FnOnce(&mut v1::NodeSpec),
    ) -> Result<(), Status> {
        let mut nodes = self.nodes().await.into_iter().filter_map(|view| view.node);
        let node = nodes.find(|node| node.id == id).unwrap();
        let mut spec = node.spec.unwrap();
        edit(&mut spec);
        let request = v1::UpdateNodeRequest {
            id: node.id,
            expected: node.version,
            spec: Some(spec),
        };
        self.control().update_node(request).await.map(drop)
    }

    /// Makes a manager a worker, and waits until it is none any more.
    pub(crate) async fn demote(&self, id: &NodeId) {
        let worker = |spec: &mut v1::NodeSpec| spec.role = v1::Role::Worker as i32;
        self.update_node(id.as_str(), worker).await.unwrap();
        until("it is no manager any more", async || {
            let state = self.manager.state();
            let manager = &state.node(id).unwrap().manager;
            manager.is_none().then_some(())
        })
        .await;
    }

    /// Cuts all connections and ends the manager.
    pub(crate) async fn kill(&self) {
        self.stop.cancel();
        self.manager.shutdown().await;
    }

    /// Brings a killed manager back on its port and files.
    pub(crate) async fn restart(self) -> Self {
        let identities = IdentityStore::new((*self.manager.identities().identity()).clone());
        let mut config = ManagerConfig::new(self.dir.path().to_owned(), self.address);
        config.expect_log = true;
        let manager = Manager::open(config, identities.unwrap(), self.raft_id)
            .await
            .unwrap();
        let listener = TcpListener::bind(self.address).await.unwrap();
        Self::serve(manager, listener, self.raft_id, self.dir.clone())
    }

    pub(crate) fn control(&self) -> Control {
        ControlClient::new(self.manager.local_routes())
            .max_decoding_message_size(swarmlet_proto::ANSWER_LIMIT_BYTES)
    }

    pub(crate) async fn token(&self, role: Role) -> JoinToken {
        self.join_token(role, false).await
    }

    pub(crate) async fn join_token(&self, role: Role, rotate: bool) -> JoinToken {
        let request = v1::JoinTokenRequest {
            role: role.to_string(),
            rotate,
        };
        let answer = self
            .control()
            .join_token(request)
            .await
            .unwrap()
            .into_inner();
        assert!(answer.addresses.contains(&self.address.to_string()));
        answer.token.parse().unwrap()
    }

    pub(crate) fn leads(&self) -> bool {
        self.manager.raft().watch_leadership().borrow().is_self
    }

    /// Creates a service that publishes a port.
    pub(crate) async fn create(
        &self,
        name: &str,
        replicas: u32,
        port: u16,
    ) -> Result<String, Status> {
        let request = v1::CreateServiceRequest {
            spec: Some((&service(name, replicas, port)).into()),
        };
        Ok(self
            .control()
            .create_service(request)
            .await?
            .into_inner()
            .id)
    }

    /// Changes the number of replicas, and whatever else `edit` changes.
    pub(crate) async fn update(
        &self,
        name: &str,
        edit: impl FnOnce(&mut v1::ServiceSpec),
    ) -> Result<u64, Status> {
        let current = self.service(name).await.unwrap();
        let mut spec = current.spec.unwrap();
        edit(&mut spec);
        let request = v1::UpdateServiceRequest {
            id: name.to_owned(),
            expected: current.version,
            spec: Some(spec),
        };
        Ok(self
            .control()
            .update_service(request)
            .await?
            .into_inner()
            .version)
    }

    pub(crate) async fn scale(&self, name: &str, replicas: u32) {
        let mode = v1::service_spec::Mode::Replicated(v1::Replicated { replicas });
        self.update(name, |spec| spec.mode = Some(mode))
            .await
            .unwrap();
    }

    pub(crate) async fn service(&self, name: &str) -> Option<v1::Service> {
        let services = self
            .control()
            .list_services(v1::ListServicesRequest {})
            .await;
        let services = services.unwrap().into_inner().services;
        services
            .into_iter()
            .find(|service| service.spec.as_ref().unwrap().name == name)
    }

    /// All tasks.
    pub(crate) async fn tasks(&self) -> Vec<v1::Task> {
        let tasks = self
            .control()
            .list_tasks(v1::ListTasksRequest::default())
            .await;
        tasks.unwrap().into_inner().tasks
    }

    /// Identifiers of the tasks that are, and are to be, running.
    pub(crate) async fn running(&self) -> Vec<String> {
        let running = v1::TaskState::Running as i32;
        let mut ids: Vec<String> = self
            .tasks()
            .await
            .into_iter()
            .filter(|task| {
                task.desired == running && task.status.as_ref().unwrap().state == running
            })
            .map(|task| task.id)
            .collect();
        ids.sort();
        ids
    }

    /// Waits until so many tasks run.
    pub(crate) async fn runs(&self, count: usize) -> Vec<String> {
        until(&format!("{count} tasks run"), async || {
            let running = self.running().await;
            (running.len() == count).then_some(running)
        })
        .await
    }

    pub(crate) async fn nodes(&self) -> Vec<v1::NodeView> {
        let nodes = self.control().list_nodes(v1::ListNodesRequest {}).await;
        nodes.unwrap().into_inner().nodes
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What a node has after it joined.
pub(crate) struct Joined {
    pub(crate) identity: Identity,
    pub(crate) raft_id: u64,
}

/// Joins as a node does; `address` is empty for a worker.
pub(crate) async fn join(
    manager: SocketAddr,
    token: &JoinToken,
    address: &str,
) -> Result<Joined, Status> {
    let new = new_key_and_csr().unwrap();
    let channel = transport::pinned_channel(manager, token.ca_digest)
        .await
        .unwrap();
    let request = v1::JoinRequest {
        secret: token.secret.to_string(),
        csr: new.csr,
        address: address.to_owned(),
        availability: Availability::Active.to_string(),
        description: Some((&description("joined")).into()),
    };
    let answer = CaClient::new(channel).join(request).await?.into_inner();
    let identity = Identity::new(answer.certificate, new.key, answer.root).unwrap();
    assert_eq!(identity.node.to_string(), answer.node_id);
    assert_eq!(identity.role.to_string(), answer.role);
    Ok(Joined {
        identity,
        raft_id: answer.raft_id,
    })
}

/// A channel with an identity, as one node has to a manager.
pub(crate) fn channel(identity: &Identity, address: SocketAddr) -> Channel {
    let identities = IdentityStore::new(identity.clone()).unwrap();
    transport::channel(address, &identities, Role::Manager)
}

/// Waits for a condition; panics with what was waited for.
pub(crate) async fn until<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn description(hostname: &str) -> NodeDescription {
    NodeDescription {
        hostname: hostname.to_owned(),
        address: [127, 0, 0, 1].into(),
        platform: Platform {
            os: "linux".to_owned(),
            arch: "amd64".to_owned(),
        },
        resources: Resources {
            nano_cpus: 4_000_000_000,
            memory_bytes: 8 << 30,
            ..Resources::default()
        },
        generic_names: Default::default(),
        runtime: RuntimeKind::Docker,
        engine_version: "27.0".to_owned(),
        engine_labels: Default::default(),
        task_ports: (20000, 29999),
        probe_port: 0,
        schema: Cluster::SCHEMA,
        program_version: "test".to_owned(),
    }
}

pub(crate) fn service(name: &str, replicas: u32, port: u16) -> ServiceSpec {
    let container = ContainerSpec {
        image: "whoami".to_owned(),
        stop_grace_period: ContainerSpec::DEFAULT_STOP_GRACE_PERIOD,
        ..ContainerSpec::default()
    };
    ServiceSpec {
        name: name.to_owned(),
        labels: Default::default(),
        mode: ServiceMode::Replicated { replicas },
        task: TaskSpec {
            containers: vec![container],
            restart: RestartPolicy::default(),
            ..TaskSpec::default()
        },
        ports: vec![PortSpec {
            target: 80,
            published: port,
            protocol: Protocol::Tcp,
            mode: PortMode::Ingress,
            proxy_protocol: None,
            accept_proxy: Vec::new(),
        }],
        lb_policy: LbPolicy::RoundRobin,
        lb_prefer_local: false,
        drain_timeout: ServiceSpec::DEFAULT_DRAIN_TIMEOUT,
        update: UpdateConfig::default(),
        rollback: UpdateConfig::default(),
    }
}

/// `RUST_LOG`-like output where SWARMLET_TEST_LOG is set; silence otherwise.
fn log_to_stderr() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        if let Ok(filter) = std::env::var("SWARMLET_TEST_LOG") {
            tracing_subscriber::fmt()
                .with_env_filter(filter)
                .with_writer(std::io::stderr)
                .init();
        }
    });
}
