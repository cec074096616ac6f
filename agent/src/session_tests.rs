//! The whole agent against managers that are scripts, over real TLS on loopback.

use std::collections::BTreeMap;
use std::sync::Mutex;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use swarmlet_core::model::{Availability, ClusterId, NodeId, Resources, Role, TaskState, Version};
use swarmlet_proto::identity::{Identity, PeerIdentity, role_name};
use swarmlet_proto::transport::serve;
use swarmlet_proto::v1::agent_message::Kind as Said;
use swarmlet_proto::v1::dispatcher_server::{Dispatcher, DispatcherServer};
use swarmlet_proto::v1::manager_message::Kind;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use super::*;
use crate::routing::{RoutedTable, SinkError, TableSink};
use crate::worker::fake::{self, FakeRuntime};
use crate::{Agent, AgentConfig, Watched};

/// Far more than anything here takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

// --- a certificate authority

struct Authority {
    certificate: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
            .distinguished_name
            .push(DnType::CommonName, "swarmlet-ca");
        let certificate = params.self_signed(&key).unwrap().der().to_vec();
        let issuer = Issuer::new(params, key);
        Self {
            certificate,
            issuer,
        }
    }

    fn node(&self, node: u128, role: Role) -> IdentityStore {
        let key = KeyPair::generate().unwrap();
        let node = NodeId::from_random(node).to_string();
        let role = role_name(role);
        let mut params = CertificateParams::new([role.to_owned(), node.clone()]).unwrap();
        let name = &mut params.distinguished_name;
        name.push(DnType::CommonName, node);
        name.push(DnType::OrganizationalUnitName, role);
        name.push(
            DnType::OrganizationName,
            ClusterId::from_random(1).to_string(),
        );
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let now = time::OffsetDateTime::now_utc();
        params.not_before = now - time::Duration::hours(1);
        params.not_after = now + time::Duration::hours(1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = Zeroizing::new(key.serialize_der());
        let identity = Identity::new(certificate.der().to_vec(), key, self.certificate.clone());
        IdentityStore::new(identity.unwrap()).unwrap()
    }
}

// --- a manager

/// What an agent said in one session, and the way to answer.
struct Opened {
    said: mpsc::Receiver<Said>,
    answer: mpsc::Sender<Result<v1::ManagerMessage, Status>>,
}

struct FakeDispatcher(mpsc::Sender<Opened>);

#[tonic::async_trait]
impl Dispatcher for FakeDispatcher {
    type SessionStream = ReceiverStream<Result<v1::ManagerMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let peer = request.extensions().get::<PeerIdentity>().unwrap();
        assert_eq!(peer.node, NodeId::from_random(1));
        let mut inbound = request.into_inner();
        let (sender, said) = mpsc::channel(1024);
        let (answer, answers) = mpsc::channel(64);
        tokio::spawn(async move {
            while let Ok(Some(message)) = inbound.message().await {
                if sender.send(message.kind.unwrap()).await.is_err() {
                    return;
                }
            }
        });
        self.0.send(Opened { said, answer }).await.unwrap();
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

struct Manager {
    address: SocketAddr,
    sessions: mpsc::Receiver<Opened>,
    _stop: oneshot::Sender<()>,
}

impl Manager {
    async fn start(authority: &Authority, node: u128) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, sessions) = mpsc::channel(16);
        let routes = Routes::new(DispatcherServer::new(FakeDispatcher(sender)));
        let identities = authority.node(node, Role::Manager);
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(serve(listener, identities, routes, async {
            // The test's end drops the sender, which is a stop as well.
            stopped.await.ok();
        }));
        Self {
            address,
            sessions,
            _stop: stop,
        }
    }

    async fn session(&mut self) -> Opened {
        limited("a session", self.sessions.recv()).await.unwrap()
    }

    /// A session that got as far as its first complete set.
    async fn welcomed(&mut self, tasks: &[Task]) -> Opened {
        let mut session = self.session().await;
        let Some(Said::Hello(hello)) = limited("hello", session.said.recv()).await else {
            panic!("no hello");
        };
        assert_eq!(hello.description.unwrap().hostname, "host1");
        let welcome = v1::Welcome {
            heartbeat_ms: 50,
            spec: None,
            incarnation: 0,
        };
        session.send(Kind::Welcome(welcome)).await;
        let assignments = v1::Assignments {
            version: 1,
            complete: true,
            update: tasks.iter().map(v1::Task::from).collect(),
            remove: Vec::new(),
        };
        session.send(Kind::Assignments(assignments)).await;
        session
    }
}

impl Opened {
    async fn send(&self, kind: Kind) {
        let message = v1::ManagerMessage { kind: Some(kind) };
        self.answer.send(Ok(message)).await.unwrap();
    }

    /// Waits for a message of which `pick` makes something.
    async fn hears<T>(&mut self, what: &str, mut pick: impl FnMut(Said) -> Option<T>) -> T {
        limited(what, async {
            loop {
                let said = self.said.recv().await.expect("the session ended");
                if let Some(found) = pick(said) {
                    return found;
                }
            }
        })
        .await
    }

    async fn hears_status(&mut self, task: &Task, state: TaskState) {
        let wanted = v1::TaskState::from(state) as i32;
        self.hears("a status", |said| match said {
            Said::Statuses(batch) => batch
                .reports
                .iter()
                .any(|report| {
                    report.task_id == task.id.as_str()
                        && report.status.as_ref().unwrap().state == wanted
                })
                .then_some(()),
            _ => None,
        })
        .await;
    }

    async fn hears_version(&mut self, version: u64) {
        self.hears("an acknowledgement", |said| match said {
            Said::Table(report) => (report.version == version).then_some(()),
            _ => None,
        })
        .await;
    }
}

async fn limited<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(LIMIT, future)
        .await
        .unwrap_or_else(|_| panic!("{what} did not come"))
}

// --- a node

struct FakeSink {
    applied: Mutex<Vec<u64>>,
    reports: watch::Sender<SinkReport>,
}

impl TableSink for FakeSink {
    fn apply(&self, table: RoutedTable) -> BoxFuture<'_, Result<(), SinkError>> {
        self.applied.lock().unwrap().push(table.version);
        self.reports
            .send_modify(|report| report.version = table.version);
        async { Ok(()) }.boxed()
    }

    fn reports(&self) -> watch::Receiver<SinkReport> {
        self.reports.subscribe()
    }
}

struct Node {
    dir: tempfile::TempDir,
    runtime: FakeRuntime,
    sink: Arc<FakeSink>,
    identities: IdentityStore,
}

impl Node {
    fn new(authority: &Authority) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            runtime: FakeRuntime::new(),
            sink: Arc::new(FakeSink {
                applied: Mutex::default(),
                reports: watch::channel(SinkReport::default()).0,
            }),
            identities: authority.node(1, Role::Worker),
        }
    }

    fn config(&self, managers: &[SocketAddr]) -> AgentConfig {
        AgentConfig {
            data_dir: self.dir.path().join("agent"),
            node: NodeId::from_random(1),
            cluster: ClusterId::from_random(1),
            advertise: "127.0.0.1".parse().unwrap(),
            hostname: "host1".to_owned(),
            task_ports: (43_300, 43_399),
            reserve: Resources::default(),
            generic: crate::GenericResources::default(),
            watched: Watched::default(),
            managers: managers.to_vec(),
        }
    }

    async fn start(&self, managers: &[SocketAddr]) -> Agent {
        Agent::start(
            self.config(managers),
            self.identities.clone(),
            Arc::new(self.runtime.clone()),
            self.sink.clone(),
        )
        .await
        .unwrap()
    }
}

/// A node whose first session has begun, and that runs a task.
struct Begun {
    authority: Authority,
    manager: Manager,
    node: Node,
    agent: Agent,
    task: Task,
    session: Opened,
}

async fn begun() -> Begun {
    let authority = Authority::new();
    let mut manager = Manager::start(&authority, 2).await;
    let node = Node::new(&authority);
    let agent = node.start(&[manager.address]).await;
    let task = fake::task(5, |_| {});
    let mut session = manager.welcomed(std::slice::from_ref(&task)).await;
    session.hears_status(&task, TaskState::Running).await;
    Begun {
        authority,
        manager,
        node,
        agent,
        task,
        session,
    }
}

fn table(version: u64) -> Kind {
    let table = Table {
        version: Version(version),
        listeners: Vec::new(),
    };
    Kind::Table(v1::EndpointTable::from(&table))
}

// --- tests

#[tokio::test]
async fn assignments_come_in_and_everything_else_goes_out() {
    let Begun {
        mut manager,
        node,
        agent,
        task,
        mut session,
        ..
    } = begun().await;
    for _ in 0..3 {
        let beat = |said| matches!(said, Said::Heartbeat(_)).then_some(());
        session.hears("a heartbeat", beat).await;
    }
    session.send(table(7)).await;
    session.hears_version(7).await;
    // One that lags behind changes nothing; the next newer one is heard of.
    session.send(table(6)).await;
    session.send(table(8)).await;
    session.hears_version(8).await;
    assert_eq!(*node.sink.applied.lock().unwrap(), [7, 8]);

    // The session is cut: the next one hears everything again, and nothing is restarted.
    drop(session);
    let mut session = manager.welcomed(std::slice::from_ref(&task)).await;
    session.hears_version(8).await;
    session.hears_status(&task, TaskState::Running).await;
    assert_eq!(node.runtime.calls(), ["prepare 5", "start 5"]);
    agent.stop().await;
    assert_eq!(node.runtime.running(), [task.id], "its task goes on");
}

/// It says so once, and stops its tasks only when the manager has ended the session over it.
#[tokio::test]
async fn a_node_that_leaves_says_so_before_its_tasks_stop() {
    let Begun {
        mut manager,
        node,
        agent,
        task,
        mut session,
        ..
    } = begun().await;
    let leaving = async {
        let leaving = |said| matches!(said, Said::Leaving(_)).then_some(());
        session.hears("the farewell", leaving).await;
        assert_eq!(node.runtime.running(), std::slice::from_ref(&task.id));
        assert!(session.said.try_recv().is_err(), "it is the last");
        drop(session);
    };
    let (left, ()) = limited("the end", async { tokio::join!(agent.leave(), leaving) }).await;
    left.unwrap();
    assert!(node.runtime.running().is_empty());
    assert!(manager.sessions.try_recv().is_err(), "there is no other");
}

#[tokio::test]
async fn without_a_manager_the_last_table_is_applied_and_tasks_are_adopted() {
    let Begun {
        authority,
        manager,
        node,
        agent,
        task,
        mut session,
    } = begun().await;
    session.send(table(7)).await;
    session.hears_version(7).await;
    // Only this list leads the next agent to the other manager.
    let mut other = Manager::start(&authority, 3).await;
    let list = v1::ManagerList {
        managers: vec![v1::ManagerAddress {
            node_id: NodeId::from_random(3).to_string(),
            address: other.address.to_string(),
        }],
    };
    session.send(Kind::Managers(list)).await;
    let spec = NodeSpec {
        role: Role::Worker,
        availability: Availability::Drain,
        labels: BTreeMap::new(),
    };
    session.send(Kind::Spec((&spec).into())).await;
    session.send(table(8)).await;
    session.hears_version(8).await;
    assert_eq!(agent.connected().borrow().spec, Some(spec));
    agent.stop().await;
    drop((manager, session));

    node.sink.applied.lock().unwrap().clear();
    let agent = node.start(&[]).await;
    let mut session = other.welcomed(std::slice::from_ref(&task)).await;
    session.hears_status(&task, TaskState::Running).await;
    assert_eq!(*node.sink.applied.lock().unwrap(), [8]);
    assert_eq!(node.runtime.calls(), ["prepare 5", "start 5"]);
    let connection = agent.connected().borrow().clone();
    assert_eq!(connection.manager, Some(other.address));

    limited("the end", agent.leave()).await.unwrap();
    assert_eq!(node.runtime.all(), []);
    assert!(!node.dir.path().join("agent").exists());
}

#[tokio::test]
async fn a_manager_that_is_gone_or_silent_is_passed_over() {
    let authority = Authority::new();
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    // It takes connections, as the kernel of a stopped process does, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut manager = Manager::start(&authority, 2).await;
    let node = Node::new(&authority);
    let agent = node
        .start(&[closed, silent.local_addr().unwrap(), manager.address])
        .await;
    let _session = manager.welcomed(&[]).await;
    let mut connected = agent.connected();
    let found = connected.wait_for(|connection| connection.manager.is_some());
    let found = limited("the connection", found).await.unwrap().manager;
    assert_eq!(found, Some(manager.address));
    agent.stop().await;
}

#[tokio::test]
async fn a_manager_of_another_cluster_is_refused() {
    let mut foreign = Manager::start(&Authority::new(), 2).await;
    let node = Node::new(&Authority::new());
    let agent = node.start(&[foreign.address]).await;
    let mut connected = agent.connected();
    let found = connected.wait_for(|connection| connection.error.is_some());
    let error = limited("the refusal", found)
        .await
        .unwrap()
        .error
        .clone()
        .unwrap();
    assert!(error.starts_with(&foreign.address.to_string()), "{error}");
    assert!(error.contains("certificate"), "{error}");
    agent.stop().await;
    assert!(foreign.sessions.try_recv().is_err());
}

#[tokio::test]
async fn one_malformed_task_ends_the_session_and_stops_nothing() {
    let Begun {
        mut manager,
        node,
        agent,
        task,
        session,
        ..
    } = begun().await;
    let mut malformed = v1::Task::from(&task);
    malformed.id = "no id".to_owned();
    let assignments = v1::Assignments {
        version: 2,
        complete: true,
        update: vec![malformed],
        remove: Vec::new(),
    };
    session.send(Kind::Assignments(assignments)).await;
    let mut session = manager.welcomed(std::slice::from_ref(&task)).await;
    session.hears_status(&task, TaskState::Running).await;
    assert_eq!(node.runtime.calls(), ["prepare 5", "start 5"]);
    agent.stop().await;
}

#[tokio::test]
async fn an_engine_that_comes_back_is_described_anew() {
    let authority = Authority::new();
    let mut manager = Manager::start(&authority, 2).await;
    let node = Node::new(&authority);
    let away = crate::runtime::RuntimeError::Unavailable("away".to_owned());
    node.runtime.fail("describe", away, 1);
    let agent = node.start(&[manager.address]).await;
    let mut session = manager.session().await;
    let Some(Said::Hello(hello)) = limited("hello", session.said.recv()).await else {
        panic!("no hello");
    };
    let hello = hello.description.unwrap();
    assert_eq!(hello.engine_version, "");
    let welcome = v1::Welcome {
        heartbeat_ms: 50,
        spec: None,
        incarnation: 0,
    };
    session.send(Kind::Welcome(welcome)).await;
    let described = |said| match said {
        Said::Description(description) => Some(description),
        _ => None,
    };
    let back = session.hears("what the engine says", described).await;
    assert_eq!(back.engine_version, "1.0");
    // It falls silent in the middle of the session, and what it said counts on.
    let away = crate::runtime::RuntimeError::Unavailable("away".to_owned());
    node.runtime.fail("list", away, 2);
    let silent = session.hears("that it is silent", described).await;
    let expected = v1::NodeDescription {
        engine_version: String::new(),
        ..back.clone()
    };
    assert_eq!(silent, expected);
    let again = session.hears("that it is back", described).await;
    assert_eq!(again, back);
    agent.stop().await;
}

#[tokio::test]
async fn bad_configurations_are_refused() {
    let authority = Authority::new();
    let node = Node::new(&authority);
    for (edit, expected) in [
        (
            (|config: &mut AgentConfig| config.data_dir = "agent".into()) as fn(&mut AgentConfig),
            "the agent's folder agent is not an absolute path",
        ),
        (
            |config| config.task_ports = (20, 10),
            "invalid range of task ports 20-10: expected FIRST-LAST within 1-65535",
        ),
    ] {
        let mut config = node.config(&[]);
        edit(&mut config);
        let started = Agent::start(
            config,
            node.identities.clone(),
            Arc::new(node.runtime.clone()),
            node.sink.clone(),
        );
        let error = started.await.err().unwrap().to_string();
        assert_eq!(error, expected);
    }
}

#[test]
fn the_own_nodes_manager_comes_first() {
    let addresses = |texts: &[&str]| -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    };
    let managers = addresses(&["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"]);
    let own = "10.0.0.2".parse().unwrap();
    assert_eq!(
        order(&managers, own, &BTreeSet::new(), 0),
        addresses(&["10.0.0.2:1", "10.0.0.1:1", "10.0.0.3:1"])
    );
    assert_eq!(
        order(&managers, own, &BTreeSet::new(), 7),
        addresses(&["10.0.0.2:1", "10.0.0.3:1", "10.0.0.1:1"])
    );
    assert_eq!(order(&[], own, &BTreeSet::new(), 7), []);
}

#[test]
fn pauses_are_spread_and_bounded() {
    for random in [0, 1, 999, u64::MAX] {
        let pause = jittered(Duration::from_secs(2), random);
        assert!(
            (Duration::from_secs(1)..=Duration::from_secs(2)).contains(&pause),
            "{pause:?}"
        );
    }
    assert_ne!(jittered(BACKOFF.0, 1), jittered(BACKOFF.0, 500));
}
