//! A stand-alone balancer that is flooded with SYN, and whose peers vanish without
//! a word. On a loopback of its own; a peer that has vanished is an address whose
//! packets are dropped in both directions.

use std::{
    fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use swarmlet_integration_tests::{
    Loopback, Namespace,
    measured::{at_most, noted, within},
    swarmlet_binary, wait_until,
};

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Its SYN arrive, and nothing arrives at it.
const FLOODER: Ipv4Addr = Ipv4Addr::new(127, 66, 0, 1);
const IDLE_CLIENT: Ipv4Addr = Ipv4Addr::new(127, 66, 0, 2);
const READING_CLIENT: Ipv4Addr = Ipv4Addr::new(127, 66, 0, 3);
const ENDPOINT: Ipv4Addr = Ipv4Addr::new(127, 66, 0, 4);

/// The balancer's ports; what is behind each has a port 8000 above.
const QUICK: u16 = 80;
const SILENT: u16 = 81;
const TALKING: u16 = 82;
const VANISHING: u16 = 83;

const THREADS: usize = 2;
const SOON: Duration = Duration::from_secs(20);
/// For as long as that good clients ask beside the flood.
const FLOOD: Duration = Duration::from_secs(6);

/// Ends with the test.
struct Balancer(Child);

impl Drop for Balancer {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Balancer {
    fn start(namespace: &Namespace) -> Result<Self> {
        let mut text = format!("ingress = [\"{HERE}\"]\nthreads = {THREADS}\n");
        for port in [QUICK, SILENT, TALKING, VANISHING] {
            text += &format!(
                "[[listeners]]\nport = {port}\n[[listeners.endpoints]]\naddress = \"{}\"\n",
                behind(port)
            );
        }
        let path = namespace.directory().join("lb.toml");
        fs::write(&path, text)?;
        // What enters the namespaces becomes the balancer, with the same number.
        let mut command: Command = namespace.command(swarmlet_binary()?);
        Ok(Self(command.args(["lb", "--config"]).arg(path).spawn()?))
    }

    /// Its TCP connections, by the kernel.
    fn connections(&self, namespace: &Namespace) -> Result<usize> {
        let all = namespace.run("ss", &["-Htnp"])?.success()?;
        let own = format!("pid={},", self.0.id());
        Ok(all.lines().filter(|line| line.contains(&own)).count())
    }

    fn descriptors(&self) -> Result<usize> {
        Ok(Path::new(&format!("/proc/{}/fd", self.0.id()))
            .read_dir()?
            .count())
    }
}

fn behind(port: u16) -> SocketAddr {
    let ip = if port == VANISHING { ENDPOINT } else { HERE };
    (ip, 8_000 + port).into()
}

fn nft(namespace: &Namespace, rules: &str) -> Result<()> {
    namespace.run("nft", &[rules])?.success()?;
    Ok(())
}

/// A counter of the kernel's TCP, such as `SyncookiesSent`.
fn counter(namespace: &Namespace, name: &str) -> Result<u64> {
    let text = namespace.run("cat", &["/proc/net/netstat"])?.success()?;
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next(), lines.next());
    let names = names.unwrap_or_default().split(' ');
    let mut both = names.zip(values.unwrap_or_default().split(' '));
    let (_, value) = both
        .find(|(known, _)| *known == name)
        .with_context(|| format!("the kernel does not count {name}"))?;
    Ok(value.parse()?)
}

/// How an endpoint treats a connection, until told that it is over.
type Treat = fn(TcpStream, &AtomicBool);

/// Serves each connection by `treat`, one thread for each, until told to end.
fn serve(port: u16, is_over: &AtomicBool, treat: Treat) -> Result<()> {
    let listener = TcpListener::bind(behind(port))?;
    listener.set_nonblocking(true)?;
    thread::scope(|scope| {
        while !is_over.load(Ordering::SeqCst) {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    stream.set_read_timeout(Some(Duration::from_millis(200)))?;
                    scope.spawn(move || treat(stream, is_over));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    thread::sleep(Duration::from_millis(1));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    })
}

fn listen_to(mut stream: TcpStream, is_over: &AtomicBool) {
    let mut buffer = [0; 64];
    while !is_over.load(Ordering::SeqCst) {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
            // There may be more to come.
            _ => {}
        }
    }
}

fn talk_to(mut stream: TcpStream, is_over: &AtomicBool) {
    while !is_over.load(Ordering::SeqCst) && stream.write_all(b"and so on").is_ok() {
        thread::sleep(Duration::from_millis(50));
    }
}

fn answer(mut stream: TcpStream, _: &AtomicBool) {
    // Who goes without the answer is counted where it was asked for.
    let _ = stream.write_all(b"fine");
}

/// Does something in the namespace, and waits for it.
fn inside<T: Send + 'static>(
    namespace: &Namespace,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    joined(namespace.thread(work)?)
}

fn joined<T>(thread: JoinHandle<io::Result<Result<T>>>) -> Result<T> {
    match thread.join() {
        Ok(ended) => ended?,
        Err(_) => bail!("a thread in the namespace has panicked"),
    }
}

fn from(source: Ipv4Addr, port: u16) -> Result<TcpStream> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    bind(&socket, &SocketAddr::from((source, 0)))?;
    connect(&socket, &SocketAddr::from((HERE, port)))?;
    Ok(socket.into())
}

/// A good client's request, from the connect to the end.
fn request() -> Result<Duration> {
    let started = Instant::now();
    let address = SocketAddr::from((HERE, QUICK));
    let mut stream = TcpStream::connect_timeout(&address, SOON)?;
    stream.set_read_timeout(Some(SOON))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    ensure!(text == "fine", "{text}");
    Ok(started.elapsed())
}

/// Sends SYN after SYN, about 10,000 a second, and never hears of an answer.
fn flood(is_over: &AtomicBool) -> Result<u64> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let mut sent = 0;
    while !is_over.load(Ordering::SeqCst) {
        for _ in 0..100 {
            let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
            bind(&socket, &SocketAddr::from((FLOODER, 0)))?;
            let begun = connect(&socket, &SocketAddr::from((HERE, QUICK)));
            ensure!(begun == Err(rustix::io::Errno::INPROGRESS), "{begun:?}");
            sent += 1;
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(sent)
}

/// Good clients' requests, one after the other, for as long as it takes.
fn ask_for(time: Duration) -> Result<Vec<Duration>> {
    let started = Instant::now();
    let mut took = Vec::new();
    while started.elapsed() < time {
        took.push(request()?);
    }
    Ok(took)
}

/// Connections whose peers are about to vanish, each of which has been made use
/// of: two with something to say when they do, and two without.
struct Quiet {
    to_endpoint: TcpStream,
    _others: [TcpStream; 3],
}

impl Quiet {
    fn connect() -> Result<Self> {
        let mut talking = from(READING_CLIENT, TALKING)?;
        talking.read_exact(&mut [0; 9])?;
        let mut to_endpoint = from(HERE, VANISHING)?;
        to_endpoint.write_all(b"hello")?;
        let idle = [from(IDLE_CLIENT, SILENT)?, from(HERE, VANISHING)?];
        let [one, other] = idle;
        Ok(Self {
            to_endpoint,
            _others: [talking, one, other],
        })
    }
}

#[test]
fn a_flood_of_syn_and_peers_that_vanish_cost_the_others_nothing() -> Result<()> {
    let loopback = Loopback::start("siege")?;
    let namespace = loopback.namespace();
    nft(
        namespace,
        &format!(
            "add table ip siege; add set ip siege gone {{ type ipv4_addr; }}; \
             add chain ip siege arriving {{ type filter hook prerouting priority -300; }}; \
             add rule ip siege arriving ip daddr {FLOODER} drop; \
             add rule ip siege arriving ip daddr @gone drop; \
             add rule ip siege arriving ip saddr @gone drop"
        ),
    )?;
    let is_over = Arc::new(AtomicBool::new(false));
    let mut servers = Vec::new();
    let treats: [(u16, Treat); 4] = [
        (QUICK, answer),
        (SILENT, listen_to),
        (TALKING, talk_to),
        (VANISHING, listen_to),
    ];
    for (port, treat) in treats {
        let is_over = Arc::clone(&is_over);
        servers.push(namespace.thread(move || serve(port, &is_over, treat))?);
    }
    let balancer = Balancer::start(namespace)?;
    let ended = besiege(namespace, &balancer);
    is_over.store(true, Ordering::SeqCst);
    ended?;
    servers.into_iter().try_for_each(joined)
}

fn besiege(namespace: &Namespace, balancer: &Balancer) -> Result<()> {
    wait_until(SOON, "an answer through the balancer", || {
        inside(namespace, request).map(Some)
    })?;
    wait_until(SOON, "the end of that connection", || {
        Ok((balancer.connections(namespace)? == 0).then_some(()))
    })?;
    let descriptors = balancer.descriptors()?;

    let mut quiet = inside(namespace, Quiet::connect)?;
    let held = 2 * 4;
    wait_until(SOON, "both sides of four connections", || {
        Ok((balancer.connections(namespace)? == held).then_some(()))
    })?;
    let gone = format!("{IDLE_CLIENT}, {READING_CLIENT}, {ENDPOINT}");
    nft(
        namespace,
        &format!("add element ip siege gone {{ {gone} }}"),
    )?;
    let vanished = Instant::now();
    quiet.to_endpoint.write_all(b"still there?")?;

    flood_beside_good_clients(namespace)?;

    wait_until(Duration::from_secs(120), "all of them are given up", || {
        Ok((balancer.connections(namespace)? == 0).then_some(()))
    })?;
    within(
        "connections of vanished peers are given up",
        vanished.elapsed(),
        Duration::from_secs(60),
    );
    // Each thread has a socket by which it asks the kernel about others.
    let left = balancer
        .descriptors()?
        .saturating_sub(descriptors + THREADS);
    at_most("descriptors left over", left as u64, 0);
    inside(namespace, request)?;
    Ok(())
}

fn flood_beside_good_clients(namespace: &Namespace) -> Result<()> {
    let is_over = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&is_over);
    let flooding = namespace.thread(move || flood(&told))?;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(namespace.thread(|| ask_for(FLOOD))?);
    }
    let asked: Result<Vec<_>> = clients.into_iter().map(joined).collect();
    let waiting = namespace.run("ss", &["-Htn", "state", "syn-recv"])?;
    is_over.store(true, Ordering::SeqCst);
    let sent = joined(flooding)?;
    let mut took = asked?.concat();
    let waiting = waiting.success()?.lines().count();
    let cookies = counter(namespace, "SyncookiesSent")?;
    // A flood that fits into the queue is none.
    ensure!(
        waiting > 1_000 && cookies > 0,
        "{sent} SYN, {waiting} half open, {cookies} cookies"
    );
    took.sort_unstable();
    noted(
        "SYN flood",
        &format!(
            "{sent} SYN, the queue overflown, {} requests beside it",
            took.len()
        ),
    );
    within(
        "good clients beside it, p99",
        took[took.len() * 99 / 100],
        Duration::from_secs(1),
    );
    Ok(())
}
