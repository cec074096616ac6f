//! The control socket: who may say what, and what happens to those who babble.

use std::{io::ErrorKind, os::unix::fs::PermissionsExt};

use swarmlet_lb::{
    Config, Error,
    control::{Client, ClientError, Refusal},
    run::SocketError,
    table::Table,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use crate::support::{Backend, Mesh, fetch, listener, own_port, ready, soon};

fn frame(json: &str) -> Vec<u8> {
    let mut bytes = u32::try_from(json.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(json.as_bytes());
    bytes
}

/// Sends bytes and returns all that comes back until the balancer hangs up.
async fn babble(mesh: &Mesh, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(&mesh.config.control).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    match soon("the balancer hangs up", stream.read_to_end(&mut answer)).await {
        Ok(_) => {}
        // It hung up with bytes of ours unread.
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_answered_with_a_fault_and_hurts_nobody() {
    let mut mesh = Mesh::start().await;
    let port = own_port();
    let backend = Backend::named("a").await;
    mesh.set(&[listener(port, vec![ready("a", backend.address)])])
        .await;
    let call = |json| [frame(r#"{"protocol":1}"#), frame(json)].concat();
    let cases: [(Vec<u8>, &str); 6] = [
        (vec![0xff; 64], "a frame is longer than 16777216 bytes"),
        (frame("GET / HTTP/1.1"), "not valid JSON"),
        (
            frame(r#"{"protocol":2}"#),
            "protocol 2 is not spoken here, only 1",
        ),
        (
            call(r#"{"id":1,"request":"explode"}"#),
            "unknown variant `explode`",
        ),
        (call(r#"{"id":1}"#), "missing field `request`"),
        (call("\u{fffd}"), "not valid JSON"),
    ];
    for (bytes, expected) in cases {
        let answer = babble(&mesh, &bytes).await;
        assert!(
            answer.contains("fault") && answer.contains(expected),
            "{answer}"
        );
        assert_eq!(fetch(port).await.unwrap(), "a");
        assert_eq!(mesh.client.status().await.unwrap().table_version, 1);
    }
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_or_invalid_table_is_refused_and_changes_nothing() {
    let mut mesh = Mesh::start().await;
    let port = own_port();
    let backend = Backend::named("a").await;
    let good = listener(port, vec![ready("a", backend.address)]);
    let table = |version, listeners: &[_]| Table {
        version,
        listeners: listeners.to_vec(),
        hosts: Vec::new(),
    };
    mesh.client
        .set_table(&table(7, std::slice::from_ref(&good)))
        .await
        .unwrap();

    let error = mesh.client.set_table(&table(6, &[])).await.unwrap_err();
    let expected = Refusal::OldTable {
        offered: 6,
        current: 7,
    };
    assert!(matches!(error, ClientError::Refused(refusal) if refusal == expected));
    let twice = [good.clone(), good.clone()];
    let error = mesh.client.set_table(&table(8, &twice)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "table 8 is not valid: port {port} is listed twice, for service ng and for service ng"
        )
    );
    assert_eq!(mesh.client.status().await.unwrap().table_version, 7);
    assert_eq!(fetch(port).await.unwrap(), "a");

    // The same version again, as a restarted daemon sends it.
    assert_eq!(
        mesh.client
            .set_table(&table(7, &[good]))
            .await
            .unwrap()
            .version,
        7
    );
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forwarding_goes_on_without_a_daemon_and_a_new_one_takes_over() {
    let mut mesh = Mesh::start().await;
    let port = own_port();
    let backend = Backend::named("a").await;
    mesh.set(&[listener(port, vec![ready("a", backend.address)])])
        .await;
    let before = mesh.client.status().await.unwrap();
    let events = mesh.events().await;
    let path = mesh.config.control.clone();
    let old = std::mem::replace(&mut mesh.client, Client::connect(&path).await.unwrap());
    drop((old, events));
    for _ in 0..5 {
        assert_eq!(fetch(port).await.unwrap(), "a");
    }
    let after = mesh.client.status().await.unwrap();
    assert_eq!(after.table_version, 1);
    assert_eq!(after.pid, std::process::id());
    assert_eq!(after.started_at_ms, before.started_at_ms);
    assert_eq!(after.listeners[0].accepted, 5);
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_given_up_does_not_confuse_the_next() {
    let mut mesh = Mesh::start().await;
    for _ in 0..20 {
        let table = Table::default();
        tokio::select! {
            biased;
            _ = mesh.client.set_table(&table) => {}
            () = tokio::task::yield_now() => {}
        }
        assert_eq!(mesh.client.status().await.unwrap().listeners, []);
    }
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_is_private_replaces_a_dead_one_and_goes_with_the_balancer() {
    let mesh = Mesh::start().await;
    let path = mesh.config.control.clone();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let second = swarmlet_lb::run(mesh.config.clone()).await.unwrap_err();
    assert!(
        matches!(second, Error::Control(SocketError::InUse(_))),
        "{second}"
    );
    mesh.stop().await;
    assert!(!path.exists());

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lb.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "left by a dead balancer");
    let mesh = Mesh::start_with(|config| config.control = path).await;
    mesh.stop().await;

    let path = directory.path().join("file");
    std::fs::write(&path, "precious").unwrap();
    let refused = swarmlet_lb::run(Config::new(&path)).await.unwrap_err();
    assert!(
        matches!(refused, Error::Control(SocketError::NotASocket(_))),
        "{refused}"
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}
