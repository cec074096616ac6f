//! Limits and the access log, changed while the balancer has connections.

use std::time::Duration;

use swarmlet_lb::{
    Settings, SourceLimits,
    access::{AccessLog, Format},
    settings::AccessLogState,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{Backend, Mesh, assert_reset, listener, own_ip, own_port, ready, soon, until};

async fn echoed(stream: &mut TcpStream) {
    let mut answer = [0; 4];
    stream.write_all(b"ping").await.unwrap();
    soon("the echo", stream.read_exact(&mut answer))
        .await
        .unwrap();
    assert_eq!(&answer, b"ping");
}

async fn connect(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect((own_ip(), port)).await.unwrap();
    echoed(&mut stream).await;
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_change_without_touching_a_connection() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let mut mesh = Mesh::start().await;
    let (port, echo) = (own_port(), Backend::echo().await);
    mesh.set(&[listener(port, vec![ready("a", echo.address)])])
        .await;
    let defaults = mesh.client.status().await.unwrap().settings;
    assert_eq!(defaults.max_buffered, 256 << 20);
    assert!(defaults.max_connections > 0 && defaults.access_log.is_none());
    let mut early = connect(port).await;

    let wanted = Settings {
        max_connections: Some(50),
        max_buffered: Some(1 << 20),
        per_source: SourceLimits {
            connections: Some(1),
            rate: Some(1_000),
        },
        access_log: Some(AccessLog {
            path: path.clone(),
            format: Format::Line,
        }),
    };
    mesh.client.configure(&wanted).await.unwrap();
    let status = mesh.client.status().await.unwrap().settings;
    assert_eq!((status.max_connections, status.max_buffered), (50, 1 << 20));
    assert_eq!(status.per_source, wanted.per_source);
    let log = status.access_log.unwrap();
    assert_eq!((log.path, log.format), (path.clone(), Format::Line));

    // The one that was there before the limit is not counted, and goes on.
    let second = connect(port).await;
    if let Ok(mut third) = TcpStream::connect((own_ip(), port)).await {
        assert_reset(&mut third).await;
    }
    until("it is counted", async || {
        mesh.listener(port).await.refused == 1
    })
    .await;
    echoed(&mut early).await;
    drop(second);
    until("both are in the log", async || {
        std::fs::read_to_string(&path).is_ok_and(|text| text.lines().count() == 2)
    })
    .await;

    mesh.client.configure(&Settings::default()).await.unwrap();
    assert_eq!(mesh.client.status().await.unwrap().settings, defaults);
    let (more, many) = (connect(port).await, connect(port).await);
    echoed(&mut early).await;
    drop((early, more, many));
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_log_that_cannot_be_written_is_named_and_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("missing").join("access.log");
    let mut mesh = Mesh::start().await;
    let (port, echo) = (own_port(), Backend::echo().await);
    mesh.set(&[listener(port, vec![ready("a", echo.address)])])
        .await;
    let settings = Settings {
        access_log: Some(AccessLog {
            path: path.clone(),
            format: Format::Json,
        }),
        ..Settings::default()
    };
    mesh.client.configure(&settings).await.unwrap();
    let state = async |mesh: &mut Mesh| -> AccessLogState {
        let status = mesh.client.status().await.unwrap();
        status.settings.access_log.expect("one was set")
    };
    until("it is named", async || {
        state(&mut mesh)
            .await
            .error
            .is_some_and(|error| error == "cannot open: No such file or directory (os error 2)")
    })
    .await;
    // Forwarding goes on, and what the log lacks is counted.
    drop(connect(port).await);
    until("it is counted", async || {
        mesh.client.status().await.unwrap().access_log_dropped == 1
    })
    .await;

    std::fs::create_dir(directory.path().join("missing")).unwrap();
    until("it is written", async || {
        state(&mut mesh).await.error.is_none()
    })
    .await;
    drop(connect(port).await);
    until("there is a line", async || {
        std::fs::read_to_string(&path).is_ok_and(|text| text.lines().count() == 1)
    })
    .await;
    // Nothing is written anew where nothing has changed.
    mesh.client.configure(&settings).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(state(&mut mesh).await.error, None);
    assert_eq!(mesh.client.status().await.unwrap().access_log_dropped, 1);
    mesh.stop().await;
}
