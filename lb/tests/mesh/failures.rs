//! Endpoints that refuse, stay silent, or are not there at all.

use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};

use swarmlet_lb::{Event, status::EndpointCondition, table::Endpoint};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    Backend, Mesh, Refusing, Silent, event, fetch, listener, own_ip, own_port, ready, say, soon,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_refusing_endpoint_costs_no_client_and_comes_back() {
    let mut mesh = Mesh::start().await;
    let mut events = mesh.events().await;
    let port = own_port();
    let (a, b) = (Backend::named("a").await, Backend::named("b").await);
    let refusing = Refusing::new();
    let bad = refusing.address;
    mesh.set(&[listener(
        port,
        vec![
            ready("a", a.address),
            ready("bad", bad),
            ready("b", b.address),
        ],
    )])
    .await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..8 {
        clients.spawn(async move {
            for _ in 0..20 {
                fetch(port).await.unwrap();
            }
        });
    }
    clients.join_all().await;
    let reason = "connection refused".to_owned();
    let ejected = Event::Ejected {
        port,
        id: "bad".into(),
        reason,
    };
    event(&mut events, |found| *found == ejected).await;
    assert_eq!(
        mesh.condition(port, "bad").await,
        EndpointCondition::Ejected
    );
    let status = mesh.listener(port).await;
    assert_eq!(status.unserved, 0);
    // At most one failure for each client that was under way at the ejection.
    assert!(
        (1..=8).contains(&status.traffic.connect_failures),
        "{status:?}"
    );
    assert_eq!(a.accepted() + b.accepted(), 160);

    let recovered = Backend::serve(refusing.recover(), |stream| say(stream, "bad".into()));
    event(&mut events, |found| {
        *found
            == Event::Restored {
                port,
                id: "bad".into(),
            }
    })
    .await;
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(fetch(port).await.unwrap());
    }
    answers.sort();
    assert_eq!(answers, ["a", "b", "bad"]);
    drop(recovered);
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_endpoint_is_left_out_after_the_second_time() {
    let mut mesh = Mesh::start_with(|config| {
        config.timeouts.connect = Duration::from_millis(100);
    })
    .await;
    let port = own_port();
    let (silent, good) = (Silent::new(), Backend::named("good").await);
    mesh.set(&[listener(
        port,
        vec![ready("silent", silent.address), ready("good", good.address)],
    )])
    .await;
    let mut conditions = Vec::new();
    for _ in 0..6 {
        let before = mesh.listener(port).await.traffic.connect_failures;
        assert_eq!(fetch(port).await.unwrap(), "good");
        if mesh.listener(port).await.traffic.connect_failures > before {
            conditions.push(mesh.condition(port, "silent").await);
        }
    }
    assert_eq!(
        conditions,
        [EndpointCondition::Ready, EndpointCondition::Ejected]
    );
    assert_eq!(mesh.listener(port).await.traffic.connect_failures, 2);
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_meets_the_same_endpoint_twice_only_if_there_is_no_other() {
    let mut mesh = Mesh::start_with(|config| {
        config.timeouts.connect = Duration::from_millis(50);
    })
    .await;
    let port = own_port();
    let (silent, good) = (Silent::new(), Backend::named("good").await);
    // So heavy that every turn but one in a hundred is its own.
    let heavy = Endpoint {
        weight: 100,
        ..ready("silent", silent.address)
    };
    mesh.set(&[listener(port, vec![heavy, ready("good", good.address)])])
        .await;
    assert_eq!(fetch(port).await.unwrap(), "good");
    assert_eq!(mesh.listener(port).await.traffic.connect_failures, 1);
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_lost_answer_of_the_only_endpoint_is_tried_again() {
    let mut mesh = Mesh::start_with(|config| {
        config.timeouts.connect = Duration::from_millis(50);
    })
    .await;
    let port = own_port();
    let silent = Silent::new();
    mesh.set(&[listener(port, vec![ready("silent", silent.address)])])
        .await;
    let start = Instant::now();
    assert_eq!(
        fetch(port).await.unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    // 50, 100 and 200 ms.
    assert!(
        start.elapsed() >= Duration::from_millis(350),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(mesh.listener(port).await.traffic.connect_failures, 3);
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_everything_down_clients_are_reset() {
    let mut mesh = Mesh::start().await;
    let (port, empty) = (own_port(), own_port());
    let down: Vec<Refusing> = (0..5).map(|_| Refusing::new()).collect();
    let endpoints = (0..)
        .zip(&down)
        .map(|(n, one)| ready(&format!("task-{n}"), one.address));
    mesh.set(&[listener(port, endpoints.collect()), listener(empty, vec![])])
        .await;
    for _ in 0..10 {
        assert_eq!(
            fetch(port).await.unwrap_err().kind(),
            ErrorKind::ConnectionReset
        );
        assert_eq!(
            fetch(empty).await.unwrap_err().kind(),
            ErrorKind::ConnectionReset
        );
    }
    let status = mesh.listener(port).await;
    assert_eq!((status.accepted, status.unserved), (10, 10));
    assert_eq!(status.traffic.active, 0);
    assert_eq!(status.traffic.connections, 0);
    let failures = status.traffic.connect_failures;
    assert_eq!(failures, 30, "three different endpoints for each client");
    assert_eq!(mesh.listener(empty).await.unserved, 10);
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_byte_is_lost_to_a_failed_try() {
    let mut mesh = Mesh::start().await;
    let echo = Backend::echo().await;
    for round in 0..10 {
        let port = own_port();
        let refusing = Refusing::new();
        mesh.set(&[listener(
            port,
            vec![ready("bad", refusing.address), ready("good", echo.address)],
        )])
        .await;
        for _ in 0..2 {
            let mut stream = TcpStream::connect((own_ip(), port)).await.unwrap();
            let request = format!("first bytes of round {round}");
            stream.write_all(request.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = String::new();
            soon("the answer", stream.read_to_string(&mut answer))
                .await
                .unwrap();
            assert_eq!(answer, request);
        }
        // Two connections: one of them met the refusing endpoint first.
        assert_eq!(mesh.listener(port).await.traffic.connect_failures, 1);
    }
    mesh.stop().await;
}
