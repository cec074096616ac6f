//! Policies other than the round robin, from the clients' point of view.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use swarmlet_lb::table::{Listener, Policy};
use tokio::{io::AsyncReadExt, net::TcpSocket};

use crate::support::{Backend, Mesh, listener, own_ip, own_port, ready, say, soon, until};

#[tokio::test(flavor = "multi_thread")]
async fn least_conn_avoids_who_has_more() {
    let mut mesh = Mesh::start().await;
    let port = own_port();
    // Both hold what they get, so that the counts only grow.
    let (a, _a_ends) = Backend::handing_over().await;
    let (b, _b_ends) = Backend::handing_over().await;
    mesh.set(&[Listener {
        policy: Policy::LeastConn,
        ..listener(port, vec![ready("a", a.address), ready("b", b.address)])
    }])
    .await;
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(
            tokio::net::TcpStream::connect((own_ip(), port))
                .await
                .unwrap(),
        );
        let expected = clients.len() as u64;
        until("it is connected", async || {
            mesh.listener(port).await.traffic.connections == expected
        })
        .await;
    }
    // With two endpoints the two at random are both of them.
    let active = mesh.listener(port).await.endpoints;
    let active: Vec<u64> = active.iter().map(|one| one.traffic.active).collect();
    assert_eq!(active, [20, 20]);
}

/// Connects from an address of the caller's choice and reads to the end.
async fn fetch_from(source: IpAddr, port: u16) -> String {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(source, 0)).unwrap();
    let mut text = String::new();
    soon("the answer", async {
        let mut stream = socket.connect((own_ip(), port).into()).await.unwrap();
        stream.read_to_string(&mut text).await.unwrap();
    })
    .await;
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_finds_its_endpoint_again() {
    let mut mesh = Mesh::start().await;
    let port = own_port();
    let mut backends = Vec::new();
    let mut endpoints = Vec::new();
    for name in ["a", "b", "c", "d"] {
        let backend = Backend::start(move |stream| say(stream, name.to_owned())).await;
        endpoints.push(ready(name, backend.address));
        backends.push(backend);
    }
    let table = |endpoints| Listener {
        policy: Policy::SourceHash,
        ..listener(port, endpoints)
    };
    mesh.set(&[table(endpoints.clone())]).await;
    let sources: Vec<IpAddr> = (1..=40).map(|host| [127, 0, 77, host].into()).collect();
    let mut before = Vec::new();
    for source in &sources {
        let answer = fetch_from(*source, port).await;
        assert_eq!(fetch_from(*source, port).await, answer);
        before.push(answer);
    }
    assert_eq!(
        before.iter().collect::<BTreeSet<_>>().len(),
        4,
        "{before:?}"
    );
    // Who was elsewhere than at the one that goes stays there.
    endpoints.remove(1);
    mesh.set(&[table(endpoints)]).await;
    for (source, before) in sources.iter().zip(before) {
        let after = fetch_from(*source, port).await;
        assert!(after == before || before == "b", "{before} {after}");
    }
    mesh.stop().await;
}
