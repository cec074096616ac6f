//! Ten thousand clients at once, which is more than this machine's limit of open files may allow
//! the balancer: as many as it may have are served, the others wait, and none loses a byte.
//!
//! Clients, balancer and endpoints each have a process of their own, for each has a limit of its
//! own.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

use std::{
    net::SocketAddr,
    process::{Child, Command},
    time::{Duration, Instant},
};

use swarmlet_lb::{control::Client, table::Table};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::watch,
    task::JoinSet,
};

use crate::support::{
    Backend,
    keyed::exchange,
    listener,
    outside::{Outside, require_files, serve_if_asked},
    own_ip, own_port, ready, soon, until,
};

mod support;

const CLIENTS: u64 = 10_000;
/// What else the process of the clients, or that of the endpoints, has open.
const OTHER_FILES: u64 = 500;
/// The test is about the balancer's queue, so this one must hold the burst.
const ENDPOINT_QUEUE: u32 = 4_096;
const ENDPOINTS: usize = 3;
/// Bytes that each client sends and gets back, half of them before everybody is there.
const LEN: usize = 32_768;

/// Everything together, on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(120);

/// Set for the process that is the endpoints.
const ADDRESSES: &str = "CROWD_ENDPOINTS";

/// The balancer's process; nothing to do when it is run as a test.
#[tokio::test]
async fn balancer() {
    serve_if_asked(|_| {}).await;
}

/// The endpoints' process; nothing to do when it is run as a test.
#[tokio::test(flavor = "multi_thread")]
async fn endpoints() {
    let Ok(addresses) = std::env::var(ADDRESSES) else {
        return;
    };
    require_files(CLIENTS + OTHER_FILES);
    let mut all = Vec::new();
    for address in addresses.split(',') {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(address.parse().unwrap()).unwrap();
        let listener = socket.listen(ENDPOINT_QUEUE).unwrap();
        all.push(Backend::serve(listener, |mut stream| async move {
            let (mut read, mut write) = stream.split();
            // What became of it is seen by the client.
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = write.shutdown().await;
        }));
    }
    // Until it is killed.
    std::future::pending::<()>().await;
}

/// The endpoints' process, which ends with this.
struct Endpoints {
    child: Child,
    addresses: Vec<SocketAddr>,
}

impl Endpoints {
    async fn start() -> Self {
        let addresses: Vec<SocketAddr> = (0..ENDPOINTS)
            .map(|_| (own_ip(), own_port()).into())
            .collect();
        let names: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "endpoints", "--nocapture"])
            .env(ADDRESSES, names.join(","))
            .spawn()
            .unwrap();
        let all = Self { child, addresses };
        for address in &all.addresses {
            until("the endpoint listens", async || {
                TcpStream::connect(address).await.is_ok()
            })
            .await;
        }
        all
    }
}

impl Drop for Endpoints {
    fn drop(&mut self) {
        // Fails only for a process that has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Exchanges half of its stream, stays until it may go, and exchanges the other half.
async fn client(port: u16, number: u64, mut may_go: watch::Receiver<bool>) {
    let socket = TcpSocket::new_v4().unwrap();
    let mut stream = socket.connect((own_ip(), port).into()).await.unwrap();
    let key = (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    exchange(&mut stream, key, LEN / 2).await.unwrap();
    may_go.wait_for(|may_go| *may_go).await.unwrap();
    exchange(&mut stream, !key, LEN / 2).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
}

async fn active(balancer: &mut Client) -> u64 {
    balancer.status().await.unwrap().listeners[0].traffic.active
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_at_once_are_served_or_wait() {
    require_files(CLIENTS + OTHER_FILES);
    let directory = tempfile::tempdir().unwrap();
    let control = directory.path().join("lb.sock");
    let (outside, mut balancer) = Outside::start("balancer", &control).await;
    let port = own_port();
    let endpoints = Endpoints::start().await;
    let echoes = (0..).zip(&endpoints.addresses);
    let echoes = echoes.map(|(number, address)| ready(&format!("echo-{number}"), *address));
    let table = Table {
        version: 1,
        listeners: vec![listener(port, echoes.collect())],
        hosts: Vec::new(),
    };
    assert_eq!(balancer.set_table(&table).await.unwrap().port_errors, []);
    let most = balancer.status().await.unwrap().settings.max_connections;
    let at_once = CLIENTS.min(most);
    assert!(at_once >= 5_000, "the balancer may have {most}");
    let (let_go, may_go) = watch::channel(true);
    // What is opened once and kept is there before descriptors are counted.
    soon("the first", client(port, 0, may_go.clone())).await;
    until("it is gone", async || active(&mut balancer).await == 0).await;
    let baseline = outside.held().descriptors;

    let begun = Instant::now();
    let_go.send(false).unwrap();
    let mut crowd = JoinSet::new();
    for number in 0..CLIENTS {
        crowd.spawn(client(port, number, may_go.clone()));
    }
    let full = async {
        while active(&mut balancer).await < at_once {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, full).await.unwrap();
    println!("{at_once} of {CLIENTS} at once after {:?}", begun.elapsed());
    // As they leave the others get their turn: nobody was turned away.
    let_go.send(true).unwrap();
    let rest = async {
        while let Some(one) = crowd.join_next().await {
            one.unwrap();
        }
    };
    tokio::time::timeout(LIMIT, rest).await.unwrap();
    println!("all of them after {:?}", begun.elapsed());
    let status = &balancer.status().await.unwrap().listeners[0];
    assert_eq!((status.accepted, status.unserved), (CLIENTS + 1, 0));
    assert_eq!(status.traffic.connect_failures, 0);
    let bytes = (CLIENTS + 1) * LEN as u64;
    assert_eq!(
        (
            status.traffic.bytes_to_endpoint,
            status.traffic.bytes_to_client
        ),
        (bytes, bytes)
    );
    println!(
        "descriptors: {baseline} before, {} now",
        outside.held().descriptors
    );
    until("descriptors are back", async || {
        outside.held().descriptors <= baseline
    })
    .await;
    balancer.shutdown().await.unwrap();
}
