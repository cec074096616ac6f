//! A small HTTP server that answers with its host name: what the demo and the tests run.
//!
//! | path | answer |
//! |---|---|
//! | any | host name, and what the request looked like |
//! | `/health` | `ok`, with the status that was set last |
//! | `/health?set=N&ms=M` | `ok`; for M milliseconds `/health` has status N, and no answer where N is 0 |
//! | `/status?code=N` | as any, with status N |
//! | `/slow?ms=N` | the same as any, after N milliseconds |
//! | `/print?lines=N` | as any, after N lines on standard output and one on standard error |
//! | `/exit?code=N` | none: the process exits with code N |
//!
//! On SIGTERM it takes no more connections, finishes the requests that it has, and exits. A kept
//! connection is not cut where its client may just be sending: the next answer on it says
//! `Connection: close`, and only one that stays silent is closed without.

use std::convert::Infallible;
use std::env;
use std::future::pending;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// The port where nobody names one.
const DEFAULT_PORT: u16 = 80;

/// How long requests in flight may take after SIGTERM where nobody says otherwise: below Docker's
/// grace period of 10 s, after which the process is killed anyway.
pub const FINISH_WITHIN: Duration = Duration::from_secs(9);

/// How long after SIGTERM a kept connection may stay silent before it is closed: longer than the
/// pauses of a busy client, so that none of them sends a request into a connection that closes.
const SILENCE: Duration = Duration::from_secs(2);

/// The longest answer of `/slow`: a mistyped number must not hold a connection for days.
const MAX_DELAY: Duration = Duration::from_secs(600);

/// The most lines of `/print`.
const MAX_LINES: u64 = 1_000_000;

/// Pause after an error of accept that will not pass by itself at once, such as too many
/// open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until SIGTERM or SIGINT; requests in flight then have `finish_within` to end.
///
/// The port is `port`, or `PORT` of the environment, or 80; the address is
/// `SWARMLET_ADDRESS` of the environment, or all addresses.
///
/// # Errors
/// Where the port is no number or cannot be bound.
pub async fn serve(port: Option<u16>, finish_within: Duration) -> io::Result<()> {
    let port = match (port, env::var("PORT")) {
        (Some(port), _) => port,
        (None, Ok(text)) => text.parse().map_err(|_| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("invalid PORT {text:?}: expected 1 to 65535"),
            )
        })?,
        (None, Err(_)) => DEFAULT_PORT,
    };
    let address = env::var("SWARMLET_ADDRESS")
        .ok()
        .and_then(|text| text.parse().ok());
    // Subscribed before anybody can know that the server is there.
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let listener = listen(address, port)?;
    writeln!(io::stdout(), "{} listens on port {port}", hostname())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    serve_on(listener, hostname(), finish_within, stop).await;
    Ok(())
}

/// How far the end of the server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Everybody is served.
    Open,
    /// Answers say that they are the last ones of their connections.
    Last,
    /// Connections without a request are closed.
    Closing,
}

/// What connections share.
#[derive(Clone)]
struct Server {
    hostname: String,
    /// What `/health` answers.
    status: Arc<AtomicU16>,
    phase: watch::Receiver<Phase>,
}

/// Serves on `listener` until `stop`, then finishes what is in flight, for `finish_within` at most.
pub async fn serve_on(
    listener: TcpListener,
    hostname: String,
    finish_within: Duration,
    stop: impl Future<Output = ()>,
) {
    let (phase, watched) = watch::channel(Phase::Open);
    let server = Server {
        hostname,
        status: Arc::new(AtomicU16::new(200)),
        phase: watched,
    };
    let mut connections = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => drop(connections.spawn(server.clone().keep(stream, peer))),
                Err(error) => {
                    tracing::warn!(%error, "no connection accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            // Those that have ended are forgotten.
            Some(_) = connections.join_next() => {}
            () = &mut stop => break,
        }
    }
    let end = Instant::now() + finish_within;
    phase.send_replace(Phase::Last);
    // Clients that the kernel has connected already: closing the listener would reset them.
    while let Ok(Ok((stream, peer))) = timeout(Duration::ZERO, listener.accept()).await {
        connections.spawn(server.clone().keep(stream, peer));
    }
    drop(listener);
    let silent_until = end.min(Instant::now() + SILENCE);
    if !all_ended(&mut connections, silent_until).await {
        phase.send_replace(Phase::Closing);
        if !all_ended(&mut connections, end).await {
            tracing::warn!("requests are still in flight; exiting all the same");
        }
    }
}

/// Waits until all connections have ended, or for the deadline; whether they have.
async fn all_ended(connections: &mut JoinSet<()>, deadline: Instant) -> bool {
    let ends = async { while connections.join_next().await.is_some() {} };
    timeout_at(deadline, ends).await.is_ok()
}

impl Server {
    /// Answers one request after the other on a connection.
    async fn keep(self, stream: TcpStream, peer: SocketAddr) {
        let mut phase = self.phase.clone();
        let service = service_fn(|request| self.answer(request, peer));
        let http = hyper::server::conn::http1::Builder::new();
        let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
        let closing = async {
            // The sender is gone only with the server, and then nobody waits for the rest.
            if phase
                .wait_for(|phase| *phase == Phase::Closing)
                .await
                .is_err()
            {
                pending::<()>().await;
            }
        };
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = closing => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "a connection failed");
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let mut response = answer(request, &self.hostname, peer, &self.status).await;
        if *self.phase.borrow() > Phase::Open {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        Ok(response)
    }
}

async fn answer(
    request: Request<Incoming>,
    hostname: &str,
    peer: SocketAddr,
    status: &Arc<AtomicU16>,
) -> Response<Full<Bytes>> {
    let number = |name: &str| parameter(request.uri().query().unwrap_or_default(), name);
    match request.uri().path() {
        "/health" => return health(number("set"), number("ms"), status).await,
        "/slow" => {
            let delay = Duration::from_millis(number("ms").unwrap_or(1000));
            sleep(delay.min(MAX_DELAY)).await;
        }
        "/print" => {
            let lines = number("lines").unwrap_or(1).min(MAX_LINES);
            // Whoever reads them may be slow.
            let host = hostname.to_owned();
            let printed = tokio::task::spawn_blocking(move || print(&host, lines)).await;
            if !matches!(printed, Ok(Ok(()))) {
                tracing::warn!("not all lines were printed");
            }
        }
        "/exit" => {
            let code = number("code").unwrap_or(0);
            std::process::exit(i32::try_from(code & 0xff).unwrap_or(1));
        }
        _ => {}
    }
    let host = request
        .headers()
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or("-");
    let mut response = text(format!(
        "{hostname}\nHostname: {hostname}\nRemote: {peer}\nHost: {host}\nRequest: {} {}\n",
        request.method(),
        request.uri()
    ));
    if request.uri().path() == "/status" {
        let code = number("code").and_then(|code| u16::try_from(code).ok());
        let status = code.and_then(|code| StatusCode::from_u16(code).ok());
        *response.status_mut() = status.unwrap_or(StatusCode::BAD_REQUEST);
    }
    response
}

/// Writes lines to standard output, and then says so on standard error.
fn print(hostname: &str, lines: u64) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    for line in 1..=lines {
        writeln!(stdout, "{hostname} prints line {line} of {lines}")?;
    }
    stdout.flush()?;
    writeln!(io::stderr(), "{hostname} has printed {lines} lines")
}

/// Answers as it was told to, so that a check can be watched as it turns.
async fn health(
    set: Option<u64>,
    ms: Option<u64>,
    status: &Arc<AtomicU16>,
) -> Response<Full<Bytes>> {
    let mut response = text("ok\n".to_owned());
    if let Some(set) = set {
        status.store(u16::try_from(set).unwrap_or(500), Ordering::Relaxed);
        let time = ms.map_or(MAX_DELAY, Duration::from_millis).min(MAX_DELAY);
        let status = status.clone();
        tokio::spawn(async move {
            sleep(time).await;
            status.store(200, Ordering::Relaxed);
        });
        return response;
    }
    match status.load(Ordering::Relaxed) {
        0 => sleep(MAX_DELAY).await,
        code => *response.status_mut() = StatusCode::from_u16(code).unwrap_or_default(),
    }
    response
}

fn text(body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

fn parameter(query: &str, name: &str) -> Option<u64> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key == name).then(|| value.parse().ok())?
    })
}

/// What the container is called: its environment says so under every runtime.
fn hostname() -> String {
    env::var("HOSTNAME")
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| {
            rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned()
        })
}

/// A listener on the address, or on all of them: IPv6 with IPv4 in it, and IPv4 alone on a
/// machine that has nothing else.
fn listen(address: Option<IpAddr>, port: u16) -> io::Result<TcpListener> {
    match address {
        Some(address) => bind((address, port).into()),
        None => bind((Ipv6Addr::UNSPECIFIED, port).into())
            .or_else(|_| bind((Ipv4Addr::UNSPECIFIED, port).into())),
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
#[path = "whoami_tests.rs"]
mod tests;
