//! The crew: acknowledgements, misfortunes, and who gets the connections.

use std::{
    io::Read,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::atomic::AtomicUsize,
};

use super::*;
use crate::{
    bind::listen,
    port::Endpoint,
    run::Timeouts,
    select::EndpointKey,
    settings::Settings,
    table::{self, EndpointState, Listener, Policy},
};

fn shared() -> Arc<Shared> {
    let settings = Settings::default();
    Arc::new(Shared::new(Timeouts::default(), &settings, 100))
}

/// A port whose only endpoint is at this address, and a socket for it.
fn listening(shared: &Shared, endpoint: SocketAddr) -> (Arc<Listening>, SocketAddr) {
    let port = Port::new(80, shared.events.clone());
    let listener = Listener {
        port: 80,
        service: "ng".to_owned(),
        policy: Policy::RoundRobin,
        prefer_local: false,
        accept_proxy: Vec::new(),
        endpoints: vec![table::Endpoint {
            id: "a".to_owned(),
            address: endpoint,
            weight: 1,
            local: false,
            proxy_protocol: None,
            state: EndpointState::Ready,
            host: None,
        }],
    };
    port.update(&listener, |listed| {
        Arc::new(Endpoint::new(
            EndpointKey(1),
            80,
            listed,
            shared.events.clone(),
        ))
    });
    let socket = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = TcpListener::from(socket.expect("there is IPv4"));
    let address = listener.local_addr().unwrap();
    let listening = Listening {
        id: 1,
        socket: Arc::new(listener.into()),
        port: Arc::new(port),
    };
    (Arc::new(listening), address)
}

/// Panics the first time that it has a snapshot to take over.
struct Unlucky(Context);

static LIVES: AtomicUsize = AtomicUsize::new(0);

impl Engine for Unlucky {
    fn new(context: Context) -> io::Result<Self> {
        Ok(Self(context))
    }

    fn run(&mut self) {
        let mailbox = &self.0.mailboxes[self.0.number];
        loop {
            let post = mailbox.collect();
            if post.ended {
                return;
            }
            if let Some(snapshot) = post.snapshot.filter(|snapshot| snapshot.generation > 0) {
                assert!(LIVES.fetch_add(1, Ordering::SeqCst) > 0, "the first life");
                mailbox.acknowledge(snapshot.generation);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[tokio::test]
async fn a_panic_costs_an_engine_and_no_acknowledgement() {
    let crew = Crew::start::<Unlucky>(&shared(), 1).unwrap();
    crew.publish(Vec::new()).await;
    assert_eq!(LIVES.load(Ordering::SeqCst), 2);
    crew.end().await;
    // Whoever asks now is not left waiting.
    crew.publish(Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_last_are_spread_over_the_threads() {
    const CONNECTIONS: usize = 24;
    let shared = shared();
    let crew = Crew::start::<Epoll>(&shared, 3).unwrap();
    let endpoint = TcpListener::bind("127.0.0.1:0").unwrap();
    let (listening, address) = listening(&shared, endpoint.local_addr().unwrap());
    crew.publish(vec![listening]).await;
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(TcpStream::connect(address).unwrap());
        // One after the other: whoever is idle accepts, the same each time.
        clients.push(endpoint.accept().unwrap().0);
    }
    let loads: Vec<usize> = crew.mailboxes.iter().map(Mailbox::load).collect();
    assert_eq!(loads.iter().sum::<usize>(), CONNECTIONS);
    let (min, max) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
    assert!(max - min <= 4, "{loads:?}");

    // The socket closes with the acknowledgement, and not a moment later.
    crew.publish(Vec::new()).await;
    assert!(TcpStream::connect(address).is_err());
    assert_eq!(shared.room.taken(), CONNECTIONS);
    crew.end().await;
    assert_eq!(shared.room.taken(), 0);
    for mut client in clients {
        let end = client.read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(end, Err(io::ErrorKind::ConnectionReset));
    }
}
