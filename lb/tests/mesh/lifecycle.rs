//! How a balancer ends.

use std::{io::ErrorKind, time::Duration};

use swarmlet_lb::control::ClientError;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{Backend, Mesh, assert_reset, listener, own_ip, own_port, ready, soon, until};

async fn with_connection(mesh: &mut Mesh) -> (u16, Backend, TcpStream) {
    let port = own_port();
    let echo = Backend::echo().await;
    mesh.set(&[listener(port, vec![ready("a", echo.address)])])
        .await;
    let mut stream = TcpStream::connect((own_ip(), port)).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    soon("the echo", stream.read_exact(&mut [0])).await.unwrap();
    (port, echo, stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_drains_and_ends_with_its_last_connection() {
    let mut mesh = Mesh::start().await;
    let (port, _echo, mut stream) = with_connection(&mut mesh).await;
    mesh.client.shutdown().await.unwrap();
    until("it no longer listens", async || {
        TcpStream::connect((own_ip(), port))
            .await
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    })
    .await;
    assert!(mesh.client.status().await.unwrap().shutting_down);
    // Those by which it was asked whether it listens may take a moment to end.
    until("the first connection is the last one", async || {
        let status = mesh.client.status().await.unwrap();
        status.listeners[0].traffic.active == 1
    })
    .await;
    // Tables are welcome still, but open no port.
    let other = own_port();
    assert_eq!(mesh.set(&[listener(other, vec![])]).await.port_errors, []);
    let error = TcpStream::connect((own_ip(), other)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);

    stream.write_all(b"y").await.unwrap();
    soon("the echo", stream.read_exact(&mut [0])).await.unwrap();
    assert!(!mesh.task.is_finished());
    stream.shutdown().await.unwrap();
    assert_eq!(soon("the end", stream.read(&mut [0])).await.unwrap(), 0);
    soon("the balancer ends", mesh.task).await.unwrap().unwrap();
    let hung_up = soon("clients are hung up on", mesh.client.status())
        .await
        .unwrap_err();
    assert!(
        matches!(hung_up, ClientError::Closed | ClientError::Io(_)),
        "{hung_up}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_drain_in_time_is_reset() {
    let mut mesh = Mesh::start_with(|config| {
        config.drain_timeout = Duration::from_millis(100);
    })
    .await;
    let (_port, _echo, mut stream) = with_connection(&mut mesh).await;
    mesh.client.shutdown().await.unwrap();
    assert_reset(&mut stream).await;
    soon("the balancer ends", mesh.task).await.unwrap().unwrap();
}
