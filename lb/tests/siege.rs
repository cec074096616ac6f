//! Attackers that hold on to what they get, and good clients beside them.
//!
//! There are two balancers, each in a process of its own: one is besieged, the
//! other is not, and good clients ask them in turn. What the machine does
//! meanwhile hits both alike, so that their ratio is the siege's.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use swarmlet_lb::{SourceLimits, control::Client, table::Table};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};

use crate::support::{
    Backend, PATIENCE, listener,
    outside::{Outside, require_files, serve_if_asked},
    own_ip, own_port, ready, soon, until,
};

mod support;

/// Of the slow ones, and how many addresses they come from.
const ATTACKERS: u64 = 5_000;
const SOURCES: u64 = 5;
/// Each sends a byte in this time.
const BYTE_EVERY: Duration = Duration::from_secs(10);
/// Bytes that the balancer may hold for those who do not read.
const BUDGET: u64 = 24 << 20;
/// What else a balancer may come to need beside them: the connections
/// themselves, the threads' own buffers, and what the allocator keeps.
const OVERHEAD: u64 = 16 << 20;

/// The balancers' process; nothing to do when it is run as a test.
#[tokio::test]
async fn balancer() {
    serve_if_asked(|config| {
        config.threads = Some(2);
        config.max_buffered = usize::try_from(BUDGET).unwrap();
        config.per_source = SourceLimits {
            connections: Some(u32::try_from(PER_SOURCE).unwrap()),
            rate: None,
        };
    })
    .await;
}

/// Connections that each source may have, so that all are used by the attack.
const PER_SOURCE: u64 = ATTACKERS / SOURCES;
/// Both ends of all attackers are this process's, and all that the good clients need.
const FILES: u64 = 2 * ATTACKERS + 3_000;

/// A balancer in a process of its own, with a port for good clients.
struct Fortress {
    outside: Outside,
    client: Client,
    good: SocketAddr,
}

impl Fortress {
    async fn build(directory: &std::path::Path, name: &str, table: Table, good: u16) -> Self {
        let control = directory.join(format!("{name}.sock"));
        let (outside, mut client) = Outside::start("balancer", &control).await;
        assert_eq!(client.set_table(&table).await.unwrap().port_errors, []);
        Self {
            outside,
            client,
            good: (own_ip(), good).into(),
        }
    }
}

async fn connect_from(source: Ipv4Addr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((source, 0).into())?;
    soon("connected", socket.connect(to)).await
}

/// An address of the loopback that no other test uses at this time.
fn attacker(number: u64) -> Ipv4Addr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let source = u8::try_from(number % SOURCES).unwrap();
    Ipv4Addr::new(127, 128 | (high & 15) << 3 | source, middle, low)
}

/// How long a good client's request takes, each on a connection of its own.
async fn request(to: SocketAddr) -> Duration {
    let started = Instant::now();
    let mut stream = soon("connected", TcpStream::connect(to)).await.unwrap();
    stream.write_all(b"?").await.unwrap();
    let mut answer = String::new();
    soon("answered", stream.read_to_string(&mut answer))
        .await
        .unwrap();
    assert_eq!(answer, "fine");
    started.elapsed()
}

fn p99(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

/// The p99 at the besieged fortress as a multiple of that at the calm one.
async fn ratio_of_p99(besieged: SocketAddr, calm: SocketAddr) -> f64 {
    let mut clients = JoinSet::new();
    for _ in 0..4 {
        clients.spawn(async move {
            let (mut there, mut here) = (Vec::new(), Vec::new());
            for round in 0..300 {
                // Neither is always the first of the two.
                if round % 2 == 0 {
                    there.push(request(besieged).await);
                    here.push(request(calm).await);
                } else {
                    here.push(request(calm).await);
                    there.push(request(besieged).await);
                }
            }
            (there, here)
        });
    }
    let (mut there, mut here) = (Vec::new(), Vec::new());
    for (one, other) in clients.join_all().await {
        there.extend(one);
        here.extend(other);
    }
    let (there, here) = (p99(&mut there), p99(&mut here));
    let ratio = there.as_secs_f64() / here.as_secs_f64();
    eprintln!("p99 besieged {there:?}, calm {here:?}: {ratio:.2}");
    ratio
}

/// The middle one of several rounds, for any single one may be disturbed.
async fn median_ratio(besieged: &Fortress, calm: &Fortress) -> f64 {
    let mut ratios = Vec::new();
    for _ in 0..5 {
        ratios.push(ratio_of_p99(besieged.good, calm.good).await);
    }
    ratios.sort_by(f64::total_cmp);
    ratios[2]
}

/// All attackers, each with its first byte sent.
async fn attack(port: SocketAddr, count: u64) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    let mut arriving = JoinSet::new();
    for number in 0..count {
        arriving.spawn(async move {
            let mut stream = connect_from(attacker(number), port).await.unwrap();
            stream.write_all(b"G").await.unwrap();
            stream
        });
        if arriving.len() >= 100 {
            streams.push(arriving.join_next().await.unwrap().unwrap());
        }
    }
    streams.extend(arriving.join_all().await);
    streams
}

/// A byte of each in [`BYTE_EVERY`], for as long as it is let.
async fn drip(mut streams: Vec<TcpStream>, mut enough: tokio::sync::oneshot::Receiver<()>) {
    let pause = Duration::from_millis(50);
    let turns = usize::try_from(BYTE_EVERY.as_millis() / pause.as_millis()).unwrap();
    let mut turn = 0;
    while enough.try_recv().is_err() {
        for stream in streams.iter_mut().skip(turn % turns).step_by(turns) {
            stream.write_all(b"E").await.unwrap();
        }
        turn += 1;
        tokio::time::sleep(pause).await;
    }
}

async fn active(client: &mut Client, port: u16) -> u64 {
    let status = client.status().await.unwrap();
    let mut listeners = status.listeners.into_iter();
    let found = listeners.find(|listener| listener.port == port);
    found.unwrap().traffic.active
}

#[tokio::test(flavor = "multi_thread")]
async fn the_slow_the_too_many_and_those_who_do_not_read_do_not_hurt_the_others() {
    require_files(FILES);
    let directory = tempfile::tempdir().unwrap();
    let (good, slow, flood) = (own_port(), own_port(), own_port());
    let quick = Backend::start(|mut stream| async move {
        // A probe says nothing.
        if stream.read_exact(&mut [0]).await.is_ok() {
            stream.write_all(b"fine").await.unwrap();
        }
    })
    .await;
    let patient = Backend::start(|mut stream| async move {
        // The end of it is the test's.
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    })
    .await;
    let endless = Backend::endless().await;
    let table = Table {
        version: 1,
        listeners: vec![
            listener(good, vec![ready("quick", quick.address)]),
            listener(slow, vec![ready("patient", patient.address)]),
            listener(flood, vec![ready("endless", endless.address)]),
        ],
        hosts: Vec::new(),
    };
    let calm_port = own_port();
    let calm_table = Table {
        version: 1,
        listeners: vec![listener(calm_port, vec![ready("quick", quick.address)])],
        hosts: Vec::new(),
    };
    let mut besieged = Fortress::build(directory.path(), "besieged", table, good).await;
    let calm = Fortress::build(directory.path(), "calm", calm_table, calm_port).await;
    eprintln!(
        "before the siege: {:.2}",
        median_ratio(&besieged, &calm).await
    );
    let baseline = besieged.outside.held();

    let slow_address = SocketAddr::new(own_ip(), slow);
    let streams = attack(slow_address, ATTACKERS).await;
    until("all of them are in", async || {
        active(&mut besieged.client, slow).await == ATTACKERS
    })
    .await;
    too_many_are_refused(&mut besieged.client, slow_address).await;
    let (enough, is_enough) = tokio::sync::oneshot::channel();
    let dripping = tokio::spawn(drip(streams, is_enough));
    let ratio = median_ratio(&besieged, &calm).await;
    let held = besieged.outside.held();
    eprintln!("{ATTACKERS} slow attackers: p99 is {ratio:.2} of what it is without");
    eprintln!(
        "each of them takes {} bytes",
        (held.resident - baseline.resident) / ATTACKERS
    );
    assert!(ratio <= 2.0, "{ratio}");
    assert_eq!(active(&mut besieged.client, slow).await, ATTACKERS);

    let greedy = memory_is_bounded(&mut besieged, flood, baseline.resident).await;
    enough.send(()).unwrap();
    dripping.await.unwrap();
    drop(greedy);
    until("everything is back", async || {
        let buffered = besieged.client.status().await.unwrap().buffered;
        let held = besieged.outside.held().descriptors;
        let is_back = buffered == 0 && held <= baseline.descriptors;
        if !is_back {
            eprintln!("{buffered} bytes buffered, {held} descriptors");
        }
        is_back
    })
    .await;
    let last = ratio_of_p99(besieged.good, calm.good).await;
    eprintln!("after the siege: {last:.2}");
    besieged.client.shutdown().await.unwrap();
}

/// Every source has as many connections as it may: each more is reset.
async fn too_many_are_refused(client: &mut Client, slow: SocketAddr) {
    const MORE: u64 = 100;
    for number in 0..MORE {
        // The reset may come as early as the connect.
        if let Ok(mut stream) = connect_from(attacker(number), slow).await {
            let end = soon("the reset", stream.read(&mut [0])).await;
            assert!(end.is_err(), "{end:?}");
        }
    }
    let status = client.status().await.unwrap();
    let listener = status.listeners.iter().find(|one| one.port == slow.port());
    assert_eq!(listener.unwrap().refused, MORE);
}

/// Clients that ask for everything and read nothing: what they hold in the
/// balancer stays within the budget, by the kernel's account of it.
async fn memory_is_bounded(besieged: &mut Fortress, flood: u16, before: u64) -> Vec<TcpStream> {
    let mut greedy = Vec::new();
    for _ in 0..250 {
        greedy.push(TcpStream::connect((own_ip(), flood)).await.unwrap());
    }
    let deadline = Instant::now() + PATIENCE;
    let (mut most, mut quiet_since, mut moved) = (0, Instant::now(), 0);
    // Until nothing has moved for a while.
    while quiet_since.elapsed() < Duration::from_millis(700) {
        assert!(Instant::now() < deadline, "the flood goes on");
        let held = besieged.outside.held();
        most = most.max(held.resident);
        let status = besieged.client.status().await.unwrap();
        let listener = status.listeners.iter().find(|one| one.port == flood);
        let bytes = listener.unwrap().traffic.bytes_to_client;
        if bytes != moved {
            (moved, quiet_since) = (bytes, Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let status = besieged.client.status().await.unwrap();
    eprintln!(
        "those who do not read: {} bytes buffered of {BUDGET}, resident {most} after {before}",
        status.buffered
    );
    assert!(status.buffered <= BUDGET);
    assert!(most <= before + BUDGET + OVERHEAD, "{most} after {before}");
    // The good are served all the same.
    for _ in 0..50 {
        request(besieged.good).await;
    }
    greedy
}
