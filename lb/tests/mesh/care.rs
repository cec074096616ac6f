//! What all connections together, and those of one source, may take; and the
//! log of what became of each.

use std::{collections::BTreeSet, io::ErrorKind, path::Path, time::Duration};

use swarmlet_lb::{
    SourceLimits,
    access::{AccessLog, Format},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    Backend, Mesh, Refusing, assert_reset, fetch, listener, own_ip, own_port, ready, soon, until,
};

#[tokio::test(flavor = "multi_thread")]
async fn who_holds_the_most_goes_first_when_memory_is_short() {
    const BUDGET: u64 = 256 * 1024;
    let mut mesh = Mesh::start_with(|config| {
        config.max_buffered = usize::try_from(BUDGET).unwrap();
        config.threads = Some(2);
    })
    .await;
    let (flood, good) = (own_port(), own_port());
    let (endless, named) = (Backend::endless().await, Backend::named("a").await);
    let (idle, mut idle_ends) = Backend::handing_over().await;
    let idle_port = own_port();
    mesh.set(&[
        listener(flood, vec![ready("endless", endless.address)]),
        listener(good, vec![ready("a", named.address)]),
        listener(idle_port, vec![ready("idle", idle.address)]),
    ])
    .await;
    let mut quiet = TcpStream::connect((own_ip(), idle_port)).await.unwrap();
    let mut quiet_end = soon("it arrives", idle_ends.recv()).await.unwrap();
    let (mut never_reading, mut reset_at_once) = (Vec::new(), 0);
    for _ in 0..60 {
        match TcpStream::connect((own_ip(), flood)).await {
            Ok(stream) => never_reading.push(stream),
            // The reset may come as early as the connect.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => reset_at_once += 1,
            Err(error) => panic!("{error}"),
        }
    }
    until("some are shed", async || {
        mesh.listener(flood).await.shed > 0
    })
    .await;
    until("the flood has come to a halt", async || {
        let before = mesh.listener(flood).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        before == mesh.listener(flood).await
    })
    .await;
    let status = mesh.client.status().await.unwrap();
    assert!(status.buffered <= BUDGET, "{}", status.buffered);
    let flooded = mesh.listener(flood).await;
    assert!(flooded.traffic.active > 0, "no more than had to be");
    assert_eq!(flooded.traffic.active + flooded.shed, 60);
    // Those who hold nothing do not feel it.
    for _ in 0..20 {
        assert_eq!(fetch(good).await.unwrap(), "a");
    }
    quiet.write_all(b"still there").await.unwrap();
    soon("the bytes", quiet_end.read_exact(&mut [0; 11]))
        .await
        .unwrap();
    // Who was shed sees a reset, not an end.
    let resets = never_reading.iter().filter(|stream| {
        let error = stream.take_error().unwrap();
        error.is_some_and(|error| error.kind() == ErrorKind::ConnectionReset)
    });
    assert_eq!(resets.count() as u64 + reset_at_once, flooded.shed);
    drop((never_reading, quiet, quiet_end));
    until("all memory is back", async || {
        mesh.client.status().await.unwrap().buffered == 0
    })
    .await;
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_source_has_so_many_connections_and_no_more() {
    let mut mesh = Mesh::start_with(|config| {
        config.per_source = SourceLimits {
            connections: Some(3),
            rate: None,
        };
    })
    .await;
    let port = own_port();
    let (backend, mut ends) = Backend::handing_over().await;
    mesh.set(&[listener(port, vec![ready("a", backend.address)])])
        .await;
    let connect = || TcpStream::connect((own_ip(), port));
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(connect().await.unwrap());
        clients.push(soon("it arrives", ends.recv()).await.unwrap());
    }
    for _ in 0..5 {
        // The reset may come as early as the connect.
        if let Ok(mut one_too_many) = connect().await {
            assert_reset(&mut one_too_many).await;
        }
    }
    until("they are counted", async || {
        mesh.listener(port).await.refused == 5
    })
    .await;
    // Another source does not feel it.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(([127, 9, 9, 9], 0).into()).unwrap();
    let other = socket.connect((own_ip(), port).into()).await.unwrap();
    let other_end = soon("it arrives", ends.recv()).await.unwrap();
    // One that ends makes room for another.
    drop(clients.drain(..2));
    until("it has ended", async || {
        mesh.listener(port).await.traffic.active == 3
    })
    .await;
    let again = connect().await.unwrap();
    let again_end = soon("it arrives", ends.recv()).await.unwrap();
    drop((clients, other, other_end, again, again_end));
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_told_is_the_one_that_is_limited() {
    let mut mesh = Mesh::start_with(|config| {
        config.per_source = SourceLimits {
            connections: None,
            rate: Some(5),
        };
    })
    .await;
    let port = own_port();
    let named = Backend::named("a").await;
    let listener = swarmlet_lb::table::Listener {
        accept_proxy: vec!["127.0.0.0/8".parse().unwrap()],
        ..listener(port, vec![ready("a", named.address)])
    };
    mesh.set(&[listener]).await;
    let ask = async |source: &str| {
        let mut stream = TcpStream::connect((own_ip(), port)).await.unwrap();
        let line = format!("PROXY TCP4 {source} 198.51.100.1 4711 443\r\n");
        stream.write_all(line.as_bytes()).await.unwrap();
        let mut name = String::new();
        let end = soon("the end", stream.read_to_string(&mut name)).await;
        end.map(|_| name)
    };
    let started = tokio::time::Instant::now();
    let mut refused = 0;
    for _ in 0..30 {
        refused += u32::from(ask("203.0.113.1").await.is_err());
    }
    // A burst of five, five a second, and the time that all of it took.
    let earned = 5 + u32::try_from(started.elapsed().as_millis() / 200).unwrap() + 1;
    assert!(refused >= 30 - earned.min(30), "{refused} of 30, {earned}");
    assert_eq!(mesh.listener(port).await.refused, u64::from(refused));
    // The proxy's other clients do not feel it.
    for number in 2..40 {
        assert_eq!(ask(&format!("203.0.113.{number}")).await.unwrap(), "a");
    }
    mesh.stop().await;
}

fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_connection_is_a_line_of_the_access_log() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let mut mesh = Mesh::start_with(|config| {
        config.access_log = Some(AccessLog {
            path: path.clone(),
            format: Format::Json,
        });
    })
    .await;
    let (served, unserved, cut) = (own_port(), own_port(), own_port());
    let (named, refusing) = (Backend::named("hello").await, Refusing::new());
    let (backend, mut ends) = Backend::handing_over().await;
    mesh.set(&[
        listener(served, vec![ready("one", named.address)]),
        listener(unserved, vec![ready("none", refusing.address)]),
        listener(cut, vec![ready("two", backend.address)]),
    ])
    .await;
    assert_eq!(fetch(served).await.unwrap(), "hello");
    fetch(unserved).await.unwrap_err();
    let mut client = TcpStream::connect((own_ip(), cut)).await.unwrap();
    client.write_all(b"abc").await.unwrap();
    let mut end = soon("it arrives", ends.recv()).await.unwrap();
    soon("the bytes", end.read_exact(&mut [0; 3]))
        .await
        .unwrap();
    crate::support::reset(end);
    assert_reset(&mut client).await;
    until("three lines are written", async || lines(&path).len() == 3).await;
    let records: Vec<serde_json::Value> = lines(&path)
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of = |port: u16| records.iter().find(|one| one["port"] == port).unwrap();
    let one = of(served);
    assert_eq!(
        (&one["end"], &one["endpoint"]),
        (&"closed".into(), &"one".into())
    );
    assert_eq!(
        (&one["bytes_to_client"], &one["bytes_to_endpoint"]),
        (&5.into(), &0.into())
    );
    assert_eq!(
        (&one["service"], &one["address"]),
        (&"ng".into(), &named.address.to_string().into())
    );
    assert!(one["client"].as_str().unwrap().starts_with("127.0.0.1:"));
    let none = of(unserved);
    assert_eq!(
        (&none["end"], &none["endpoint"]),
        (&"unserved".into(), &serde_json::Value::Null)
    );
    let two = of(cut);
    assert_eq!(
        (&two["end"], &two["bytes_to_endpoint"]),
        (&"reset".into(), &3.into())
    );

    // Rotated: the next goes into a new file.
    let old = directory.path().join("access.log.1");
    std::fs::rename(&path, &old).unwrap();
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    until("a new file has the next", async || {
        assert_eq!(fetch(served).await.unwrap(), "hello");
        !lines(&path).is_empty()
    })
    .await;
    let names: BTreeSet<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(names.contains(old.file_name().unwrap()));
    assert_eq!(mesh.client.status().await.unwrap().access_log_dropped, 0);
    mesh.stop().await;
}
