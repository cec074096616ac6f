//! File descriptors: none is lost, and running out of them ends nothing.
//!
//! Both subjects are the whole process's, hence a binary and a single test of
//! their own.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

use std::{
    fs::File,
    net::SocketAddr,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};
use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::support::{
    Backend, Mesh, Refusing, fetch, listener, own_ip, own_port, ready, reset, soon, until,
};

mod support;

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Good connections, resets from both sides, refused connects, unserved
/// clients, ports that come and go.
async fn load(mesh: &mut Mesh, named: &Backend, echo: &Backend, refusing: &Refusing) {
    let (mixed, echoing, empty) = (own_port(), own_port(), own_port());
    let table = [
        listener(
            mixed,
            vec![ready("a", named.address), ready("bad", refusing.address)],
        ),
        listener(echoing, vec![ready("echo", echo.address)]),
        listener(empty, vec![]),
    ];
    mesh.set(&table).await;
    for _ in 0..20 {
        let mut clients = tokio::task::JoinSet::new();
        for number in 0..10 {
            clients.spawn(async move {
                assert_eq!(fetch(mixed).await.unwrap(), "a");
                fetch(empty).await.unwrap_err();
                let stream = TcpStream::connect((own_ip(), echoing)).await.unwrap();
                if number % 2 == 0 {
                    reset(stream);
                }
            });
        }
        clients.join_all().await;
    }
    mesh.set(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn descriptors_come_back_and_running_out_is_survived() {
    let mut mesh = Mesh::start_with(|config| {
        // No help from the budget: the accept loop must meet the error itself.
        config.max_connections = Some(1_000_000);
    })
    .await;
    let (named, echo) = (Backend::named("a").await, Backend::echo().await);
    let refusing = Refusing::new();
    // An acknowledged table says that control connection and threads have what they need.
    mesh.set(&[]).await;
    let baseline = open_files();
    load(&mut mesh, &named, &echo, &refusing).await;
    until("all descriptors are back", async || {
        open_files() == baseline
    })
    .await;

    let port = own_port();
    mesh.set(&[listener(port, vec![ready("a", named.address)])])
        .await;
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let full = FullTable::new();
    client
        .connect(&SocketAddr::new(own_ip(), port).into())
        .unwrap();
    client.set_nonblocking(true).unwrap();
    // Longer than the pause between two accepts: several have failed by now.
    tokio::time::sleep(Duration::from_millis(350)).await;
    drop(full);
    let freed = Instant::now();
    let mut text = String::new();
    let mut client = TcpStream::from_std(client.into()).unwrap();
    soon(
        "the waiting client is served",
        client.read_to_string(&mut text),
    )
    .await
    .unwrap();
    assert_eq!(text, "a");
    assert!(freed.elapsed().as_millis() < 1_000, "{:?}", freed.elapsed());
    assert_eq!(mesh.listener(port).await.accepted, 1);
    drop(client);
    mesh.stop().await;

    the_budget_keeps_clients_waiting().await;
}

/// With room for two connections the third waits, and no error is met.
async fn the_budget_keeps_clients_waiting() {
    let mut mesh = Mesh::start_with(|config| config.max_connections = Some(2)).await;
    let port = own_port();
    let (backend, mut arrivals) = Backend::handing_over().await;
    mesh.set(&[listener(port, vec![ready("a", backend.address)])])
        .await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(TcpStream::connect((own_ip(), port)).await.unwrap());
    }
    let mut served = Vec::new();
    for _ in 0..2 {
        served.push(
            soon("one within the budget", arrivals.recv())
                .await
                .unwrap(),
        );
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(arrivals.try_recv().is_err(), "one past the budget");
    for client in clients {
        drop(client);
        drop(served.pop());
        if let Ok(Some(stream)) =
            tokio::time::timeout(Duration::from_secs(1), arrivals.recv()).await
        {
            served.push(stream);
        }
    }
    assert_eq!(backend.accepted(), 5);
    mesh.stop().await;
}

/// Every descriptor that the limit allows is taken, until dropped.
struct FullTable {
    limit: Rlimit,
    _files: Vec<File>,
}

impl FullTable {
    fn new() -> Self {
        let limit = getrlimit(Resource::Nofile);
        let low = Rlimit {
            current: Some(open_files() as u64 + 20),
            maximum: limit.maximum,
        };
        setrlimit(Resource::Nofile, low).unwrap();
        let files: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok())
            .take(10_000)
            .collect();
        assert!(
            (1..10_000).contains(&files.len()),
            "the limit was not in force"
        );
        Self {
            limit,
            _files: files,
        }
    }
}

impl Drop for FullTable {
    fn drop(&mut self) {
        setrlimit(Resource::Nofile, self.limit).unwrap();
    }
}
