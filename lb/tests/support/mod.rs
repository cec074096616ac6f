//! A balancer of its own for each test, and endpoints to put behind it.
//!
//! Each test process uses a loopback address of its own (127.0.0.0/8 is all
//! loopback), so that published ports can be fixed numbers and no connection of
//! another test can have taken them.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) mod keyed;
pub(crate) mod outside;

use std::{
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicUsize, Ordering},
    },
    time::Duration,
};

use socket2::{Domain, SockRef, Socket, Type};
use swarmlet_lb::{
    Config, Event,
    control::{Client, Events},
    status::{Ack, EndpointCondition, ListenerStatus},
    table::{Endpoint, EndpointState, Listener, Policy, Table},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// No single step of a test takes longer, not even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// This process's own loopback address.
pub(crate) fn own_ip() -> IpAddr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 | (high & 63), middle, low).into()
}

/// A port on [`own_ip`] that no other test of this process uses.
pub(crate) fn own_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(10_000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Awaits something that must happen within [`PATIENCE`].
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {PATIENCE:?}: {what}"),
    }
}

/// Asks again and again until the answer is yes.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    soon(what, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// A running balancer and a control connection to it.
pub(crate) struct Mesh {
    pub(crate) client: Client,
    pub(crate) config: Config,
    pub(crate) task: JoinHandle<Result<(), swarmlet_lb::Error>>,
    /// Those of the next table.
    pub(crate) hosts: Vec<swarmlet_lb::table::Host>,
    version: u64,
    _directory: tempfile::TempDir,
}

impl Mesh {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(adjust: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::new(directory.path().join("lb.sock"));
        config.ingress = vec![own_ip()];
        adjust(&mut config);
        let task = tokio::spawn(swarmlet_lb::run(config.clone()));
        until("the balancer answers", async || {
            Client::connect(&config.control).await.is_ok()
        })
        .await;
        Self {
            client: Client::connect(&config.control).await.unwrap(),
            config,
            task,
            hosts: Vec::new(),
            version: 0,
            _directory: directory,
        }
    }

    /// Puts a table with the next version in force.
    pub(crate) async fn set(&mut self, listeners: &[Listener]) -> Ack {
        self.version += 1;
        let table = Table {
            version: self.version,
            listeners: listeners.to_vec(),
            hosts: self.hosts.clone(),
        };
        let ack = self.client.set_table(&table).await.unwrap();
        assert_eq!(ack.version, self.version);
        ack
    }

    pub(crate) async fn events(&self) -> Events {
        self.client.events().await.unwrap()
    }

    pub(crate) async fn listener(&mut self, port: u16) -> ListenerStatus {
        let status = self.client.status().await.unwrap();
        let found = status
            .listeners
            .into_iter()
            .find(|listener| listener.port == port);
        found.expect("the port is in the table")
    }

    pub(crate) async fn condition(&mut self, port: u16, id: &str) -> EndpointCondition {
        let endpoints = self.listener(port).await.endpoints;
        let found = endpoints.into_iter().find(|endpoint| endpoint.id == id);
        found.expect("the endpoint is in the table").condition
    }

    /// Ends the balancer in order and sees that it does.
    pub(crate) async fn stop(mut self) {
        self.client.shutdown().await.unwrap();
        soon("the balancer ends", self.task).await.unwrap().unwrap();
    }
}

/// The first event from now on that `wanted` takes.
pub(crate) async fn event(events: &mut Events, wanted: impl Fn(&Event) -> bool) -> Event {
    soon("the event", async {
        loop {
            let event = events.next().await.unwrap();
            if wanted(&event) {
                return event;
            }
        }
    })
    .await
}

pub(crate) fn listener(port: u16, endpoints: Vec<Endpoint>) -> Listener {
    Listener {
        port,
        service: "ng".to_owned(),
        policy: Policy::RoundRobin,
        prefer_local: false,
        accept_proxy: Vec::new(),
        endpoints,
    }
}

pub(crate) fn ready(id: &str, address: SocketAddr) -> Endpoint {
    Endpoint {
        id: id.to_owned(),
        address,
        weight: 1,
        local: false,
        proxy_protocol: None,
        state: EndpointState::Ready,
        host: None,
    }
}

pub(crate) fn draining(id: &str, address: SocketAddr) -> Endpoint {
    Endpoint {
        state: EndpointState::Draining,
        ..ready(id, address)
    }
}

/// A server that treats every connection in the same way.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Backend {
    pub(crate) async fn start<F>(treat: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((own_ip(), 0)).await.unwrap();
        Self::serve(listener, treat)
    }

    pub(crate) fn serve<F>(
        listener: TcpListener,
        treat: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(treat(stream));
            }
        });
        Self {
            address,
            accepted,
            task,
        }
    }

    /// Says its name and ends.
    pub(crate) async fn named(name: &str) -> Self {
        let name = name.to_owned();
        Self::start(move |stream| say(stream, name.clone())).await
    }

    /// Gives back what it gets, half-close included.
    pub(crate) async fn echo() -> Self {
        Self::start(|mut stream| async move {
            let (mut read, mut write) = stream.split();
            // The tests look at what clients see.
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = write.shutdown().await;
        })
        .await
    }

    /// Sends to every connection without end.
    pub(crate) async fn endless() -> Self {
        Self::start(|mut stream| async move {
            let chunk = vec![7; 65_536];
            while stream.write_all(&chunk).await.is_ok() {}
        })
        .await
    }

    /// Hands every connection to the test.
    pub(crate) async fn handing_over() -> (Self, tokio::sync::mpsc::UnboundedReceiver<TcpStream>) {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        let backend = Self::start(move |stream| {
            let sender = sender.clone();
            async move { sender.send(stream).unwrap() }
        })
        .await;
        (backend, receiver)
    }

    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) async fn say(mut stream: TcpStream, name: String) {
    // A probe resets its connection, which is no failure here.
    let _ = stream.write_all(name.as_bytes()).await;
    let _ = stream.shutdown().await;
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

/// An address that refuses connections and that nobody else can take.
pub(crate) struct Refusing {
    pub(crate) address: SocketAddr,
    socket: Socket,
}

impl Refusing {
    pub(crate) fn new() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(own_ip(), 0).into()).unwrap();
        Self {
            address: socket.local_addr().unwrap().as_socket().unwrap(),
            socket,
        }
    }

    /// From now on it listens.
    pub(crate) fn recover(self) -> TcpListener {
        self.socket.listen(128).unwrap();
        self.socket.set_nonblocking(true).unwrap();
        TcpListener::from_std(self.socket.into()).unwrap()
    }
}

/// An address that answers nothing: its queue of connections is full, and the
/// kernel drops what else comes.
pub(crate) struct Silent {
    pub(crate) address: SocketAddr,
    listener: Socket,
    _fill: Vec<Socket>,
}

impl Silent {
    pub(crate) fn new() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::new(own_ip(), 0).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let fill = (0..4).map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            // In progress, for ever.
            let _ = socket.connect(&address);
            socket
        });
        Self {
            address: address.as_socket().unwrap(),
            _fill: fill.collect(),
            listener,
        }
    }
}

impl Silent {
    /// From now on it accepts whoever comes.
    pub(crate) fn recover(self) -> TcpListener {
        self.listener.listen(128).unwrap();
        self.listener.set_nonblocking(true).unwrap();
        TcpListener::from_std(self.listener.into()).unwrap()
    }
}

/// Connects to a published port and reads to the end.
pub(crate) async fn fetch(port: u16) -> io::Result<String> {
    soon("a connection is answered or reset", async {
        let mut stream = TcpStream::connect((own_ip(), port)).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text)
    })
    .await
}

/// Reads to the end and demands that it is a reset and no clean end.
pub(crate) async fn assert_reset(stream: &mut TcpStream) {
    let end = soon("the reset arrives", stream.read_to_end(&mut Vec::new())).await;
    let kind = end.map_err(|error| error.kind());
    assert_eq!(kind, Err(io::ErrorKind::ConnectionReset));
}

/// Closes with RST.
pub(crate) fn reset(stream: TcpStream) {
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(stream);
}
