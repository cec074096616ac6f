//! Who may connect to whom, over real sockets on loopback.

// Everything here is test code, but the lint knows it in `#[test]` functions only.
#![allow(clippy::unwrap_used)]

mod support;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use support::{Authority, Leaf, TestServer, open_session, routes, who_am_i, within};
use swarmlet_core::model::{NodeId, Role};
use swarmlet_proto::identity::Identity;
use swarmlet_proto::tls;
use swarmlet_proto::token::ca_digest;
use swarmlet_proto::transport::{
    IdentityStore, JoinError, channel, pinned_channel, serve_unix, unix_channel,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tonic::Code;

fn id(node: u128) -> NodeId {
    NodeId::from_random(node)
}

/// A handshake, and then the first read: in TLS 1.3 the client learns only there that its
/// certificate was refused.
async fn handshake(
    address: SocketAddr,
    config: ClientConfig,
    name: ServerName<'static>,
) -> io::Result<()> {
    let stream = TcpStream::connect(address).await?;
    let mut stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await?;
    // The server's first bytes are its HTTP/2 settings, once the client has said its preface.
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await?;
    within(stream.read_u8()).await.map(drop)
}

#[tokio::test]
async fn nodes_of_a_cluster_know_each_other() {
    let authority = Authority::new();
    let server = TestServer::start(authority.node(1, Role::Manager)).await;
    for (node, role) in [(2, Role::Worker), (3, Role::Manager)] {
        let found = who_am_i(server.channel(&authority.node(node, role)))
            .await
            .unwrap();
        assert_eq!(found, format!("{role} {}", id(node)));
    }
    let ca = ca_digest(&authority.certificate);
    let joining = pinned_channel(server.address, ca).await.unwrap();
    assert_eq!(who_am_i(joining).await.unwrap(), "nobody at 127.0.0.1");
}

#[tokio::test]
async fn certificates_of_other_authorities_are_refused() {
    let authority = Authority::new();
    let server = TestServer::start(authority.node(1, Role::Manager)).await;
    let stranger = Authority::new().sign(&Leaf::of(2, Role::Manager));
    // The stranger does not trust the server …
    let status = who_am_i(server.channel(&IdentityStore::new(stranger.clone()).unwrap()))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    // … and where it would, the server does not trust it.
    let config = trusting(&authority, &stranger);
    let error = handshake(server.address, config, tls::server_name(Role::Manager))
        .await
        .unwrap_err();
    // All roots are called the same, so that it is the signature that does not fit.
    let alert = rustls::AlertDescription::DecryptError;
    assert_eq!(
        tls_cause(&error),
        Some(&rustls::Error::AlertReceived(alert))
    );
}

/// A client that believes the authority and shows another's certificate.
fn trusting(authority: &Authority, identity: &Identity) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.clone().into()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(identity.key.to_vec());
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![identity.certificate.clone()], key.into())
        .unwrap()
}

fn tls_cause(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

#[tokio::test]
async fn expired_and_future_certificates_are_refused() {
    let authority = Authority::new();
    let server = TestServer::start(authority.node(1, Role::Manager)).await;
    let expired = authority.sign(&ended(181, Leaf::of(2, Role::Worker)));
    let config = trusting(&authority, &expired);
    let error = handshake(server.address, config, tls::server_name(Role::Manager))
        .await
        .unwrap_err();
    let alert = rustls::AlertDescription::CertificateExpired;
    assert_eq!(
        tls_cause(&error),
        Some(&rustls::Error::AlertReceived(alert))
    );

    for (days, role) in [(181, Role::Worker), (181, Role::Manager), (1, Role::Worker)] {
        let stale = authority.sign(&ended(days, Leaf::of(1, Role::Manager)));
        let stale = TestServer::start(IdentityStore::new(stale).unwrap()).await;
        let refused = who_am_i(stale.channel(&authority.node(2, role))).await;
        let status = refused.expect_err("a certificate that has ended");
        assert_eq!(status.code(), Code::Unavailable, "{days} days, {role}");
    }
}

/// A certificate that ended so many days ago.
fn ended(days: i64, leaf: Leaf) -> Leaf {
    Leaf {
        from: Duration::from_secs(300 * 24 * 3600),
        until: time::Duration::days(-days),
        ..leaf
    }
}

#[tokio::test]
async fn a_certificate_that_has_ended_tells_who_it_is_for_half_a_year() {
    let authority = Authority::new();
    let server = TestServer::start(authority.node(1, Role::Manager)).await;
    let off = authority.sign(&ended(179, Leaf::of(2, Role::Worker)));
    let off = IdentityStore::new(off).unwrap();
    let caller = who_am_i(server.channel(&off)).await.unwrap();
    let expected = off.identity().node.to_string();
    assert!(format!("{caller:?}").contains(&expected), "{caller:?}");

    // Of managers that were off together one calls the other.
    let off = authority.sign(&ended(179, Leaf::of(3, Role::Manager)));
    let off = TestServer::start(IdentityStore::new(off).unwrap()).await;
    let other = authority.sign(&ended(179, Leaf::of(4, Role::Manager)));
    let other = IdentityStore::new(other).unwrap();
    who_am_i(off.channel(&other)).await.unwrap();
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let authority = Authority::new();
    let server = TestServer::start(authority.node(1, Role::Manager)).await;
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.clone().into()).unwrap();
    let with = |versions: &[&'static rustls::SupportedProtocolVersion]| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth()
    };
    let old = with(&[&rustls::version::TLS12]);
    let name = tls::server_name(Role::Manager);
    let error = handshake(server.address, old, name.clone())
        .await
        .unwrap_err();
    let alert = rustls::AlertDescription::ProtocolVersion;
    assert_eq!(
        tls_cause(&error),
        Some(&rustls::Error::AlertReceived(alert))
    );
    let new = with(&[&rustls::version::TLS13]);
    handshake(server.address, new, name).await.unwrap();
}

#[tokio::test]
async fn a_worker_cannot_pose_as_a_manager() {
    let authority = Authority::new();
    let worker = TestServer::start(authority.node(1, Role::Worker)).await;
    let caller = authority.node(2, Role::Worker);
    let status = who_am_i(worker.channel(&caller)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    // The same server under the name that it has.
    let as_worker = channel(worker.address, &caller, Role::Worker);
    assert!(who_am_i(as_worker).await.is_ok());

    let ca = ca_digest(&authority.certificate);
    let error = pinned_channel(worker.address, ca).await.unwrap_err();
    assert!(matches!(error, JoinError::Certificate { .. }), "{error}");
}

#[tokio::test]
async fn certificates_of_another_cluster_are_refused_even_with_the_same_root() {
    let authority = Authority::new();
    let server = TestServer::start(authority.node(1, Role::Manager)).await;
    let other = authority.sign(&Leaf {
        cluster: 2,
        ..Leaf::of(2, Role::Manager)
    });
    // The handshake succeeds, and then the server closes: how that looks to a call is a race.
    let status = who_am_i(server.channel(&IdentityStore::new(other).unwrap())).await;
    let code = status.unwrap_err().code();
    assert!(
        matches!(code, Code::Unavailable | Code::Unknown | Code::Cancelled),
        "{code}"
    );
}

#[tokio::test]
async fn joining_names_the_mistake() {
    let authority = Authority::new();
    let server = TestServer::start(authority.node(1, Role::Manager)).await;
    let address = server.address;
    let error = pinned_channel(address, [0; 32]).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "the certificate of the swarm at {address} does not match the digest in the join token (is \
             it that swarm's token? run `swarmlet join-token worker|manager` there)"
        )
    );

    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let error = pinned_channel(closed, [0; 32]).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "cannot reach a manager at {closed}: Connection refused (os error 111) (is the \
             address right, and is the port open between the hosts?)"
        )
    );

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let web = listener.local_addr().unwrap();
    let answer = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        // Read to the end: an early close could reset the connection before the answer.
        stream.read_to_end(&mut Vec::new()).await.ok();
    });
    let error = pinned_channel(web, [0; 32]).await.unwrap_err();
    assert!(matches!(error, JoinError::NotAManager { .. }), "{error}");
    within(answer).await.unwrap();
}

/// The pinned root must have signed: it is not enough to send it along.
#[tokio::test]
async fn a_stolen_root_certificate_is_no_identity() {
    let (authority, thief) = (Authority::new(), Authority::new());
    let mut stolen = thief.sign(&Leaf::of(1, Role::Manager));
    stolen.root = authority.certificate.clone().into();
    let server = TestServer::start(IdentityStore::new(stolen).unwrap()).await;
    let ca = ca_digest(&authority.certificate);
    let error = pinned_channel(server.address, ca).await.unwrap_err();
    assert!(matches!(error, JoinError::Certificate { .. }), "{error}");
}

#[tokio::test]
async fn garbage_on_the_port_is_harmless() {
    let authority = Authority::new();
    let server = TestServer::start(authority.node(1, Role::Manager)).await;
    let mut silent = Vec::new();
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0; 4096],
        &[22, 3, 1, 255, 255, 1],
        b"",
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        silent.push(stream);
    }
    // Those connections are still open, or refused; others are served as if they were not.
    let found = who_am_i(server.channel(&authority.node(2, Role::Worker))).await;
    assert_eq!(found.unwrap(), format!("worker {}", id(2)));
}

#[tokio::test]
async fn a_removed_node_loses_its_streams_and_no_other_does() {
    let authority = Authority::new();
    let server = TestServer::start(authority.node(1, Role::Manager)).await;
    let (removed, stays) = (
        authority.node(2, Role::Worker),
        authority.node(3, Role::Worker),
    );
    let mut removed = open_session(server.channel(&removed)).await;
    let stays_channel = server.channel(&stays);
    let mut stays = open_session(stays_channel.clone()).await;
    server.identities.disconnect(&id(2));
    let end = tokio::time::timeout(Duration::from_secs(1), removed.message()).await;
    assert!(end.expect("the stream outlived its node").is_err());
    // The other one is served on the same connection, and its stream has not ended.
    who_am_i(stays_channel).await.unwrap();
    let silence = tokio::time::timeout(Duration::from_millis(50), stays.message()).await;
    assert!(silence.is_err(), "{silence:?}");
}

#[tokio::test]
async fn a_stream_does_not_outlive_its_certificate() {
    let authority = Authority::new();
    let server = TestServer::start(authority.node(1, Role::Manager)).await;
    let short = authority.sign(&Leaf {
        until: time::Duration::seconds(3),
        ..Leaf::of(2, Role::Worker)
    });
    let mut session = open_session(server.channel(&IdentityStore::new(short).unwrap())).await;
    assert!(within(session.message()).await.is_err());
}

#[tokio::test]
async fn renewed_identities_are_used_for_new_connections() {
    let authority = Authority::new();
    let mut server = TestServer::start(authority.node(1, Role::Manager)).await;
    let caller = authority.node(2, Role::Worker);
    let channel = server.channel(&caller);
    assert_eq!(
        who_am_i(channel.clone()).await.unwrap(),
        format!("worker {}", id(2))
    );

    caller
        .replace(authority.sign(&Leaf::of(2, Role::Manager)))
        .unwrap();
    server
        .identities
        .replace(authority.sign(&Leaf::of(1, Role::Manager)))
        .unwrap();
    let other_node = caller.replace(authority.sign(&Leaf::of(3, Role::Manager)));
    assert!(other_node.unwrap_err().to_string().contains(id(3).as_str()));

    // The connection that stands is the old one; the next one is made with the new identity.
    assert_eq!(
        who_am_i(channel.clone()).await.unwrap(),
        format!("worker {}", id(2))
    );
    server.identities.disconnect(&id(2));
    let found = within(async {
        loop {
            // The call that finds the connection closed fails; the channel then makes another.
            match who_am_i(channel.clone()).await {
                Ok(found) if found.starts_with("manager") => break found,
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    });
    assert_eq!(found.await, format!("manager {}", id(2)));
    server.stop();
    within(&mut server.done).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_server_ends_although_streams_are_open() {
    let authority = Authority::new();
    let mut server = TestServer::start(authority.node(1, Role::Manager)).await;
    let mut session = open_session(server.channel(&authority.node(2, Role::Worker))).await;
    server.stop();
    within(&mut server.done).await.unwrap().unwrap();
    assert!(within(session.message()).await.is_err());
    TcpListener::bind(server.address).await.unwrap();
}

#[tokio::test]
async fn a_channel_finds_a_server_that_comes_later() {
    let authority = Authority::new();
    let address = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let channel = channel(address, &authority.node(2, Role::Worker), Role::Manager);
    let status = who_am_i(channel.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.message(), format!("cannot connect to {address}"));

    let listener = TcpListener::bind(address).await.unwrap();
    let identities = authority.node(1, Role::Manager);
    let served = swarmlet_proto::transport::serve(
        listener,
        identities,
        routes(),
        std::future::pending::<()>(),
    );
    let served = tokio::spawn(served);
    let found = within(async {
        loop {
            match who_am_i(channel.clone()).await {
                Ok(found) => break found,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    });
    assert_eq!(found.await, format!("worker {}", id(2)));
    served.abort();
}

#[tokio::test]
async fn the_local_socket_is_private_and_replaces_only_dead_ones() {
    use std::os::unix::fs::PermissionsExt;

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run").join("swarmlet.sock");
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    // What a daemon leaves behind that was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let socket = path.clone();
    let served = tokio::spawn(async move {
        let shutdown = async { stopped.await.unwrap_or_default() };
        serve_unix(&socket, routes(), shutdown).await
    });
    let channel = unix_channel(&path);
    let found = within(async {
        loop {
            match who_am_i(channel.clone()).await {
                Ok(found) => break found,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    });
    assert_eq!(found.await, "somebody on this machine");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);

    let second = serve_unix(&path, routes(), std::future::pending())
        .await
        .unwrap_err();
    let source = std::error::Error::source(&second).unwrap().to_string();
    assert_eq!(source, "another daemon listens on it");
    who_am_i(channel).await.unwrap();

    stop.send(()).unwrap();
    within(served).await.unwrap().unwrap();
    assert!(!path.exists());

    std::fs::write(&path, "precious").unwrap();
    serve_unix(&path, routes(), std::future::pending())
        .await
        .unwrap_err();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}
