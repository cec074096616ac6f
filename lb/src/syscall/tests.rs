//! A whole balancer on a kernel in trouble: what goes through it is still equal
//! to the last byte or ends in a reset, and once the trouble is over nothing of
//! it is left.
//!
//! What is random follows from a seed that is printed; `FAULTS_SEED` in the
//! environment takes it back.

use std::{
    net::SocketAddr,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::io::Errno;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use super::faulty::{Call, Fault, Faults, Rule};
use crate::{random::random, run::Config, table::Endpoint};
use support::{
    Backend, Mesh, assert_reset, fetch, keyed, listener, own_ip, own_port, ready, soon, until,
};

#[path = "../../tests/support/mod.rs"]
mod support;

/// Set for a process that runs one test alone.
const ALONE: &str = "FAULTS_ALONE";

fn seed() -> u64 {
    let seed = std::env::var("FAULTS_SEED").map_or_else(|_| random(), |seed| seed.parse().unwrap());
    println!("FAULTS_SEED={seed}");
    seed
}

/// A balancer that lives with the faults; the test itself does not. For tests
/// with one thread: it is the one that starts the balancer.
async fn start(faults: &Arc<Faults>, adjust: impl FnOnce(&mut Config)) -> Mesh {
    faults.enter();
    Mesh::start_with(adjust).await
}

fn fails(call: Call, errno: Errno, per_mille: u64) -> Rule {
    (call, Fault::Fails(errno), per_mille)
}

/// What costs nobody anything but time.
fn harmless() -> Vec<Rule> {
    let mut rules = vec![
        (Call::Receive, Fault::IsShort, 150),
        (Call::Send, Fault::IsShort, 150),
        (Call::Connect, Fault::IsInterrupted, 300),
    ];
    let interrupted = [Call::Accept, Call::Receive, Call::Send, Call::Wait];
    rules.extend(interrupted.map(|call| fails(call, Errno::INTR, 100)));
    let blocked = [Call::Accept, Call::Receive, Call::Send];
    rules.extend(blocked.map(|call| fails(call, Errno::AGAIN, 100)));
    let accepting = [
        Errno::CONNABORTED,
        Errno::PROTO,
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOBUFS,
        Errno::NOMEM,
    ];
    rules.extend(accepting.map(|errno| fails(Call::Accept, errno, 80)));
    rules
}

/// What may cost a connection, but nobody else's.
fn costly() -> Vec<Rule> {
    let mut rules = vec![
        fails(Call::ShutDown, Errno::NOTCONN, 150),
        fails(Call::Register, Errno::NOMEM, 50),
        fails(Call::Register, Errno::NOSPC, 50),
    ];
    for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
        rules.push(fails(Call::Accept, errno, 50));
        rules.push(fails(Call::Socket, errno, 60));
    }
    for errno in [
        Errno::ADDRNOTAVAIL,
        Errno::AGAIN,
        Errno::TIMEDOUT,
        Errno::CONNREFUSED,
        Errno::NETUNREACH,
    ] {
        rules.push(fails(Call::Connect, errno, 60));
    }
    for errno in [
        Errno::CONNRESET,
        Errno::TIMEDOUT,
        Errno::NOBUFS,
        Errno::NOMEM,
    ] {
        rules.push(fails(Call::Receive, errno, 8));
        rules.push(fails(Call::Send, errno, 8));
    }
    rules.extend(harmless());
    rules
}

/// Rounds of load after which every fault must have been met; a few are enough,
/// but for bad luck.
const MAX_ROUNDS: u64 = 60;

/// A fault that no call has met so far.
fn unmet(faults: &Faults, rules: &[Rule]) -> Option<Rule> {
    let mut rules = rules.iter().copied();
    rules.find(|(call, fault, _)| faults.met(*call, *fault) == 0)
}

/// Sends the key's stream, gets that of the key after it, and both ends.
async fn talk(stream: TcpStream, key: u64, len: usize) -> std::io::Result<()> {
    let (mut read, mut write) = stream.into_split();
    tokio::try_join!(
        keyed::send(&mut write, key, len),
        keyed::receive(&mut read, key + 1, len),
    )?;
    Ok(())
}

/// Answers the stream of one key with that of the next, at the same time.
struct Answering {
    backend: Backend,
    /// It got other bytes than those of the key, or an end that was none.
    is_deceived: Arc<AtomicBool>,
}

impl Answering {
    async fn start(len: usize) -> Self {
        let is_deceived = Arc::<AtomicBool>::default();
        let deceived = Arc::clone(&is_deceived);
        let backend = Backend::start(move |stream| {
            let deceived = Arc::clone(&deceived);
            async move {
                // Broken off is for the client to see.
                if tokio::spawn(answer(stream, len)).await.is_err() {
                    deceived.store(true, Ordering::SeqCst);
                }
            }
        });
        Self {
            backend: backend.await,
            is_deceived,
        }
    }

    fn endpoint(&self, id: &str) -> Endpoint {
        ready(id, self.backend.address)
    }

    fn assert_not_deceived(&self) {
        assert!(!self.is_deceived.load(Ordering::SeqCst));
    }
}

async fn answer(mut stream: TcpStream, len: usize) -> std::io::Result<()> {
    // The client tells which it is.
    let key = stream.read_u64().await?;
    let (mut read, mut write) = stream.split();
    tokio::try_join!(
        keyed::receive(&mut read, key, len),
        keyed::send(&mut write, key + 1, len),
    )?;
    Ok(())
}

async fn whole_talk(port: u16, key: u64, len: usize) -> std::io::Result<()> {
    let address = SocketAddr::new(own_ip(), port);
    let mut stream = soon("connected", TcpStream::connect(address)).await?;
    stream.write_u64(key).await?;
    talk(stream, key, len).await
}

#[tokio::test]
async fn interruptions_short_moves_and_blocked_sockets_cost_no_byte() {
    const LEN: usize = 700_001;
    let rules = harmless();
    let faults = Arc::new(Faults::new(seed(), rules.clone()));
    let mut mesh = start(&faults, |config| config.threads = Some(2)).await;
    let port = own_port();
    let (one, two) = (Answering::start(LEN).await, Answering::start(LEN).await);
    mesh.set(&[listener(
        port,
        vec![one.endpoint("one"), two.endpoint("two")],
    )])
    .await;
    let mut round = 0;
    while round < 3 || unmet(&faults, &rules).is_some() {
        assert!(round < MAX_ROUNDS, "{:?}", unmet(&faults, &rules));
        let mut talks = JoinSet::new();
        for number in 0..16 {
            talks.spawn(whole_talk(port, 1 + round * 1_000 + number * 10, LEN));
        }
        while let Some(talk) = talks.join_next().await {
            talk.unwrap().unwrap();
        }
        round += 1;
    }
    let status = mesh.listener(port).await;
    assert_eq!((status.accepted, status.unserved), (16 * round, 0));
    assert_eq!(status.traffic.connect_failures, 0);
    one.assert_not_deceived();
    two.assert_not_deceived();
    mesh.stop().await;
}

#[tokio::test]
async fn bulk_goes_through_pipes_and_loses_no_byte_there() {
    const LEN: usize = 8_000_009;
    let into = [
        Fault::IsShort,
        Fault::Fails(Errno::AGAIN),
        Fault::Fails(Errno::INTR),
    ];
    let mut rules = Vec::new();
    for fault in into {
        rules.push((Call::ReceiveIntoPipe, fault, 40));
        rules.push((Call::SendFromPipe, fault, 100));
    }
    let piped = [Call::ReceiveIntoPipe, Call::SendFromPipe];
    let faults = Arc::new(Faults::new(seed(), rules.clone()).writing_down(&piped));
    let mut mesh = start(&faults, |config| config.threads = Some(2)).await;
    let port = own_port();
    let bulk = Answering::start(LEN).await;
    mesh.set(&[listener(port, vec![bulk.endpoint("bulk")])])
        .await;
    let mut round = 0;
    while round < 2 || unmet(&faults, &rules).is_some() {
        assert!(round < MAX_ROUNDS, "{:?}", unmet(&faults, &rules));
        let mut talks = JoinSet::new();
        for number in 0..2 {
            talks.spawn(whole_talk(port, 1 + round * 1_000 + number * 10, LEN));
        }
        while let Some(talk) = talks.join_next().await {
            talk.unwrap().unwrap();
        }
        round += 1;
    }
    bulk.assert_not_deceived();
    until("nothing is held", async || {
        mesh.client.status().await.unwrap().buffered == 0
    })
    .await;
    mesh.stop().await;
}

/// The kernel tells a reset once, and who receives into a pipe may be the one who hears of it.
#[tokio::test]
async fn a_reset_that_a_pipe_meets_is_passed_on() {
    let reset = fails(Call::ReceiveIntoPipe, Errno::CONNRESET, 1_000);
    let faults = Arc::new(Faults::new(seed(), vec![reset]));
    let mut mesh = start(&faults, |config| config.threads = Some(1)).await;
    let port = own_port();
    let endless = Backend::endless().await;
    mesh.set(&[listener(port, vec![ready("a", endless.address)])])
        .await;
    let mut client = TcpStream::connect((own_ip(), port)).await.unwrap();
    assert_reset(&mut client).await;
    assert_eq!(faults.met(reset.0, reset.1), 1);
    mesh.stop().await;
}

/// Runs itself again in a process of its own, so that the descriptors are its
/// own, too.
#[tokio::test]
async fn a_kernel_that_runs_out_of_everything_costs_connections_and_nothing_else() {
    if std::env::var_os(ALONE).is_some() {
        return out_of_everything().await;
    }
    let name =
        "syscall::tests::a_kernel_that_runs_out_of_everything_costs_connections_and_nothing_else";
    let alone = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(ALONE, "yes")
        .env("FAULTS_SEED", seed().to_string())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&alone.stdout);
    let errors = String::from_utf8_lossy(&alone.stderr);
    assert!(alone.status.success(), "{text}{errors}");
    assert!(text.contains("1 passed"), "{text}");
    for line in text.lines().filter(|line| line.starts_with("of ")) {
        println!("{line}");
    }
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

async fn out_of_everything() {
    const LEN: usize = 60_013;
    let rules = costly();
    let faults = Arc::new(Faults::new(seed(), rules.clone()));
    let mut mesh = start(&faults, |config| config.threads = Some(2)).await;
    let port = own_port();
    let (one, two) = (Answering::start(LEN).await, Answering::start(LEN).await);
    let table = [listener(
        port,
        vec![one.endpoint("one"), two.endpoint("two")],
    )];
    mesh.set(&table).await;
    let baseline = open_files();
    let (mut whole, mut broken, mut round) = (0, 0, 0);
    while round < 5 || unmet(&faults, &rules).is_some() {
        assert!(round < MAX_ROUNDS, "{:?}", unmet(&faults, &rules));
        let mut talks = JoinSet::new();
        for number in 0..30 {
            talks.spawn(whole_talk(port, 1 + round * 1_000 + number * 10, LEN));
        }
        while let Some(talk) = talks.join_next().await {
            match talk.unwrap() {
                Ok(()) => whole += 1,
                Err(_) => broken += 1,
            }
        }
        round += 1;
    }
    println!("of {} connections {broken} were broken off", round * 30);
    assert!(whole > 0 && broken > 0, "{whole} and {broken}");

    faults.end();
    until("nothing of it is left", async || {
        let status = mesh.client.status().await.unwrap();
        let active = status.listeners[0].traffic.active;
        active == 0 && status.buffered == 0 && open_files() == baseline
    })
    .await;
    until("both endpoints are in use again", async || {
        let conditions = [
            mesh.condition(port, "one").await,
            mesh.condition(port, "two").await,
        ];
        conditions == [crate::status::EndpointCondition::Ready; 2]
    })
    .await;
    let before = mesh.listener(port).await;
    for number in 0..40 {
        whole_talk(port, 500_000 + number * 10, LEN).await.unwrap();
    }
    let after = mesh.listener(port).await;
    assert_eq!(after.accepted - before.accepted, 40);
    assert_eq!(after.unserved, before.unserved);
    one.assert_not_deceived();
    two.assert_not_deceived();
    mesh.stop().await;
}

/// The accept loop's rules, by what it does next.
#[tokio::test]
async fn out_of_descriptors_accepting_pauses_and_otherwise_it_does_not() {
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    let passing = [Errno::INTR, Errno::CONNABORTED, Errno::PROTO];
    for errno in exhausted.into_iter().chain(passing) {
        let faults = Faults::new(seed(), vec![fails(Call::Accept, errno, 1_000)]);
        let faults = Arc::new(faults.writing_down(&[Call::Accept, Call::Wait]));
        let mut mesh = start(&faults, |config| config.threads = Some(1)).await;
        let port = own_port();
        let named = Backend::named("a").await;
        mesh.set(&[listener(port, vec![ready("a", named.address)])])
            .await;
        let client = tokio::spawn(fetch(port));
        until("it has failed several times", async || {
            faults.met(Call::Accept, Fault::Fails(errno)) >= 4
        })
        .await;
        faults.end();
        assert_eq!(client.await.unwrap().unwrap(), "a");

        let journal = faults.journal();
        let failed = journal.iter().filter(|(_, fault, _)| fault.is_some());
        for ((_, _, at), (_, _, next_at)) in failed.clone().zip(failed.skip(1)) {
            let between = journal
                .iter()
                .filter(|(call, _, moment)| *call == Call::Wait && (at..next_at).contains(&moment));
            if exhausted.contains(&errno) {
                // By a clock that counts in milliseconds.
                let pause = *next_at - *at;
                assert!(pause >= Duration::from_millis(98), "{errno:?}: {pause:?}");
            } else {
                // That returns at once, for the client is still there.
                assert!(between.count() <= 1, "{errno:?}");
            }
        }
        mesh.stop().await;
    }
}

/// Nothing ever wakes an engine for a socket that it could not register, so it
/// must come back to it by itself.
#[tokio::test]
async fn what_cannot_be_registered_is_tried_again() {
    let registering = fails(Call::Register, Errno::NOSPC, 1_000);
    let faults = Arc::new(Faults::new(seed(), vec![registering]));
    let met = || faults.met(Call::Register, Fault::Fails(Errno::NOSPC));
    let mut mesh = start(&faults, |config| config.threads = Some(1)).await;
    until("the engine itself could not start", async || met() > 1).await;
    faults.end();
    mesh.set(&[]).await;
    let so_far = met();
    faults.begin();
    let port = own_port();
    let named = Backend::named("a").await;
    mesh.set(&[listener(port, vec![ready("a", named.address)])])
        .await;
    until("it is tried again", async || met() > so_far + 1).await;
    faults.end();
    assert_eq!(fetch(port).await.unwrap(), "a");
    mesh.stop().await;
}

/// Out of descriptors for a second under load: nobody is turned away, and
/// accepting is back within a second.
#[tokio::test]
async fn accepting_is_back_within_a_second() {
    let faults = Arc::new(Faults::new(
        seed(),
        vec![fails(Call::Accept, Errno::MFILE, 1_000)],
    ));
    let mut mesh = start(&faults, |config| config.threads = Some(2)).await;
    let port = own_port();
    let named = Backend::named("a").await;
    mesh.set(&[listener(port, vec![ready("a", named.address)])])
        .await;
    let mut clients = JoinSet::new();
    for _ in 0..50 {
        clients.spawn(async move { fetch(port).await.unwrap() });
    }
    let ill = Instant::now();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let tries = faults.met(Call::Accept, Fault::Fails(Errno::MFILE));
    // Two threads, ten times a second each, and no more than that.
    let most = 2 * (ill.elapsed().as_millis() / 100 + 2);
    assert!((1..=most).contains(&u128::from(tries)), "{tries}");
    assert_eq!(mesh.listener(port).await.accepted, 0);
    faults.end();
    let well_again = Instant::now();
    while let Some(name) = clients.join_next().await {
        assert_eq!(name.unwrap(), "a");
    }
    let took = well_again.elapsed();
    println!("all fifty are served {took:?} after the fault's end");
    assert!(took < Duration::from_secs(1), "{took:?}");
    mesh.stop().await;
}
