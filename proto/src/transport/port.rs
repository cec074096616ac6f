//! The server on the node's port: TLS, and callers by their certificates.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use super::IdentityStore;
use super::connection::{Caller, Connection};
use super::server::{self, ServeError};
use crate::clock;
use crate::identity::PeerIdentity;

/// A handshake of a caller that means it takes milliseconds.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);

/// Handshakes under way at a time. A thousand nodes that reconnect together are served in a
/// few rounds; without a limit they would all be slow at once, and time out.
const MAX_HANDSHAKES: usize = 256;

/// How long a connection lasts that was made with a certificate that has ended: it is for asking
/// for another one.
const RENEWAL: Duration = Duration::from_secs(60);

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
    // Connections wait here for a moment only, until the HTTP server takes them.
    let (sender, accepted) = mpsc::channel(1);
    let closing = CancellationToken::new();
    let accept = accept(listener, identities, closing.clone(), sender);
    server::run(routes, accepted, accept, closing, shutdown).await
}

type Accepted = Connection<TlsStream<TcpStream>, Caller>;

/// Accepts for ever. Each handshake is a task of its own, so that a caller who stalls in it
/// holds nobody up.
async fn accept(
    listener: TcpListener,
    identities: IdentityStore,
    closing: CancellationToken,
    sender: mpsc::Sender<Accepted>,
) -> Infallible {
    let permits = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    let mut handshakes = JoinSet::new();
    loop {
        while handshakes.try_join_next().is_some() {}
        let permit = permits.clone().acquire_owned().await;
        let permit = permit.expect("nobody closes the semaphore");
        let (stream, address) = server::next(|context| listener.poll_accept(context)).await;
        let (identities, closing, sender) = (identities.clone(), closing.clone(), sender.clone());
        handshakes.spawn(async move {
            let greeted = greet(stream, address, &identities, closing);
            match tokio::time::timeout(HANDSHAKE_DEADLINE, greeted).await {
                // Sending fails only while the server ends, and the connection with it.
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
    let identity = match stream.get_ref().1.peer_certificates() {
        None | Some([]) => None,
        Some(chain) => Some(PeerIdentity::from_certificates(chain).map_err(io::Error::other)?),
    };
    let Some(peer) = &identity else {
        let caller = Caller { address, identity };
        return Ok(Connection::new(stream, caller, closing.cancelled_owned()));
    };
    if peer.cluster != identities.identity().cluster {
        return Err(io::Error::other(format!(
            "node {} belongs to cluster {}",
            peer.node, peer.cluster
        )));
    }
    let removed = identities.connection_of(&peer.node);
    let left = clock::until(peer.not_after);
    let expired = tokio::time::sleep(if left.is_zero() { RENEWAL } else { left });
    let end = async move {
        tokio::select! {
            () = closing.cancelled() => {}
            () = removed.cancelled() => {}
            () = expired => {}
        }
    };
    Ok(Connection::new(stream, Caller { address, identity }, end))
}
