//! The PROXY protocol: what endpoints are told, and who may say whose a
//! connection is.

use std::{net::SocketAddr, time::Duration};

use swarmlet_lb::{
    proxy::Version,
    status::EndpointCondition,
    table::{Endpoint, Host, Listener, Policy},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::mpsc::UnboundedReceiver,
};

use crate::support::{
    Backend, Mesh, Refusing, Silent, assert_reset, fetch, listener, own_ip, own_port, ready, soon,
    until,
};

const LINE: &[u8] = b"PROXY TCP4 203.0.113.9 198.51.100.1 4711 443\r\n";
const TOLD_AND_PASSED_ON: &str = "PROXY TCP4 203.0.113.9 198.51.100.1 4711 443\r\n";

/// From where a client on the loopback comes that does not choose.
const CLIENT: &str = "127.0.0.1";

/// A balancer in front of one endpoint, whose port does this about headers.
struct Subject {
    mesh: Mesh,
    port: u16,
    arrivals: UnboundedReceiver<TcpStream>,
    backend: Backend,
}

impl Subject {
    async fn new(send: Option<Version>, accept: &[&str]) -> Self {
        let mesh = Mesh::start_with(|config| {
            config.timeouts.proxy_header = Duration::from_millis(400);
        })
        .await;
        let (backend, arrivals) = Backend::handing_over().await;
        let mut subject = Self {
            mesh,
            port: own_port(),
            arrivals,
            backend,
        };
        subject.set(send, accept).await;
        subject
    }

    async fn set(&mut self, send: Option<Version>, accept: &[&str]) {
        let endpoint = Endpoint {
            proxy_protocol: send,
            ..ready("a", self.backend.address)
        };
        let listener = Listener {
            accept_proxy: accept.iter().map(|text| text.parse().unwrap()).collect(),
            ..listener(self.port, vec![endpoint])
        };
        self.mesh.set(&[listener]).await;
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect((own_ip(), self.port)).await.unwrap()
    }

    async fn arrival(&mut self) -> TcpStream {
        soon("the connection arrives", self.arrivals.recv())
            .await
            .unwrap()
    }

    /// Sends this, ends, and returns all that the endpoint gets.
    async fn passed_on(&mut self, sent: &[u8]) -> String {
        let mut client = self.connect().await;
        client.write_all(sent).await.unwrap();
        client.shutdown().await.unwrap();
        let mut server = self.arrival().await;
        let mut got = Vec::new();
        soon("the end", server.read_to_end(&mut got)).await.unwrap();
        // As text, byte by byte: an address need not be UTF-8.
        got.into_iter().map(char::from).collect()
    }

    async fn refused(&mut self) -> u64 {
        self.mesh.listener(self.port).await.refused
    }
}

/// What a header of version 1 says of a client's connection to the balancer.
fn line_of(client: &TcpStream) -> String {
    let (source, destination) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
    let (from, to) = (source.port(), destination.port());
    format!(
        "PROXY TCP4 {} {} {from} {to}\r\n",
        source.ip(),
        destination.ip()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_is_told_at_once_whose_connection_it_is() {
    let mut subject = Subject::new(Some(Version::V1), &[]).await;
    // The client waits for the endpoint to speak first.
    let mut client = subject.connect().await;
    let mut server = subject.arrival().await;
    let line = line_of(&client);
    let mut told = vec![0; line.len()];
    soon("the header", server.read_exact(&mut told))
        .await
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&told), line);
    server.write_all(b"220 hello").await.unwrap();
    soon("the greeting", client.read_exact(&mut [0; 9]))
        .await
        .unwrap();
    client.write_all(b"bytes").await.unwrap();
    drop(client);
    let mut rest = String::new();
    soon("the end", server.read_to_string(&mut rest))
        .await
        .unwrap();
    assert_eq!(rest, "bytes");
    drop(server);
    until("the bytes are counted", async || {
        subject.mesh.listener(subject.port).await.traffic.active == 0
    })
    .await;
    // The header is none of the client's.
    let traffic = subject.mesh.listener(subject.port).await.traffic;
    assert_eq!((traffic.bytes_to_endpoint, traffic.bytes_to_client), (5, 9));

    // A table changes what new connections are told.
    subject.set(Some(Version::V2), &[]).await;
    let got = subject.passed_on(b"GET /").await;
    assert_eq!(got.chars().count(), 28 + 5);
    assert!(got.starts_with("\r\n\r\n\0\r\nQUIT\n!\u{11}\0\u{c}") && got.ends_with("GET /"));
    subject.set(None, &[]).await;
    assert_eq!(subject.passed_on(b"GET /").await, "GET /");
    subject.mesh.stop().await;
}

/// The header is in front of the first byte also of a stream that is large and
/// under way before the endpoint is connected.
#[tokio::test(flavor = "multi_thread")]
async fn a_header_is_in_front_of_a_large_stream() {
    let mut subject = Subject::new(Some(Version::V1), &[]).await;
    let mut client = subject.connect().await;
    let line = line_of(&client);
    let bytes: Vec<u8> = (0..5_000_003_u32).map(|n| n.to_le_bytes()[1]).collect();
    let expected = [line.as_bytes(), &bytes].concat();
    let send = tokio::spawn(async move {
        client.write_all(&bytes).await.unwrap();
        client
    });
    let mut server = subject.arrival().await;
    let mut got = vec![0; expected.len()];
    soon("all of it", server.read_exact(&mut got))
        .await
        .unwrap();
    assert!(got == expected);
    drop((send.await.unwrap(), server));
    subject.mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_trusted_cannot_say_who_it_is() {
    let mut subject = Subject::new(None, &["203.0.113.0/24"]).await;
    let got = subject.passed_on(LINE).await;
    assert_eq!(got, TOLD_AND_PASSED_ON, "it is the client's data");
    // And an endpoint that is told, is told the truth first.
    subject.set(Some(Version::V1), &["203.0.113.0/24"]).await;
    let got = subject.passed_on(LINE).await;
    let truth = format!("PROXY TCP4 {CLIENT} ");
    assert!(got.starts_with(&truth) && got.ends_with(TOLD_AND_PASSED_ON));
    assert_eq!(subject.refused().await, 0);
    subject.mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_trusted_must_say_whose_connection_it_is() {
    let mut subject = Subject::new(Some(Version::V1), &["203.0.113.0/24", CLIENT]).await;
    // Whole, with the client's bytes behind it.
    let got = subject.passed_on(&[LINE, b"GET /"].concat()).await;
    assert_eq!(got, format!("{TOLD_AND_PASSED_ON}GET /"));
    // LOCAL: the connection is the sender's own.
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0GET /";
    let got = subject.passed_on(local).await;
    let own = own_ip();
    assert!(
        got.starts_with(&format!("PROXY TCP4 {CLIENT} {own} ")),
        "{got}"
    );
    assert!(got.ends_with("\r\nGET /"));

    // In pieces, and nothing is connected before the last of them.
    let mut client = subject.connect().await;
    client.set_nodelay(true).unwrap();
    for byte in &LINE[..LINE.len() - 1] {
        client.write_all(&[*byte]).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(subject.arrivals.try_recv().is_err());
    client.write_all(&LINE[LINE.len() - 1..]).await.unwrap();
    let mut server = subject.arrival().await;
    let mut told = vec![0; LINE.len()];
    soon("the header", server.read_exact(&mut told))
        .await
        .unwrap();
    assert_eq!(told, LINE);
    drop((client, server));
    assert_eq!(subject.refused().await, 0);

    // None, a wrong one, half of one, and silence.
    let wrong = [
        (&b"GET / HTTP/1.1\r\n"[..], false),
        (b"PROXY TCP4 1.2.3.4\r\n", false),
        (&LINE[..20], true),
        (b"", true),
        (&LINE[..20], false),
        (b"", false),
    ];
    for (refused, (sent, ends)) in (1..).zip(wrong) {
        let mut client = subject.connect().await;
        client.write_all(sent).await.unwrap();
        if ends {
            client.shutdown().await.unwrap();
        }
        assert_reset(&mut client).await;
        until("it is counted", async || subject.refused().await == refused).await;
    }
    assert!(subject.arrivals.try_recv().is_err(), "one came through");
    let status = subject.mesh.listener(subject.port).await;
    assert_eq!(status.unserved, 0);
    subject.mesh.stop().await;
}

/// The source of a hash is the one that is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_hashed_as_it_is_told() {
    let mut mesh = Mesh::start().await;
    let port = own_port();
    let (a, b) = (Backend::named("a").await, Backend::named("b").await);
    let table = |accept: &[&str]| Listener {
        policy: Policy::SourceHash,
        accept_proxy: accept.iter().map(|text| text.parse().unwrap()).collect(),
        ..listener(port, vec![ready("a", a.address), ready("b", b.address)])
    };
    let ask = async |source: SocketAddr, header: String| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(source).unwrap();
        let connect = socket.connect((own_ip(), port).into());
        let mut client = connect.await.unwrap();
        client.write_all(header.as_bytes()).await.unwrap();
        let mut name = String::new();
        soon("the name", client.read_to_string(&mut name))
            .await
            .unwrap();
        name
    };
    // First as they are, then as one other says they are.
    mesh.set(&[table(&[])]).await;
    let sources: Vec<[u8; 4]> = (1..=12).map(|n| [127, 200, 7, n]).collect();
    let mut direct = Vec::new();
    for ip in &sources {
        direct.push(ask((*ip, 0).into(), String::new()).await);
    }
    assert!(direct.iter().any(|name| name == "a") && direct.iter().any(|name| name == "b"));
    mesh.set(&[table(&[CLIENT])]).await;
    for (ip, expected) in sources.iter().zip(direct) {
        let ip = std::net::Ipv4Addr::from(*ip);
        let header = format!("PROXY TCP4 {ip} 198.51.100.1 4711 443\r\n");
        let name = ask(SocketAddr::new(CLIENT.parse().unwrap(), 0), header).await;
        assert_eq!(name, expected, "{ip}");
    }
    mesh.stop().await;
}

const PROBES: [(Version, &[u8]); 2] = [
    (Version::V1, b"PROXY UNKNOWN\r\n"),
    (Version::V2, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"),
];

/// All that a probe sends; it ends in order.
async fn probe(listener: &tokio::net::TcpListener) -> Vec<u8> {
    let (mut stream, _) = soon("a probe", listener.accept()).await.unwrap();
    let mut bytes = Vec::new();
    soon("its end", stream.read_to_end(&mut bytes))
        .await
        .unwrap();
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_of_endpoints_have_the_header_that_these_expect() {
    for (version, header) in PROBES {
        let mut mesh = Mesh::start().await;
        let (port, refusing) = (own_port(), Refusing::new());
        let endpoint = Endpoint {
            proxy_protocol: Some(version),
            ..ready("a", refusing.address)
        };
        mesh.set(&[listener(port, vec![endpoint])]).await;
        fetch(port).await.unwrap_err();
        until("it is ejected", async || {
            mesh.condition(port, "a").await == EndpointCondition::Ejected
        })
        .await;
        let recovered = refusing.recover();
        assert_eq!(probe(&recovered).await, header, "{version:?}");
        // The second answer brings it back, and headers are no traffic.
        assert_eq!(probe(&recovered).await, header, "{version:?}");
        until("it is back", async || {
            mesh.condition(port, "a").await == EndpointCondition::Ready
        })
        .await;
        assert_eq!(mesh.listener(port).await.traffic.bytes_to_endpoint, 0);
        mesh.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_asked_for_its_host_gets_a_header() {
    let (version, header) = PROBES[1];
    let mut mesh =
        Mesh::start_with(|config| config.timeouts.host_round = Duration::from_millis(50)).await;
    let (silent, witness) = (Silent::new(), Refusing::new());
    mesh.hosts = vec![Host {
        id: "h1".to_owned(),
        probe: silent.address,
    }];
    let endpoint = Endpoint {
        proxy_protocol: Some(version),
        host: Some("h1".to_owned()),
        ..ready("a", witness.address)
    };
    let witness = witness.recover();
    mesh.set(&[listener(own_port(), vec![endpoint])]).await;
    assert_eq!(probe(&witness).await, header);
    mesh.stop().await;
}
