//! Ports that appear, vanish, or belong to somebody else.

use std::{io::ErrorKind, time::Instant};

use swarmlet_lb::{Event, status::PortError};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::support::{Backend, Mesh, event, fetch, listener, own_ip, own_port, ready, soon};

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_reported_hurts_no_other_and_recovers() {
    let mut mesh = Mesh::start().await;
    let mut events = mesh.events().await;
    let (taken, free) = (own_port(), own_port());
    let other = TcpListener::bind((own_ip(), taken)).await.unwrap();
    let backend = Backend::named("a").await;
    let table = [taken, free].map(|port| listener(port, vec![ready("a", backend.address)]));
    let ack = mesh.set(&table).await;
    let reason = format!(
        "cannot listen on {}:{taken}: another program listens there, stop it or publish another port",
        own_ip()
    );
    let errors = vec![PortError {
        port: taken,
        reason: reason.clone(),
    }];
    assert_eq!(ack.port_errors, errors);
    event(&mut events, |found| {
        *found
            == Event::PortErrors {
                errors: errors.clone(),
            }
    })
    .await;
    assert_eq!(fetch(free).await.unwrap(), "a");
    let status = mesh.listener(taken).await;
    assert_eq!((status.bound.len(), status.error), (0, Some(reason)));
    assert_eq!(mesh.listener(free).await.error, None);

    // The table is told the same again and again, and still it is so.
    for _ in 0..3 {
        assert_eq!(mesh.set(&table).await.port_errors, errors);
    }
    drop(other);
    let freed = Instant::now();
    event(&mut events, |found| {
        *found == Event::PortErrors { errors: vec![] }
    })
    .await;
    assert!(freed.elapsed().as_millis() < 3_000, "{:?}", freed.elapsed());
    assert_eq!(fetch(taken).await.unwrap(), "a");
    let status = mesh.listener(taken).await;
    assert_eq!((status.bound.len(), status.error), (1, None));
    assert_eq!(mesh.set(&table).await.port_errors, []);
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_given_up_is_no_longer_an_error() {
    let mut mesh = Mesh::start().await;
    let mut events = mesh.events().await;
    let taken = own_port();
    let _other = TcpListener::bind((own_ip(), taken)).await.unwrap();
    assert_eq!(
        mesh.set(&[listener(taken, vec![])]).await.port_errors.len(),
        1
    );
    assert_eq!(mesh.set(&[]).await.port_errors, []);
    event(&mut events, |found| {
        *found == Event::PortErrors { errors: vec![] }
    })
    .await;
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_port_closes_at_once_and_its_connections_live_on() {
    let mut mesh = Mesh::start().await;
    let port = own_port();
    let echo = Backend::echo().await;
    let table = [listener(port, vec![ready("a", echo.address)])];
    mesh.set(&table).await;
    let mut stream = TcpStream::connect((own_ip(), port)).await.unwrap();
    stream.write_all(b"before").await.unwrap();
    let mut answer = [0; 6];
    soon("the echo", stream.read_exact(&mut answer))
        .await
        .unwrap();

    mesh.set(&[]).await;
    let error = TcpStream::connect((own_ip(), port)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    stream.write_all(b"behind").await.unwrap();
    soon("the echo", stream.read_exact(&mut answer))
        .await
        .unwrap();
    assert_eq!(&answer, b"behind");

    // The port is free: it can be published again, and the endpoint, which
    // never quite left, goes on counting.
    assert_eq!(mesh.set(&table).await.port_errors, []);
    let endpoint = &mesh.listener(port).await.endpoints[0];
    assert_eq!(
        (endpoint.traffic.active, endpoint.traffic.connections),
        (1, 1)
    );
    assert_eq!(mesh.client.status().await.unwrap().removed, []);
    drop(stream);
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_addresses_serve_both_families() {
    use std::net::{Ipv4Addr, Ipv6Addr};
    let mut mesh = Mesh::start_with(|config| {
        config.ingress = vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    })
    .await;
    // All addresses: a port must be free on each, and may be taken meanwhile.
    let probe = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
    let port = probe.local_addr().unwrap().port();
    drop(probe);
    let backend = Backend::named("a").await;
    let ack = mesh
        .set(&[listener(port, vec![ready("a", backend.address)])])
        .await;
    assert_eq!(ack.port_errors, []);
    assert_eq!(fetch(port).await.unwrap(), "a");
    let bound = mesh.listener(port).await.bound;
    if bound.iter().any(std::net::SocketAddr::is_ipv6) {
        let mut stream = TcpStream::connect((Ipv6Addr::LOCALHOST, port))
            .await
            .unwrap();
        let mut text = String::new();
        soon("the answer", stream.read_to_string(&mut text))
            .await
            .unwrap();
        assert_eq!(text, "a");
    } else {
        // Only a machine without IPv6 may answer on one family.
        let error = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0))
            .await
            .unwrap_err();
        println!("no IPv6 on this machine: {error}");
    }
    mesh.stop().await;
}

/// Most of them at once, the last ones singly, as services are published.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_ports_are_published() {
    const SINGLY: usize = 30;
    let mut mesh = Mesh::start().await;
    let backend = Backend::named("a").await;
    let mut table: Vec<_> = (0..1_000)
        .map(|_| listener(own_port(), vec![ready("a", backend.address)]))
        .collect();
    let last = table.split_off(1_000 - SINGLY);
    assert_eq!(mesh.set(&table).await.port_errors, []);
    for one in &table {
        assert_eq!(fetch(one.port).await.unwrap(), "a");
    }
    let started = Instant::now();
    for one in last {
        let port = one.port;
        table.push(one);
        assert_eq!(mesh.set(&table).await.port_errors, []);
        assert_eq!(fetch(port).await.unwrap(), "a");
    }
    println!("{:?} for {SINGLY}", started.elapsed());
    assert_eq!(mesh.client.status().await.unwrap().listeners.len(), 1_000);
    let first = table[0].port;
    mesh.set(&[]).await;
    let error = TcpStream::connect((own_ip(), first)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    mesh.stop().await;
}
