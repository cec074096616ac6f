//! What the servers on the node's port and on the local socket have in common: settings, the
//! end, and patience with failing accepts.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::http;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::Server;
use tower::util::MapRequestLayer;

use super::connection::{Caller, Connection};
use crate::identity::PeerIdentity;

/// When the system has no descriptor or memory for a connection, trying again at once would
/// only burn the CPU that could free some.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A caller that is gone is noticed after interval plus timeout. It frees memory only, because
/// whether a node lives is told by its heartbeats: far less often than the callers' own pings
/// suffices.
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

/// Serves the connections that `accept` sends into `accepted`, until `shutdown` is ready and
/// the calls under way have finished or had their grace.
///
/// `closing`, which ends the connections, is cancelled then, and also when the future is
/// dropped.
pub(super) async fn run<S, C>(
    routes: Routes,
    accepted: mpsc::Receiver<Connection<S, C>>,
    accept: impl Future<Output = Infallible>,
    closing: CancellationToken,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    C: Clone + Unpin + Send + Sync + 'static,
{
    let _closed_at_the_end = closing.clone().drop_guard();
    let stopping = CancellationToken::new();
    let accepted = ReceiverStream::new(accepted).map(Ok::<_, Infallible>);
    let attach: fn(_) -> _ = attach_identity;
    let serving = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(MAX_STREAMS)
        .layer(MapRequestLayer::new(attach))
        .serve_with_incoming_shutdown(routes, accepted, stopping.clone().cancelled_owned());
    tokio::pin!(serving);
    // A block, so that `accept` and with it the listener are gone before the grace begins.
    {
        tokio::pin!(accept);
        tokio::select! {
            result = &mut serving => return Ok(result?),
            never = accept => match never {},
            () = shutdown => stopping.cancel(),
        }
    }
    if let Ok(result) = tokio::time::timeout(SHUTDOWN_GRACE, &mut serving).await {
        return Ok(result?);
    }
    closing.cancel();
    Ok(serving.await?)
}

/// The next connection. It never gives up: an accept loop that ends on an error leaves a node
/// that runs and cannot be reached.
pub(super) async fn next<T>(
    mut poll_accept: impl FnMut(&mut Context<'_>) -> Poll<io::Result<T>>,
) -> T {
    let mut failing = false;
    loop {
        let error = match poll_fn(&mut poll_accept).await {
            Ok(connection) => return connection,
            Err(error) => error,
        };
        if is_of_one_connection(&error) {
            continue;
        }
        if !failing {
            tracing::warn!(%error, "cannot accept connections, trying again");
        }
        failing = true;
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
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

/// Makes the caller's identity an extension of its own, for who needs nothing else.
fn attach_identity(mut request: http::Request<Body>) -> http::Request<Body> {
    let caller = request.extensions().get::<Caller>();
    if let Some(identity) = caller.and_then(|caller| caller.identity.clone()) {
        request.extensions_mut().insert::<PeerIdentity>(identity);
    }
    request
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn accepting_survives_every_error() {
        let mut results = VecDeque::from([
            Err(io::ErrorKind::ConnectionAborted.into()),
            Err(io::ErrorKind::ConnectionReset.into()),
            Err(io::Error::from_raw_os_error(24)), // EMFILE
            Err(io::Error::from_raw_os_error(12)), // ENOMEM
            Ok("connection"),
        ]);
        let start = Instant::now();
        let found = next(|_| Poll::Ready(results.pop_front().unwrap())).await;
        assert_eq!(found, "connection");
        // It paused for the two that would come again at once.
        assert!(start.elapsed() >= 2 * ACCEPT_PAUSE);
    }
}
