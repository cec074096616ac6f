//! Who gets how many connections.

use std::{collections::BTreeMap, sync::Arc};

use swarmlet_lb::{Event, table::Endpoint};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Barrier,
};

use crate::support::{
    Backend, Mesh, draining, event, fetch, listener, own_ip, own_port, ready, soon, until,
};

async fn named_backends(count: usize) -> (Vec<Backend>, Vec<Endpoint>) {
    let mut backends = Vec::new();
    let mut endpoints = Vec::new();
    for index in 0..count {
        let name = format!("task-{index}");
        let backend = Backend::named(&name).await;
        endpoints.push(ready(&name, backend.address));
        backends.push(backend);
    }
    (backends, endpoints)
}

/// `clients` at once, each `requests` in a row. Returns how often each answered.
async fn load(port: u16, clients: usize, requests: usize) -> BTreeMap<String, usize> {
    let start = Arc::new(Barrier::new(clients));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..clients {
        let start = Arc::clone(&start);
        tasks.spawn(async move {
            start.wait().await;
            let mut answers = Vec::new();
            for _ in 0..requests {
                answers.push(fetch(port).await.unwrap());
            }
            answers
        });
    }
    let mut counts = BTreeMap::new();
    for answer in tasks.join_all().await.into_iter().flatten() {
        *counts.entry(answer).or_default() += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eight_clients_find_ten_endpoints_even_across_tables() {
    let mut mesh = Mesh::start().await;
    let (port, other) = (own_port(), own_port());
    let (_backends, endpoints) = named_backends(10).await;
    mesh.set(&[listener(port, endpoints.clone())]).await;

    // 8 times 25 is 20 for each, and the tables come while it runs.
    let clients = tokio::spawn(load(port, 8, 25));
    for round in 0..20 {
        let more = listener(other, endpoints[..round % 3].to_vec());
        mesh.set(&[more, listener(port, endpoints.clone())]).await;
    }
    let first = clients.await.unwrap();
    assert_eq!(first.len(), 10, "{first:?}");
    assert!(first.values().all(|count| *count == 20), "{first:?}");

    // Not a multiple of ten: within one, over both loads together.
    mesh.set(&[listener(port, endpoints.clone())]).await;
    let mut both = load(port, 8, 13).await;
    assert_eq!(both.values().sum::<usize>(), 104);
    for (name, count) in first {
        *both.entry(name).or_default() += count;
    }
    let (min, max) = (both.values().min().unwrap(), both.values().max().unwrap());
    assert!(max - min <= 1, "{both:?}");

    let traffic = mesh.listener(port).await.traffic;
    assert_eq!((traffic.connections, traffic.connect_failures), (304, 0));
    assert_eq!(traffic.bytes_to_client, 304 * "task-0".len() as u64);
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scaling_up_down_and_to_nothing_stays_even() {
    let mut mesh = Mesh::start().await;
    let port = own_port();
    let (_backends, endpoints) = named_backends(10).await;
    for count in [1, 10, 3, 10] {
        mesh.set(&[listener(port, endpoints[..count].to_vec())])
            .await;
        let counts = load(port, 2, count * 3).await;
        assert_eq!(counts.len(), count);
        assert!(
            counts.values().all(|times| *times == 6),
            "{count}: {counts:?}"
        );
    }
    mesh.set(&[listener(port, vec![])]).await;
    assert_eq!(
        fetch(port).await.map_err(|error| error.kind()),
        Err(std::io::ErrorKind::ConnectionReset)
    );
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_are_kept() {
    let mut mesh = Mesh::start().await;
    let port = own_port();
    let (_backends, mut endpoints) = named_backends(2).await;
    endpoints[0].weight = 3;
    mesh.set(&[listener(port, endpoints)]).await;
    let counts = load(port, 4, 10).await;
    assert_eq!(
        counts,
        BTreeMap::from([("task-0".into(), 30), ("task-1".into(), 10)])
    );
    mesh.stop().await;
}

async fn assert_echoes(stream: &mut TcpStream) {
    let mut answer = [0; 5];
    stream.write_all(b"still").await.unwrap();
    soon("the echo", stream.read_exact(&mut answer))
        .await
        .unwrap();
    assert_eq!(&answer, b"still");
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_and_removed_endpoints_keep_what_they_have_and_get_no_more() {
    let mut mesh = Mesh::start().await;
    let port = own_port();
    let (old, new) = (Backend::echo().await, Backend::named("new").await);
    mesh.set(&[listener(port, vec![ready("old", old.address)])])
        .await;
    let mut first = TcpStream::connect((own_ip(), port)).await.unwrap();
    let mut second = TcpStream::connect((own_ip(), port)).await.unwrap();
    assert_echoes(&mut first).await;
    assert_echoes(&mut second).await;
    let mut events = mesh.events().await;

    let with_new = ready("new", new.address);
    mesh.set(&[listener(
        port,
        vec![draining("old", old.address), with_new.clone()],
    )])
    .await;
    for _ in 0..10 {
        assert_eq!(fetch(port).await.unwrap(), "new");
    }
    assert_echoes(&mut first).await;
    drop(first);
    // Only an endpoint that is draining is left: still never chosen.
    mesh.set(&[listener(port, vec![draining("old", old.address)])])
        .await;
    assert!(fetch(port).await.is_err());

    mesh.set(&[listener(port, vec![with_new])]).await;
    assert_echoes(&mut second).await;
    // The end of the first has yet to reach the endpoint and to come back.
    until("only the second is left", async || {
        let removed = mesh.client.status().await.unwrap().removed;
        assert_eq!(removed.len(), 1, "{removed:?}");
        (removed[0].id.as_str(), removed[0].active) == ("old", 1)
    })
    .await;
    drop(second);
    let is_old = |found: &Event| matches!(found, Event::Drained { id, .. } if id == "old");
    event(&mut events, is_old).await;
    assert_eq!(mesh.client.status().await.unwrap().removed, []);
    assert_eq!(old.accepted(), 2);
    mesh.stop().await;
}
