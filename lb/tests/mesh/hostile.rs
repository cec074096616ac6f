//! Peers that do not do their part, and others who must not feel it.

use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use crate::support::{Backend, Mesh, fetch, listener, own_ip, own_port, ready, reset, soon, until};

#[tokio::test(flavor = "multi_thread")]
async fn those_who_never_read_or_write_cost_little_and_hurt_nobody() {
    const PEERS: usize = 40;
    let mut mesh = Mesh::start().await;
    let (flood, mute, good) = (own_port(), own_port(), own_port());
    let (endless, named) = (Backend::endless().await, Backend::named("a").await);
    let (silent, silent_ends) = Backend::handing_over().await;
    mesh.set(&[
        listener(flood, vec![ready("endless", endless.address)]),
        listener(mute, vec![ready("silent", silent.address)]),
        listener(good, vec![ready("a", named.address)]),
    ])
    .await;
    let mut never_reading = Vec::new();
    let mut never_writing = Vec::new();
    for _ in 0..PEERS {
        never_reading.push(TcpStream::connect((own_ip(), flood)).await.unwrap());
        never_writing.push(TcpStream::connect((own_ip(), mute)).await.unwrap());
    }
    until("the flood has come to a halt", async || {
        let before = mesh.listener(flood).await.traffic;
        tokio::time::sleep(Duration::from_millis(400)).await;
        before.active == PEERS as u64 && mesh.listener(flood).await.traffic == before
    })
    .await;
    // What the kernel takes for a socket is bounded, and the balancer takes no
    // more from the endpoint than that and one step's worth.
    let bytes = mesh.listener(flood).await.traffic.bytes_to_client;
    assert!(bytes < (PEERS as u64) * 16_000_000, "{bytes}");
    let started = Instant::now();
    for _ in 0..100 {
        assert_eq!(fetch(good).await.unwrap(), "a");
    }
    assert!(started.elapsed() < Duration::from_secs(5));
    drop((never_reading, never_writing, silent_ends));
    until("all are gone", async || {
        mesh.listener(flood).await.traffic.active + mesh.listener(mute).await.traffic.active == 0
    })
    .await;
    mesh.stop().await;
}

/// Clients that reset at every stage, and an endpoint that does, beside clients
/// that do neither.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_storm_of_resets_costs_the_others_nothing() {
    let mut mesh = Mesh::start().await;
    let (stormy, good) = (own_port(), own_port());
    let (echo, named) = (Backend::echo().await, Backend::named("a").await);
    let resetting = Backend::start(|mut stream| async move {
        // Whether the client is still there makes no difference.
        let _ = stream.write_all(b"some").await;
        reset(stream);
    })
    .await;
    mesh.set(&[
        listener(
            stormy,
            vec![
                ready("echo", echo.address),
                ready("resetting", resetting.address),
            ],
        ),
        listener(good, vec![ready("a", named.address)]),
    ])
    .await;
    let mut storm = JoinSet::new();
    for number in 0..12_u64 {
        storm.spawn(async move {
            for round in 0..150 {
                // The endpoint's reset may be as quick as this.
                let Ok(mut stream) = TcpStream::connect((own_ip(), stormy)).await else {
                    continue;
                };
                match (number + round) % 4 {
                    0 => {}
                    1 => drop(stream.write_all(&[7; 100_000]).await),
                    2 => drop(stream.shutdown().await),
                    _ => {
                        drop(stream.write_all(b"x").await);
                        drop(stream.read(&mut [0]).await);
                    }
                }
                reset(stream);
            }
        });
    }
    let mut calm = JoinSet::new();
    for _ in 0..4 {
        calm.spawn(async move {
            for _ in 0..150 {
                assert_eq!(fetch(good).await.unwrap(), "a");
            }
        });
    }
    calm.join_all().await;
    storm.join_all().await;
    until("no connection is left", async || {
        mesh.listener(stormy).await.traffic.active == 0
    })
    .await;
    let status = mesh.listener(good).await;
    assert_eq!((status.accepted, status.unserved), (600, 0));
    mesh.stop().await;
}

/// Longer than any timeout that takes a closed window for a dead peer. The
/// endpoint has ended, so that the half-closed timeout runs, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_pauses_for_long_gets_all_in_the_end() {
    const LEN: usize = 30_000_000;
    let mut mesh = Mesh::start_with(|config| {
        config.timeouts.half_closed = Duration::from_secs(3);
    })
    .await;
    let (large, small) = (own_port(), own_port());
    // More than the kernel takes at a time, and less.
    let lengths = [LEN, 200_000];
    let mut backends = Vec::new();
    for len in lengths {
        let backend = Backend::start(move |mut stream| async move {
            stream.write_all(&vec![7; len]).await.unwrap();
            stream.shutdown().await.unwrap();
            let _ = stream.read(&mut [0]).await;
        });
        backends.push(backend.await);
    }
    mesh.set(&[
        listener(large, vec![ready("large", backends[0].address)]),
        listener(small, vec![ready("small", backends[1].address)]),
    ])
    .await;
    let mut readers = JoinSet::new();
    for (port, len) in [large, small].into_iter().zip(lengths) {
        readers.spawn(async move {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(8_192).unwrap();
            let mut stream = socket.connect((own_ip(), port).into()).await.unwrap();
            tokio::time::sleep(Duration::from_secs(40)).await;
            let mut bytes = Vec::new();
            let read =
                tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut bytes));
            assert_eq!(read.await.unwrap().unwrap(), len);
            assert!(bytes.iter().all(|byte| *byte == 7));
        });
    }
    readers.join_all().await;
    mesh.stop().await;
}

/// What was sent and is not read is lost to a reset; what the endpoint said
/// before its reset and the client has not read yet is not held back.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_before_a_reset_still_arrives() {
    let mut mesh = Mesh::start().await;
    let port = own_port();
    let backend = Backend::start(|mut stream| async move {
        // It answers without reading to the end, which makes closing a reset.
        soon("a byte", stream.read_exact(&mut [0])).await.unwrap();
        stream.write_all(b"413 too much").await.unwrap();
    })
    .await;
    mesh.set(&[listener(port, vec![ready("a", backend.address)])])
        .await;
    for _ in 0..20 {
        let mut stream = TcpStream::connect((own_ip(), port)).await.unwrap();
        stream.write_all(&[7; 1_000]).await.unwrap();
        let mut answer = Vec::new();
        let end = soon("the end", stream.read_to_end(&mut answer)).await;
        assert_eq!(answer, b"413 too much");
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    mesh.stop().await;
}
