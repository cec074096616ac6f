//! The server of a node's port: TLS, callers by their certificates, and an accept loop that
//! goes on whatever happens to single connections.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::http;
use swarmlet_core::model::Timestamp;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tower::util::MapRequestLayer;

use super::connection::{Caller, Connection};
use super::store::IdentityStore;
use crate::identity::PeerIdentity;

/// A handshake of a caller that means it takes milliseconds.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);

/// Handshakes under way at a time. A thousand nodes that reconnect together are served in a
/// few rounds; without a limit they would all be slow at once, and time out.
const MAX_HANDSHAKES: usize = 256;

/// When the system has no descriptor or memory for a connection, trying again at once would
/// only burn the CPU that could free some.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A caller that is gone is noticed after interval plus timeout. It frees memory only, whether
/// a node lives is told by its heartbeats: half as often as the callers' own pings suffices.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Calls at a time in one connection. Followers pass the calls of all their clients on through
/// one; the usual 200 would let watchers of services shut out everybody else.
const MAX_STREAMS: u32 = 4096;

/// At the end, calls under way have this long to finish. Sessions and watches never finish by
/// themselves, and their callers turn to another manager when they are cut.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

/// The server cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The HTTP server failed as a whole.
    #[error("the HTTP server failed")]
    Http(#[from] tonic::transport::Error),
    /// The socket of the command line cannot be made.
    #[error("cannot listen on socket {path}")]
    Socket {
        /// Where.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Serves the routes until `shutdown` is ready, and returns once every connection is closed.
///
/// Each request carries a [`Caller`] as an extension and, where the caller has a certificate,
/// its [`PeerIdentity`]. A connection ends when the caller's certificate does and when its
/// node is [disconnected](IdentityStore::disconnect). Dropping the future ends everything at
/// once.
///
/// # Errors
/// [`ServeError::Http`]; errors of single connections are logged at most.
pub async fn serve(
    listener: TcpListener,
    identities: IdentityStore,
    routes: Routes,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let stopping = CancellationToken::new();
    let closing = CancellationToken::new();
    let _close_when_dropped = closing.clone().drop_guard();
    // Connections wait here for a moment only, until the HTTP server takes them.
    let (sender, accepted) = mpsc::channel(1);
    let accepted = ReceiverStream::new(accepted).map(Ok::<_, Infallible>);
    let serving = server()
        .layer(MapRequestLayer::new(attach_identity as fn(_) -> _))
        .serve_with_incoming_shutdown(routes, accepted, stopping.clone().cancelled_owned());
    tokio::pin!(serving);
    tokio::select! {
        result = &mut serving => return Ok(result?),
        never = accept(listener, &identities, &closing, sender) => match never {},
        () = shutdown => stopping.cancel(),
    }
    if let Ok(result) = tokio::time::timeout(SHUTDOWN_GRACE, &mut serving).await {
        return Ok(result?);
    }
    closing.cancel();
    Ok(serving.await?)
}

/// What servers on the port and on the socket have in common.
pub(super) fn server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(MAX_STREAMS)
}

/// Makes the caller's identity an extension of its own, for who needs nothing else.
fn attach_identity<B>(mut request: http::Request<B>) -> http::Request<B> {
    let caller = request.extensions().get::<Caller>();
    if let Some(identity) = caller.and_then(|caller| caller.identity.clone()) {
        request.extensions_mut().insert::<PeerIdentity>(identity);
    }
    request
}

type Accepted = Connection<TlsStream<TcpStream>>;

/// Accepts for ever. Each handshake is a task of its own, so that a caller who stalls in it
/// holds nobody up.
async fn accept(
    listener: TcpListener,
    identities: &IdentityStore,
    closing: &CancellationToken,
    sender: mpsc::Sender<Accepted>,
) -> Infallible {
    let permits = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    let mut handshakes = JoinSet::new();
    let mut failing = false;
    loop {
        while handshakes.try_join_next().is_some() {}
        let Ok(permit) = permits.clone().acquire_owned().await else {
            unreachable!("the semaphore is never closed");
        };
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) => {
                if !failing {
                    tracing::warn!(%error, "cannot accept connections, trying again");
                }
                failing = true;
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        failing = false;
        let (identities, closing, sender) = (identities.clone(), closing.clone(), sender.clone());
        handshakes.spawn(async move {
            let greeted = greet(stream, address, &identities, closing);
            match tokio::time::timeout(HANDSHAKE_DEADLINE, greeted).await {
                // It fails only while the server ends, and the connection with it.
                Ok(Ok(connection)) => drop(sender.send(connection).await),
                Ok(Err(error)) => tracing::debug!(%address, %error, "refused a connection"),
                Err(_) => tracing::debug!(%address, "no handshake within the deadline"),
            }
            drop(permit);
        });
    }
}

/// Shakes hands, finds out who it is, and ties the connection to the caller's credential.
async fn greet(
    stream: TcpStream,
    address: SocketAddr,
    identities: &IdentityStore,
    closing: CancellationToken,
) -> io::Result<Accepted> {
    stream.set_nodelay(true)?;
    let acceptor = TlsAcceptor::from(identities.server_config());
    let stream = acceptor.accept(stream).await?;
    let refused = |reason: String| io::Error::new(io::ErrorKind::PermissionDenied, reason);
    let identity = match stream.get_ref().1.peer_certificates() {
        None | Some([]) => None,
        Some(chain) => Some(
            PeerIdentity::from_certificates(chain).map_err(|error| refused(error.to_string()))?,
        ),
    };
    let Some(peer) = &identity else {
        let caller = Caller { address, identity };
        return Ok(Connection::new(stream, caller, closing.cancelled_owned()));
    };
    if peer.cluster != identities.identity().cluster {
        return Err(refused(format!(
            "node {} belongs to cluster {}",
            peer.node, peer.cluster
        )));
    }
    let removed = identities.connection_of(&peer.node);
    let expired = tokio::time::sleep(time_until(peer.not_after));
    let end = async move {
        tokio::select! {
            () = closing.cancelled() => {}
            () = removed.cancelled() => {}
            () = expired => {}
        }
    };
    Ok(Connection::new(stream, Caller { address, identity }, end))
}

fn time_until(moment: Timestamp) -> Duration {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Duration::from_millis(moment.0).saturating_sub(now)
}

/// Whether the error came with a connection that broke before it was accepted, and says
/// nothing about the next.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
