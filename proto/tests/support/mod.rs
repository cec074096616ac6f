//! A certificate authority for tests, and a service that says who calls.

// Each test file is a program of its own and uses a part of this.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use swarmlet_core::model::{ClusterId, NodeId, Role};
use swarmlet_proto::identity::{Identity, PeerIdentity, role_name};
use swarmlet_proto::transport::{Caller, IdentityStore, channel, serve};
use swarmlet_proto::v1;
use swarmlet_proto::v1::raft_client::RaftClient;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_stream::{Stream, StreamExt};
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use zeroize::Zeroizing;

pub const CLUSTER: u128 = 1;

pub struct Authority {
    pub certificate: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

/// What a test may want to differ from the usual.
pub struct Leaf {
    pub node: u128,
    pub cluster: u128,
    pub role: Role,
    pub from: Duration,
    pub until: time::Duration,
}

impl Leaf {
    pub fn of(node: u128, role: Role) -> Self {
        Self {
            node,
            cluster: CLUSTER,
            role,
            from: Duration::from_secs(3600),
            until: time::Duration::hours(1),
        }
    }
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
            .distinguished_name
            .push(DnType::CommonName, "swarmlet-ca");
        let certificate = params.self_signed(&key).unwrap().der().to_vec();
        Self {
            certificate,
            issuer: Issuer::new(params, key),
        }
    }

    pub fn sign(&self, leaf: &Leaf) -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate = self.certificate(leaf, &key);
        let der = Zeroizing::new(key.serialize_der());
        Identity::new(certificate, der, self.certificate.clone()).unwrap()
    }

    pub fn certificate(&self, leaf: &Leaf, key: &KeyPair) -> Vec<u8> {
        let node = NodeId::from_random(leaf.node).to_string();
        let role = role_name(leaf.role);
        let mut params = CertificateParams::new([role.to_owned(), node.clone()]).unwrap();
        let name = &mut params.distinguished_name;
        name.push(DnType::CommonName, node);
        name.push(DnType::OrganizationalUnitName, role);
        let cluster = ClusterId::from_random(leaf.cluster).to_string();
        name.push(DnType::OrganizationName, cluster);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let now = OffsetDateTime::now_utc();
        params.not_before = now - leaf.from;
        params.not_after = now + leaf.until;
        params.signed_by(key, &self.issuer).unwrap().der().to_vec()
    }

    pub fn node(&self, node: u128, role: Role) -> IdentityStore {
        IdentityStore::new(self.sign(&Leaf::of(node, role))).unwrap()
    }
}

/// A server on a free port of loopback; it ends with the test.
pub struct TestServer {
    pub address: SocketAddr,
    pub identities: IdentityStore,
    stop: Option<oneshot::Sender<()>>,
    pub done: JoinHandle<Result<(), swarmlet_proto::transport::ServeError>>,
}

impl TestServer {
    pub async fn start(identities: IdentityStore) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = serve(listener, identities.clone(), routes(), async {
            // The test's end drops the sender: that is a stop as well.
            stopped.await.ok();
        });
        Self {
            address,
            identities,
            stop: Some(stop),
            done: tokio::spawn(served),
        }
    }

    pub fn stop(&mut self) {
        drop(self.stop.take());
    }

    pub fn channel(&self, identities: &IdentityStore) -> Channel {
        channel(self.address, identities, Role::Manager)
    }
}

pub fn routes() -> Routes {
    let mut routes = Routes::builder();
    routes.add_service(v1::raft_server::RaftServer::new(WhoCalls));
    routes.add_service(v1::dispatcher_server::DispatcherServer::new(WhoCalls));
    routes.routes()
}

/// Asks the server who it thinks is calling.
pub async fn who_am_i(channel: Channel) -> Result<String, Status> {
    let request = v1::RaftMessage::default();
    let answer = RaftClient::new(channel).append(request).await?;
    Ok(String::from_utf8(answer.into_inner().body.to_vec()).unwrap())
}

struct WhoCalls;

#[tonic::async_trait]
impl v1::raft_server::Raft for WhoCalls {
    async fn append(
        &self,
        request: Request<v1::RaftMessage>,
    ) -> Result<Response<v1::RaftMessage>, Status> {
        let identity = request.extensions().get::<PeerIdentity>();
        let caller = request.extensions().get::<Caller>();
        // Both extensions say the same; on the local socket there is none.
        assert_eq!(identity, caller.and_then(|caller| caller.identity.as_ref()));
        let text = match (identity, caller) {
            (Some(peer), _) => format!("{} {}", peer.role, peer.node),
            (None, Some(caller)) => format!("nobody at {}", caller.address.ip()),
            (None, None) => "somebody on this machine".to_owned(),
        };
        let body = text.into_bytes().into();
        Ok(Response::new(v1::RaftMessage { body }))
    }

    async fn pre_vote(
        &self,
        _: Request<v1::RaftMessage>,
    ) -> Result<Response<v1::RaftMessage>, Status> {
        Err(Status::unimplemented("not for this test"))
    }

    async fn vote(&self, _: Request<v1::RaftMessage>) -> Result<Response<v1::RaftMessage>, Status> {
        Err(Status::unimplemented("not for this test"))
    }

    async fn snapshot(
        &self,
        _: Request<v1::RaftMessage>,
    ) -> Result<Response<v1::RaftMessage>, Status> {
        Err(Status::unimplemented("not for this test"))
    }
}

#[tonic::async_trait]
impl v1::dispatcher_server::Dispatcher for WhoCalls {
    type SessionStream =
        Pin<Box<dyn Stream<Item = Result<v1::ManagerMessage, Status>> + Send + 'static>>;

    /// Greets once and then stays open for ever.
    async fn session(
        &self,
        _: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let welcome = v1::ManagerMessage { kind: None };
        let stream = tokio_stream::once(Ok(welcome)).chain(tokio_stream::pending());
        Ok(Response::new(Box::pin(stream)))
    }
}

/// A session that has received its greeting.
pub async fn open_session(channel: Channel) -> Streaming<v1::ManagerMessage> {
    let mut client = v1::dispatcher_client::DispatcherClient::new(channel);
    let outgoing = tokio_stream::pending::<v1::AgentMessage>();
    let mut session = client.session(outgoing).await.unwrap().into_inner();
    within(session.message()).await.unwrap().unwrap();
    session
}

/// Waits, but not for ever.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    let deadline = Duration::from_secs(20);
    tokio::time::timeout(deadline, future)
        .await
        .expect("it took longer than 20 s")
}
