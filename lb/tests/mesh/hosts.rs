//! Hosts that are asked whether they are there, without a client that connects.

use std::time::{Duration, Instant};

use swarmlet_lb::{
    Event,
    status::EndpointCondition,
    table::{Endpoint, Host},
};

use crate::support::{
    Backend, Mesh, Refusing, Silent, event, fetch, listener, own_port, ready, until,
};

/// A host whose endpoints are to be out within it.
const BOUND: Duration = Duration::from_millis(2_500);

fn on(host: &str, endpoint: Endpoint) -> Endpoint {
    Endpoint {
        host: Some(host.to_owned()),
        ..endpoint
    }
}

fn host(id: &str, probe: std::net::SocketAddr) -> Host {
    Host {
        id: id.to_owned(),
        probe,
    }
}

/// Short rounds, for what does not depend on their length.
async fn with_short_rounds() -> Mesh {
    Mesh::start_with(|config| config.timeouts.host_round = Duration::from_millis(50)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_host_takes_its_endpoints_with_it_and_brings_them_back() {
    let mut mesh = Mesh::start().await;
    let mut events = mesh.events().await;
    let (port, other) = (own_port(), own_port());
    let (probe, first, second) = (Silent::new(), Silent::new(), Silent::new());
    let living = Backend::named("living").await;
    mesh.hosts = vec![host("h1", probe.address), host("h2", living.address)];
    let (a, b) = (
        on("h1", ready("a", first.address)),
        on("h1", ready("b", second.address)),
    );
    let c = on("h2", ready("c", living.address));
    let begun = Instant::now();
    mesh.set(&[
        listener(port, vec![a.clone(), c.clone()]),
        listener(other, vec![b, c.clone()]),
    ])
    .await;
    for (port, id) in [(port, "a"), (other, "b")] {
        event(
            &mut events,
            |found| matches!(found, Event::Ejected { port: p, id: i, .. } if (*p, i.as_str()) == (port, id)),
        )
        .await;
    }
    let took = begun.elapsed();
    println!("out after {took:?}");
    assert!(took < BOUND, "{took:?}");
    let endpoints = mesh.listener(port).await.endpoints;
    assert_eq!(endpoints[0].condition, EndpointCondition::Ejected);
    assert_eq!(endpoints[0].reason, "its host does not answer");
    assert_eq!(endpoints[1].condition, EndpointCondition::Ready);
    // Nobody had to find out by a connect that failed.
    for _ in 0..4 {
        assert_eq!(fetch(port).await.unwrap(), "living");
    }
    assert_eq!(mesh.listener(port).await.traffic.connect_failures, 0);

    // An endpoint that is new on a lost host is out from the start.
    let new = on("h1", ready("new", second.address));
    mesh.set(&[listener(port, vec![a, new, c.clone(), c_again(&c)])])
        .await;
    assert_eq!(
        mesh.condition(port, "new").await,
        EndpointCondition::Ejected
    );

    let _answers = Backend::serve(probe.recover(), |_| async {});
    for id in ["a", "new"] {
        until("it is back", async || {
            mesh.condition(port, id).await == EndpointCondition::Ready
        })
        .await;
    }
    mesh.stop().await;
}

fn c_again(c: &Endpoint) -> Endpoint {
    Endpoint {
        id: "d".to_owned(),
        ..c.clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_port_does_not_take_down_what_can_be_reached() {
    let mut mesh = with_short_rounds().await;
    let port = own_port();
    // Dropped by a firewall, but for the endpoint.
    let probe = Silent::new();
    let (backend, other) = (Backend::named("a").await, Backend::named("b").await);
    mesh.hosts = vec![host("h", probe.address)];
    let endpoints = vec![
        on("h", ready("a", backend.address)),
        ready("b", other.address),
    ];
    mesh.set(&[listener(port, endpoints)]).await;
    for _ in 0..100 {
        assert_eq!(mesh.condition(port, "a").await, EndpointCondition::Ready);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let asked = backend.accepted();
    println!("the endpoint was asked {asked} times in some 20 rounds");
    assert!((2..=15).contains(&asked), "{asked}");
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_a_sign_of_life_and_asks_nothing_of_endpoints() {
    let mut mesh = with_short_rounds().await;
    let port = own_port();
    let probe = Refusing::new();
    let backend = Backend::named("a").await;
    mesh.hosts = vec![host("h", probe.address)];
    mesh.set(&[listener(port, vec![on("h", ready("a", backend.address))])])
        .await;
    for _ in 0..50 {
        assert_eq!(mesh.condition(port, "a").await, EndpointCondition::Ready);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(backend.accepted(), 0);
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_table_names_is_not_asked_any_more() {
    let mut mesh = with_short_rounds().await;
    let probe = Backend::start(|_| async {}).await;
    mesh.hosts = vec![host("h", probe.address)];
    mesh.set(&[]).await;
    until("it is asked", async || probe.accepted() > 2).await;
    mesh.hosts.clear();
    mesh.set(&[]).await;
    // One question may be on its way.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let asked = probe.accepted();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(probe.accepted(), asked);
    mesh.stop().await;
}
