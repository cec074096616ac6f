//! Ten thousand clients at once, which is more than this machine's limit of
//! open files may allow: those within it are served, the others wait.
//!
//! Clients and endpoint are in the test's own process, the balancer is in
//! another one, for each has a limit of its own.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

use std::time::Duration;

use swarmlet_lb::table::Table;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};

use crate::support::{
    Backend, PATIENCE, listener,
    outside::{Outside, raise_limit, serve_if_asked},
    own_ip, own_port, ready,
};

mod support;

const CLIENTS: u64 = 10_000;
/// The test is about the balancer's queue, so this one must hold the burst.
const ENDPOINT_QUEUE: u32 = 4_096;
const ENDPOINTS: usize = 3;

/// The balancer's process; nothing to do when it is run as a test.
#[tokio::test]
async fn balancer() {
    serve_if_asked(|_| {}).await;
}

/// As many clients as descriptors for them, and for the endpoint's ends, allow.
fn clients() -> u64 {
    CLIENTS.min((raise_limit() - 200) * 8 / 15)
}

fn echo() -> Backend {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((own_ip(), 0).into()).unwrap();
    let listener = socket.listen(ENDPOINT_QUEUE).unwrap();
    Backend::serve(listener, |mut stream| async move {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.shutdown().await;
    })
}

async fn connect(port: u16) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.connect((own_ip(), port).into()).await.unwrap()
}

async fn exchange(stream: &mut TcpStream, number: u64) {
    let word = number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes();
    stream.write_all(&word).await.unwrap();
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, word);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_at_once_are_served_or_wait() {
    let clients = clients();
    let directory = tempfile::tempdir().unwrap();
    let control = directory.path().join("lb.sock");
    let (_balancer, mut client) = Outside::start("balancer", &control).await;
    let port = own_port();
    let mut backends = Vec::new();
    for _ in 0..ENDPOINTS {
        backends.push(echo());
    }
    let endpoints = (0..).zip(&backends);
    let endpoints = endpoints.map(|(number, one)| ready(&format!("echo-{number}"), one.address));
    let table = Table {
        version: 1,
        listeners: vec![listener(port, endpoints.collect())],
        hosts: Vec::new(),
    };
    assert_eq!(client.set_table(&table).await.unwrap().port_errors, []);

    let mut crowd = JoinSet::new();
    for number in 0..clients {
        crowd.spawn(async move {
            let mut stream = connect(port).await;
            exchange(&mut stream, number).await;
            (number, stream)
        });
    }
    // Those within the limit are served, and stay.
    let mut served = Vec::new();
    while let Ok(Some(one)) = tokio::time::timeout(Duration::from_secs(3), crowd.join_next()).await
    {
        served.push(one.unwrap());
    }
    println!("{} of {clients} at once", served.len());
    assert!(served.len() > 1_000, "{}", served.len());
    let active = client.status().await.unwrap().listeners[0].traffic.active;
    assert_eq!(active, served.len() as u64);
    for (number, stream) in &mut served {
        exchange(stream, *number + 1).await;
    }
    // As they leave the others get their turn: nobody was turned away.
    drop(served);
    let rest = async {
        while let Some(one) = crowd.join_next().await {
            one.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE * 3, rest).await.unwrap();
    let status = &client.status().await.unwrap().listeners[0];
    assert_eq!((status.accepted, status.unserved), (clients, 0));
    assert_eq!(status.traffic.connect_failures, 0);
    client.shutdown().await.unwrap();
}
