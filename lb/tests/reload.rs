//! The stand-alone balancer and SIGHUP, which reaches the whole process, hence a
//! binary and a single test of its own.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

use std::{path::Path, time::Duration};

use rustix::process::{Signal, getpid, kill_process};
use swarmlet_lb::{
    control::Client,
    standalone::{self, Start},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{Backend, fetch, own_ip, own_port, soon, until};

mod support;

fn write(path: &Path, port: u16, backend: &Backend, more: &str) {
    let directory = path.parent().unwrap().display();
    let text = format!(
        "ingress = [\"{}\"]\ncontrol = \"{directory}/lb.sock\"\n[[listeners]]\nport = {port}\n\
         [[listeners.endpoints]]\naddress = \"{}\"\n{more}",
        own_ip(),
        backend.address
    );
    std::fs::write(path, text).unwrap();
}

fn hang_up() {
    kill_process(getpid(), Signal::HUP).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_file_comes_into_force_and_a_bad_one_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lb.toml");
    let (port, echo, named) = (own_port(), Backend::echo().await, Backend::named("a").await);
    write(&path, port, &echo, "weight = 0\n");
    let error = standalone::run(&path, Start::Alone)
        .await
        .unwrap_err()
        .to_string();
    let place = format!("{}, line 5: ", path.display());
    assert!(error.starts_with(&place), "{error}");

    write(&path, port, &echo, "");
    let balancer = tokio::spawn(standalone::run(path.clone(), Start::Alone));
    until("it listens", async || {
        TcpStream::connect((own_ip(), port)).await.is_ok()
    })
    .await;
    let mut stream = TcpStream::connect((own_ip(), port)).await.unwrap();
    let mut answer = [0; 6];
    stream.write_all(b"before").await.unwrap();
    soon("the echo", stream.read_exact(&mut answer))
        .await
        .unwrap();

    write(&path, port, &named, "");
    hang_up();
    let mut client = Client::connect(directory.path().join("lb.sock"))
        .await
        .unwrap();
    until("the new file is in force", async || {
        client.status().await.unwrap().table_version == 2
    })
    .await;
    assert_eq!(fetch(port).await.unwrap(), "a");
    stream.write_all(b"behind").await.unwrap();
    soon("the echo", stream.read_exact(&mut answer))
        .await
        .unwrap();
    assert_eq!(&answer, b"behind");

    let text = std::fs::read_to_string(&path).unwrap();
    let log = directory.path().join("access.log");
    let settings = |log: &Path| {
        format!(
            "max_connections_per_source = 9\naccess_log = {{ path = \"{}\" }}\n",
            log.display()
        )
    };
    std::fs::write(&path, settings(&log) + &text).unwrap();
    hang_up();
    until("limits and log are in force", async || {
        let found = client.status().await.unwrap().settings;
        found.per_source.connections == Some(9) && found.access_log.is_some()
    })
    .await;
    assert_eq!(fetch(port).await.unwrap(), "a");
    until("there is a line", async || {
        std::fs::read_to_string(&log).is_ok_and(|text| text.contains("client="))
    })
    .await;
    let before = client.status().await.unwrap();

    let nowhere = settings(Path::new("/proc/nowhere")) + &text;
    let with = |flaw: &str| text.clone() + flaw;
    for flawed in [
        with("weight = 0\n"),
        with("no toml"),
        with("[timeouts]\nidle_ms = 5\n"),
        nowhere,
    ] {
        std::fs::write(&path, flawed).unwrap();
        hang_up();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(fetch(port).await.unwrap(), "a");
    }
    let after = client.status().await.unwrap();
    assert_eq!(
        (after.table_version, after.settings),
        (before.table_version, before.settings)
    );
    write(&path, port, &echo, "");
    hang_up();
    until("a good file is in force again", async || {
        client.status().await.unwrap().table_version > before.table_version
    })
    .await;
    drop(stream);
    client.shutdown().await.unwrap();
    soon("the balancer ends", balancer).await.unwrap().unwrap();
}
