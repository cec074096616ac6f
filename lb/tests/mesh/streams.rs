//! What goes through a connection, and how it ends.

use std::time::{Duration, Instant};

use swarmlet_lb::Config;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, tcp::ReadHalf},
    sync::mpsc::UnboundedReceiver,
};

use crate::support::{
    Backend, Mesh, assert_reset, keyed, listener, own_ip, own_port, ready, reset, soon, until,
};

/// A balancer in front of one endpoint whose connections come to the test.
struct Bridge {
    mesh: Mesh,
    port: u16,
    arrivals: UnboundedReceiver<TcpStream>,
    _backend: Backend,
}

impl Bridge {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(adjust: impl FnOnce(&mut Config)) -> Self {
        let mut mesh = Mesh::start_with(adjust).await;
        let port = own_port();
        let (backend, arrivals) = Backend::handing_over().await;
        mesh.set(&[listener(port, vec![ready("a", backend.address)])])
            .await;
        Self {
            mesh,
            port,
            arrivals,
            _backend: backend,
        }
    }

    /// The same, after a byte has gone through: until then the balancer may
    /// take an endpoint's reset for a failed connect, and rightly try again.
    async fn connect_and_greet(&mut self) -> (TcpStream, TcpStream) {
        let (mut client, mut server) = self.connect().await;
        client.write_all(b"x").await.unwrap();
        soon("the greeting", server.read_exact(&mut [0]))
            .await
            .unwrap();
        (client, server)
    }

    /// Both ends of a new connection through the balancer.
    async fn connect(&mut self) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect((own_ip(), self.port)).await.unwrap();
        let server = soon("the connection arrives", self.arrivals.recv())
            .await
            .unwrap();
        (client, server)
    }

    async fn stop(mut self) {
        until("no connection is left", async || {
            self.mesh.listener(self.port).await.traffic.active == 0
        })
        .await;
        self.mesh.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn streams_arrive_whole_both_ways() {
    const LEN: usize = 3_000_017;
    let mut bridge = Bridge::new().await;
    let mut pairs = tokio::task::JoinSet::new();
    for number in 1..=8_u64 {
        let (mut client, mut server) = bridge.connect().await;
        let (up, down) = (number * 0x9E37_79B9, number * 0x85EB_CA6B);
        pairs.spawn(async move {
            let (mut client_read, mut client_write) = client.split();
            let (mut server_read, mut server_write) = server.split();
            // The lengths differ, so that each side is the first to end in turn.
            let (up_len, down_len) = if number % 2 == 0 { (LEN, 1) } else { (0, LEN) };
            tokio::try_join!(
                keyed::send(&mut client_write, up, up_len),
                keyed::send(&mut server_write, down, down_len),
                keyed::receive(&mut server_read, up, up_len),
                keyed::receive(&mut client_read, down, down_len),
            )
            .unwrap();
        });
    }
    pairs.join_all().await;
    let traffic = bridge.mesh.listener(bridge.port).await.traffic;
    assert_eq!(traffic.bytes_to_endpoint, 4 * LEN as u64);
    assert_eq!(traffic.bytes_to_client, 4 * (LEN as u64 + 1));
    bridge.stop().await;
}

/// The readers come late, so that every buffer on the way is full and the
/// balancer holds bytes that the other side does not take.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_loses_nothing() {
    // More than the kernel buffers on two loopback connections at most.
    const LEN: usize = 24_000_011;
    let mut bridge = Bridge::new().await;
    let (mut client, mut server) = bridge.connect().await;
    let (mut client_read, mut client_write) = client.split();
    let (mut server_read, mut server_write) = server.split();
    let late = async |read: &mut ReadHalf<'_>, key| {
        tokio::time::sleep(Duration::from_millis(500)).await;
        keyed::receive(read, key, LEN).await
    };
    tokio::try_join!(
        keyed::send(&mut client_write, 11, LEN),
        keyed::send(&mut server_write, 12, LEN),
        late(&mut server_read, 11),
        late(&mut client_read, 12),
    )
    .unwrap();
    bridge.stop().await;
}

/// One side has ended and the other goes on.
async fn assert_half_closed(ended: &mut TcpStream, open: &mut TcpStream) {
    ended.write_all(b"last words").await.unwrap();
    ended.shutdown().await.unwrap();
    let mut words = String::new();
    soon("the end", open.read_to_string(&mut words))
        .await
        .unwrap();
    assert_eq!(words, "last words");
    for _ in 0..3 {
        let mut answer = [0; 4];
        open.write_all(b"more").await.unwrap();
        soon("the answer", ended.read_exact(&mut answer))
            .await
            .unwrap();
        assert_eq!(&answer, b"more");
    }
    open.shutdown().await.unwrap();
    assert_eq!(
        soon("the other end", ended.read(&mut [0])).await.unwrap(),
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn either_side_may_end_first() {
    let mut bridge = Bridge::new().await;
    let (mut client, mut server) = bridge.connect().await;
    assert_half_closed(&mut client, &mut server).await;
    let (mut client, mut server) = bridge.connect().await;
    assert_half_closed(&mut server, &mut client).await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_is_passed_on_as_a_reset() {
    let mut bridge = Bridge::new().await;
    let (client, mut server) = bridge.connect_and_greet().await;
    reset(client);
    assert_reset(&mut server).await;
    let (mut client, server) = bridge.connect_and_greet().await;
    reset(server);
    assert_reset(&mut client).await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_after_a_fin_is_passed_on() {
    let mut bridge = Bridge::new().await;
    for client_ends in [true, false] {
        let (client, server) = bridge.connect().await;
        let (mut ended, mut open) = if client_ends {
            (client, server)
        } else {
            (server, client)
        };
        ended.shutdown().await.unwrap();
        assert_eq!(soon("the end", open.read(&mut [0])).await.unwrap(), 0);
        reset(ended);
        // Nothing more is to be read, so that the reset shows in writing; the
        // balancer has no bytes to move at which it could notice by accident.
        let error = soon("the reset", async {
            loop {
                if let Some(error) = open.take_error().unwrap() {
                    return error;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        assert_eq!(
            error.kind(),
            std::io::ErrorKind::BrokenPipe,
            "what RST means after a FIN"
        );
    }
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_behind_a_full_pipe_is_passed_on() {
    let mut bridge = Bridge::new().await;
    for client_sends in [true, false] {
        let (client, server) = bridge.connect().await;
        let (sender, mut receiver) = if client_sends {
            (client, server)
        } else {
            (server, client)
        };
        // Until every buffer on the way is full, for the receiver reads nothing.
        let chunk = vec![7; 1 << 20];
        let mut full_since = Instant::now();
        while full_since.elapsed() < Duration::from_millis(300) {
            match sender.try_write(&chunk) {
                Ok(_) => full_since = Instant::now(),
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
        reset(sender);
        // Not only once the receiver reads on, which may be never.
        until("the connection is given up", async || {
            bridge.mesh.listener(bridge.port).await.traffic.active == 0
        })
        .await;
        assert_reset(&mut receiver).await;
    }
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_half_closed_connection_is_reset() {
    let mut bridge = Bridge::with(|config| {
        config.timeouts.half_closed = Duration::from_millis(400);
    })
    .await;
    let (mut client, mut server) = bridge.connect().await;
    client.shutdown().await.unwrap();
    assert_eq!(soon("the end", server.read(&mut [0])).await.unwrap(), 0);
    // Longer than the timeout in all, but never silent for so long.
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        server.write_all(b"x").await.unwrap();
        assert_eq!(soon("a byte", client.read(&mut [0; 8])).await.unwrap(), 1);
    }
    assert_reset(&mut client).await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_reset() {
    let mut bridge = Bridge::with(|config| {
        config.timeouts.idle = Duration::from_millis(200);
    })
    .await;
    let (mut client, mut server) = bridge.connect().await;
    assert_reset(&mut client).await;
    assert_reset(&mut server).await;
    bridge.stop().await;
}
