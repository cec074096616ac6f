//! SIGTERM, which reaches the whole process, hence a binary and a single test
//! of its own.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};
use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::support::{Backend, Mesh, assert_reset, listener, own_ip, own_port, ready, soon, until};

mod support;

async fn with_connection() -> (Mesh, u16, Backend, TcpStream, TcpStream) {
    let mut mesh = Mesh::start_with(|config| {
        config.drain_timeout = Duration::from_secs(3600);
    })
    .await;
    let port = own_port();
    let (backend, mut arrivals) = Backend::handing_over().await;
    mesh.set(&[listener(port, vec![ready("a", backend.address)])])
        .await;
    let client = TcpStream::connect((own_ip(), port)).await.unwrap();
    let server = soon("the connection arrives", arrivals.recv())
        .await
        .unwrap();
    (mesh, port, backend, client, server)
}

async fn terminate_and_see_it_drain(mesh: &mut Mesh, port: u16) {
    kill_process(getpid(), Signal::TERM).unwrap();
    until("it no longer listens", async || {
        TcpStream::connect((own_ip(), port)).await.is_err()
    })
    .await;
    assert!(mesh.client.status().await.unwrap().shutting_down);
    assert!(!mesh.task.is_finished());
}

#[tokio::test(flavor = "multi_thread")]
async fn once_drains_and_twice_ends_at_once() {
    let (mut mesh, port, _backend, client, mut server) = with_connection().await;
    terminate_and_see_it_drain(&mut mesh, port).await;
    drop(client);
    assert_eq!(soon("the end", server.read(&mut [0])).await.unwrap(), 0);
    drop(server);
    soon("the balancer ends", mesh.task).await.unwrap().unwrap();

    let (mut mesh, port, _backend, mut client, mut server) = with_connection().await;
    terminate_and_see_it_drain(&mut mesh, port).await;
    kill_process(getpid(), Signal::TERM).unwrap();
    soon("the balancer ends", mesh.task).await.unwrap().unwrap();
    assert_reset(&mut client).await;
    assert_reset(&mut server).await;
}
