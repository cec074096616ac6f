//! The stand-alone balancer's pages, and taking over. SIGHUP reaches the whole process, hence a binary of its
//! own; balancers of the other tests in it read a file again that has not changed.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

use std::{
    fmt::Write,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use rustix::process::{Signal, getpid, kill_process};
use swarmlet_lb::{
    control::Client,
    standalone::{self, Error, Start},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::support::{Backend, Refusing, own_ip, own_port, soon, until};

mod support;

/// A stand-alone balancer's file, and what is in it.
struct Setup {
    directory: tempfile::TempDir,
    metrics: Option<SocketAddr>,
    listeners: Vec<(u16, Vec<SocketAddr>)>,
    /// Keys of the file.
    more: &'static str,
}

impl Setup {
    fn new(listeners: Vec<(u16, Vec<SocketAddr>)>) -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            metrics: Some((own_ip(), own_port()).into()),
            listeners,
            more: "",
        }
    }

    fn control(&self) -> PathBuf {
        self.directory.path().join("lb.sock")
    }

    fn write(&self) -> PathBuf {
        let mut text = if self.more.contains("ingress") {
            String::new()
        } else {
            format!("ingress = [\"{}\"]\n", own_ip())
        };
        writeln!(text, "{}", self.more).unwrap();
        writeln!(text, "control = \"{}\"", self.control().display()).unwrap();
        if let Some(metrics) = self.metrics {
            writeln!(text, "metrics = \"{metrics}\"").unwrap();
        }
        for (port, endpoints) in &self.listeners {
            writeln!(text, "[[listeners]]\nport = {port}\nservice = \"ng\"").unwrap();
            for endpoint in endpoints {
                writeln!(text, "[[listeners.endpoints]]\naddress = \"{endpoint}\"").unwrap();
            }
        }
        let path = self.directory.path().join("lb.toml");
        std::fs::write(&path, text).unwrap();
        path
    }

    fn start(&self, start: Start) -> JoinHandle<Result<(), Error>> {
        tokio::spawn(standalone::run(self.write(), start))
    }

    async fn started(&self) -> JoinHandle<Result<(), Error>> {
        let balancer = self.start(Start::Alone);
        let address = self.metrics.unwrap();
        until("the page answers", async || {
            get(address, "/healthz").await.is_ok()
        })
        .await;
        balancer
    }

    /// Has the file read again.
    fn hang_up(&self) {
        self.write();
        kill_process(getpid(), Signal::HUP).unwrap();
    }

    async fn stop(&self, balancer: JoinHandle<Result<(), Error>>) {
        let mut client = Client::connect(self.control()).await.unwrap();
        client.shutdown().await.unwrap();
        soon("the balancer ends", balancer).await.unwrap().unwrap();
        if let Some(address) = self.metrics {
            until("the page has ended, too", async || {
                let answer = get(address, "/healthz").await;
                answer.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
            })
            .await;
        }
    }
}

/// A page with its head.
async fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    soon("the page", async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    })
    .await
}

/// Waits for a page on which are all of these lines.
async fn shows(address: SocketAddr, lines: &[String]) {
    let mut page = String::new();
    let mut missing = Vec::new();
    for _ in 0..500 {
        page = get(address, "/metrics").await.unwrap();
        missing = lines.to_vec();
        missing.retain(|line| !page.lines().any(|found| found == line));
        if missing.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not on the page: {missing:#?}\n{page}");
}

async fn echo_through(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect((own_ip(), port)).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    soon("the echo", stream.read_exact(&mut [0; 5]))
        .await
        .unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_counts_what_went_through() {
    let (echo, refusing) = (Backend::echo().await, Refusing::new());
    let port = own_port();
    let mut setup = Setup::new(vec![(port, vec![echo.address, refusing.address])]);
    let balancer = setup.started().await;
    let page = setup.metrics.unwrap();
    let kept = echo_through(port).await;
    for _ in 0..3 {
        echo_through(port).await;
    }
    let of_port = format!("port=\"{port}\",service=\"ng\"");
    let of = |address: SocketAddr| format!("{of_port},task=\"{address}\",address=\"{address}\"");
    let mut lines = vec![
        "swarmlet_lb_up 1".to_owned(),
        "swarmlet_lb_processes 1".to_owned(),
        "swarmlet_lb_endpoints_left_out 0".to_owned(),
    ];
    for (name, labels, value) in [
        ("port_served", &of_port, 1),
        ("accepted_total", &of_port, 4),
        ("unserved_total", &of_port, 0),
        ("refused_total", &of_port, 0),
        ("connections_active", &of_port, 1),
        ("connections_total", &of_port, 4),
        ("connect_failures_total", &of_port, 1),
        ("received_bytes_total", &of_port, 20),
        ("sent_bytes_total", &of_port, 20),
        ("connect_seconds_count", &of_port, 4),
        ("endpoint_connections_active", &of(echo.address), 1),
        ("endpoint_connections_total", &of(echo.address), 4),
        ("endpoint_received_bytes_total", &of(echo.address), 20),
        ("endpoint_sent_bytes_total", &of(echo.address), 20),
        ("endpoint_connections_total", &of(refusing.address), 0),
        ("endpoint_connect_failures_total", &of(refusing.address), 1),
    ] {
        lines.push(format!("swarmlet_lb_{name}{{{labels}}} {value}"));
    }
    for (labels, condition) in [
        (of(echo.address), "ready"),
        (of(refusing.address), "ejected"),
    ] {
        let series = "swarmlet_lb_endpoint_condition";
        lines.push(format!("{series}{{{labels},condition=\"{condition}\"}} 1"));
    }
    shows(page, &lines).await;
    let metrics = get(page, "/metrics").await.unwrap();
    assert!(metrics.contains("openmetrics-text"), "{metrics}");
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
    assert!(get(page, "/").await.unwrap().starts_with("HTTP/1.0 404 "));

    let health = get(page, "/healthz").await.unwrap();
    assert!(health.starts_with("HTTP/1.0 200 "), "{health}");
    assert!(health.ends_with("\r\n\r\nok\n"), "{health}");
    let taken = TcpListener::bind((own_ip(), own_port())).await.unwrap();
    let taken = taken.local_addr().map(|at| (at.port(), taken)).unwrap();
    setup.listeners.push((taken.0, Vec::new()));
    setup.hang_up();
    until("one port is not served", async || {
        let health = get(page, "/healthz").await.unwrap();
        let reason = format!("port {} is not served: ", taken.0);
        health.starts_with("HTTP/1.0 503 ") && health.contains(&reason)
    })
    .await;
    drop(kept);
    setup.stop(balancer).await;
}

/// A port that nobody has, on no address, and that no connection begins at.
fn free_everywhere() -> u16 {
    let first = 12_000 + u16::try_from(std::process::id() % 8_000).unwrap();
    let mut ports = first..first + 500;
    let is_free = |port: &u16| std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok();
    ports.find(is_free).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_moves_when_the_file_is_read_again() {
    let echo = Backend::echo().await;
    let mut setup = Setup::new(vec![(own_port(), vec![echo.address])]);
    let port = free_everywhere();
    let at = |ip: IpAddr| SocketAddr::new(ip, port);
    setup.metrics = Some(at(own_ip()));
    let balancer = setup.started().await;

    // In the way of all addresses, and so is the page itself.
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .unwrap();
    setup.metrics = Some(at(Ipv4Addr::UNSPECIFIED.into()));
    let refused = own_port();
    setup.listeners.push((refused, vec![echo.address]));
    setup.hang_up();
    tokio::time::sleep(Duration::from_millis(200)).await;
    until("the page is back", async || {
        get(at(own_ip()), "/healthz").await.is_ok()
    })
    .await;
    // Nothing of a file is in force that is refused.
    let error = TcpStream::connect((own_ip(), refused)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);

    drop(other);
    setup.hang_up();
    until("the page is everywhere", async || {
        get(at(Ipv4Addr::LOCALHOST.into()), "/healthz")
            .await
            .is_ok()
    })
    .await;
    drop(echo_through(refused).await);

    setup.metrics = Some((own_ip(), own_port()).into());
    setup.hang_up();
    let moved = setup.metrics.unwrap();
    until("the page is elsewhere", async || {
        get(moved, "/healthz").await.is_ok()
    })
    .await;
    assert!(get(at(own_ip()), "/healthz").await.is_err());

    setup.metrics = None;
    setup.hang_up();
    until("there is no page", async || {
        get(moved, "/healthz").await.is_err()
    })
    .await;
    drop(echo_through(refused).await);
    setup.stop(balancer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_passes_to_the_next_process() {
    let echo = Backend::echo().await;
    let port = own_port();
    let setup = Setup::new(vec![(port, vec![echo.address])]);
    let page = setup.metrics.unwrap();
    let first = setup.started().await;
    let kept = echo_through(port).await;

    let second = setup.start(Start::TakeOver);
    until("the next process answers", async || {
        let found = get(page, "/metrics").await;
        found.is_ok_and(|page| page.contains("\nswarmlet_lb_processes 2\n"))
    })
    .await;
    let accepted = format!("swarmlet_lb_accepted_total{{port=\"{port}\",service=\"ng\"}}");
    drop(echo_through(port).await);
    shows(
        page,
        &[
            "swarmlet_lb_connections_of_replaced 1".to_owned(),
            format!("{accepted} 1"),
        ],
    )
    .await;
    drop(kept);
    soon("the process before ends", first)
        .await
        .unwrap()
        .unwrap();
    shows(page, &["swarmlet_lb_processes 1".to_owned()]).await;
    setup.stop(second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_somebody_has_is_an_error() {
    let setup = Setup::new(Vec::new());
    let address = setup.metrics.unwrap();
    let somebody = TcpListener::bind(address).await.unwrap();
    for start in [Start::Alone, Start::TakeOver] {
        let error = soon("the error", setup.start(start)).await.unwrap();
        let error = error.unwrap_err();
        let expected = format!("lb.toml: metrics = \"{address}\": cannot listen there, name");
        assert!(error.to_string().contains(&expected), "{error}");
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("in use"), "{source}");
        assert!(!setup.control().exists());
    }
    drop(somebody);
    let balancer = setup.started().await;
    setup.stop(balancer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_take_over_that_cannot_be_leaves_the_balancer_in_its_place() {
    let echo = Backend::echo().await;
    let port = own_port();
    let mut setup = Setup::new(vec![(port, vec![echo.address])]);
    let balancer = setup.started().await;
    for (flaw, expected) in [
        ("ingress = []", "no ingress address is given"),
        (
            "access_log = { path = \"/proc/nowhere\" }",
            "cannot open the access log /proc/nowhere",
        ),
    ] {
        setup.more = flaw;
        let error = soon("the error", setup.start(Start::TakeOver)).await;
        let error = error.unwrap().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        let mut client = Client::connect(setup.control()).await.unwrap();
        assert!(!client.status().await.unwrap().shutting_down);
    }
    setup.more = "";
    let next = setup.start(Start::TakeOver);
    soon("the process before ends", balancer)
        .await
        .unwrap()
        .unwrap();
    drop(echo_through(port).await);
    setup.stop(next).await;
}
