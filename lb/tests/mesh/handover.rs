//! Listening sockets that pass from one balancer to the next.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use swarmlet_lb::{
    Event,
    control::{Client, Keeper},
    table::{Listener, Table},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    Backend, Mesh, draining, event, fetch, listener, own_ip, own_port, ready, soon, until,
};

fn table(listeners: &[Listener]) -> Table {
    Table {
        version: 1,
        listeners: listeners.to_vec(),
        hosts: Vec::new(),
    }
}

/// The next balancer at the path of `old`, which has made room, with its
/// sockets and this table.
async fn succeed(old: &mut Mesh, keeper: &mut Keeper, listeners: &[Listener]) -> Mesh {
    keeper.update(&mut old.client).await.unwrap();
    old.client.step_aside().await.unwrap();
    let path = old.config.control.clone();
    let mut new = Mesh::start_with(|config| config.control = path).await;
    keeper.hand_over(&mut new.client).await.unwrap();
    assert_eq!(new.set(listeners).await.port_errors, []);
    new
}

async fn echo_through(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect((own_ip(), port)).await.unwrap();
    assert_echoes(&mut stream).await;
    stream
}

async fn assert_echoes(stream: &mut TcpStream) {
    stream.write_all(b"x").await.unwrap();
    soon("the echo", stream.read_exact(&mut [0])).await.unwrap();
}

async fn is_refused(port: u16) -> bool {
    let error = TcpStream::connect((own_ip(), port)).await.err();
    error.is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_outlives_its_balancer_with_the_clients_that_wait() {
    let mut mesh = Mesh::start().await;
    let (port, removed) = (own_port(), own_port());
    let backend = Backend::named("a").await;
    let kept = listener(port, vec![ready("a", backend.address)]);
    let other = listener(removed, vec![ready("a", backend.address)]);
    mesh.set(&[kept.clone(), other]).await;
    let mut keeper = Keeper::new();
    keeper.update(&mut mesh.client).await.unwrap();
    assert_eq!(keeper.len(), 2);

    // A port that leaves the table is closed once the keeper knows.
    mesh.set(std::slice::from_ref(&kept)).await;
    keeper.keep_only(&table(std::slice::from_ref(&kept)));
    keeper.update(&mut mesh.client).await.unwrap();
    assert_eq!(keeper.len(), 1);
    assert!(is_refused(removed).await);

    mesh.stop().await;
    let waiting = tokio::spawn(fetch(port));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished());
    let mut mesh = Mesh::start().await;
    keeper.hand_over(&mut mesh.client).await.unwrap();
    mesh.set(std::slice::from_ref(&kept)).await;
    assert_eq!(waiting.await.unwrap().unwrap(), "a");
    keeper.update(&mut mesh.client).await.unwrap();
    assert_eq!(keeper.len(), 1);

    // And once more, for what it holds now is of the second one.
    mesh.stop().await;
    let waiting = tokio::spawn(fetch(port));
    let mut mesh = Mesh::start().await;
    keeper.hand_over(&mut mesh.client).await.unwrap();
    mesh.set(&[kept]).await;
    assert_eq!(waiting.await.unwrap().unwrap(), "a");
    mesh.stop().await;
    drop(keeper);
    assert!(is_refused(port).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_that_no_table_names_are_closed() {
    let mut mesh = Mesh::start().await;
    let port = own_port();
    mesh.set(&[listener(port, vec![])]).await;
    let mut keeper = Keeper::new();
    keeper.update(&mut mesh.client).await.unwrap();
    mesh.stop().await;
    let mut mesh = Mesh::start().await;
    keeper.hand_over(&mut mesh.client).await.unwrap();
    mesh.set(&[]).await;
    keeper.update(&mut mesh.client).await.unwrap();
    assert!(keeper.is_empty());
    assert!(is_refused(port).await);
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_sockets_than_fit_a_frame_are_handed_over() {
    const COUNT: usize = 1_200;
    let mut mesh = Mesh::start().await;
    let backend = Backend::named("a").await;
    let listeners: Vec<_> = (0..COUNT)
        .map(|_| listener(own_port(), vec![ready("a", backend.address)]))
        .collect();
    mesh.set(&listeners).await;
    let mut keeper = Keeper::new();
    keeper.update(&mut mesh.client).await.unwrap();
    assert_eq!(keeper.len(), COUNT);
    mesh.stop().await;
    let mut mesh = Mesh::start().await;
    keeper.hand_over(&mut mesh.client).await.unwrap();
    assert_eq!(mesh.set(&listeners).await.port_errors, []);
    for one in [&listeners[0], &listeners[COUNT / 2], &listeners[COUNT - 1]] {
        assert_eq!(fetch(one.port).await.unwrap(), "a");
    }
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_one_keeps_its_connections_and_tells_of_them() {
    let mut old = Mesh::start().await;
    let port = own_port();
    let echo = Backend::echo().await;
    let before = [listener(port, vec![ready("a", echo.address)])];
    old.set(&before).await;
    let mut stream = echo_through(port).await;
    let mut events = old.events().await;

    let mut keeper = Keeper::new();
    let mut new = succeed(&mut old, &mut keeper, &before).await;
    old.client.retire(Duration::from_secs(3600)).await.unwrap();
    event(&mut events, |found| *found == Event::ShuttingDown).await;
    let mut later = echo_through(port).await;
    assert_echoes(&mut stream).await;
    assert_eq!(old.listener(port).await.traffic.active, 1);
    assert_eq!(old.listener(port).await.bound, []);
    assert_eq!(new.listener(port).await.traffic.active, 1);

    // It does not listen, and yet hears of endpoints that drain.
    let after = [listener(port, vec![draining("a", echo.address)])];
    assert_eq!(old.set(&after).await.port_errors, []);
    new.set(&after).await;
    assert!(fetch(port).await.is_err());
    assert_echoes(&mut stream).await;
    stream.shutdown().await.unwrap();
    event(
        &mut events,
        |found| matches!(found, Event::Drained { id, .. } if id == "a"),
    )
    .await;
    soon("the old one ends", old.task).await.unwrap().unwrap();
    assert_echoes(&mut later).await;
    drop(later);
    new.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retired_one_is_found_beside_its_successor_and_can_be_hurried() {
    let mut old = Mesh::start().await;
    let port = own_port();
    let echo = Backend::echo().await;
    let listeners = [listener(port, vec![ready("a", echo.address)])];
    old.set(&listeners).await;
    let mut stream = echo_through(port).await;
    let aside = old.client.step_aside().await.unwrap();
    assert_eq!(old.client.step_aside().await.unwrap(), aside);
    let path = old.config.control.clone();
    assert!(aside.exists() && !path.exists());
    let new = Mesh::start_with(|config| config.control = path.clone()).await;
    old.client.retire(Duration::from_secs(3600)).await.unwrap();
    let mut again = Client::connect(&aside).await.unwrap();
    let status = again.status().await.unwrap();
    assert_eq!(status.listeners[0].traffic.active, 1);

    again.retire(Duration::ZERO).await.unwrap();
    crate::support::assert_reset(&mut stream).await;
    soon("the old one ends", old.task).await.unwrap().unwrap();
    assert!(!aside.exists() && path.exists());
    new.stop().await;
}

/// Balancers follow each other while clients come and go as fast as they can.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_is_refused_or_reset_while_balancers_change() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lb.sock");
    let mut mesh = Mesh::start_with(|config| config.control = path).await;
    let port = own_port();
    let backend = Backend::named("a").await;
    let listeners = [listener(port, vec![ready("a", backend.address)])];
    mesh.set(&listeners).await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let stop = Arc::clone(&stop);
            tokio::spawn(async move {
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(fetch(port).await.unwrap(), "a");
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut keeper = Keeper::new();
    for _ in 0..20 {
        let new = succeed(&mut mesh, &mut keeper, &listeners).await;
        let mut old = std::mem::replace(&mut mesh, new);
        old.client.retire(Duration::from_secs(60)).await.unwrap();
        soon("the old one ends", old.task).await.unwrap().unwrap();
        let accepted = mesh.listener(port).await.accepted;
        until("the new one has accepted", async || {
            mesh.listener(port).await.accepted > accepted
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut total = 0;
    for client in clients {
        total += client.await.unwrap();
    }
    println!("{total} connections through 21 balancers");
    assert_eq!(total, backend.accepted());
    mesh.stop().await;
}
