//! Local endpoints first.

use swarmlet_lb::table::{Endpoint, Listener};

use crate::support::{Backend, Mesh, fetch, listener, own_ip, own_port, ready, until};

#[tokio::test(flavor = "multi_thread")]
async fn local_endpoints_come_first_while_they_are_not_busier() {
    let mut mesh = Mesh::start().await;
    let port = own_port();
    let (near, far) = (Backend::named("near").await, Backend::named("far").await);
    let local = |id: &str, backend: &Backend| Endpoint {
        local: true,
        ..ready(id, backend.address)
    };
    let table = |endpoints| Listener {
        prefer_local: true,
        ..listener(port, endpoints)
    };
    mesh.set(&[table(vec![ready("far", far.address), local("near", &near)])])
        .await;
    for _ in 0..10 {
        assert_eq!(fetch(port).await.unwrap(), "near");
        // Else the next may find it busy with the end of this one.
        until("it is over", async || {
            mesh.listener(port).await.traffic.active == 0
        })
        .await;
    }
    // Connections that last go to both.
    let (near, near_ends) = Backend::handing_over().await;
    let (far, far_ends) = Backend::handing_over().await;
    mesh.set(&[table(vec![ready("far", far.address), local("near", &near)])])
        .await;
    let mut clients = Vec::new();
    for number in 1..=40 {
        clients.push(
            tokio::net::TcpStream::connect((own_ip(), port))
                .await
                .unwrap(),
        );
        until("it is connected", async || {
            mesh.listener(port).await.traffic.active == number
        })
        .await;
    }
    let endpoints = mesh.listener(port).await.endpoints;
    let active: Vec<u64> = endpoints.iter().map(|one| one.traffic.active).collect();
    assert_eq!(active, [15, 25], "a half, and a quarter more");
    drop((clients, near_ends, far_ends));
    mesh.stop().await;
}
