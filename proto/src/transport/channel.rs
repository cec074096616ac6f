//! Channels to other nodes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use swarmlet_core::model::Role;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::IdentityStore;
use crate::tls;

/// A connection to a node of the same network that is not up after this will not come up: two
/// lost SYNs are 3 s, one is 1 s.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);

/// A manager that lost its power is noticed after interval plus timeout. The sum must leave an
/// agent the time to turn to another manager before 4 s without a heartbeat make its node
/// unknown. A ping a second costs nothing next to the heartbeats.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// A channel to the node of the expected role at an address.
///
/// It connects with the first call, and again after each loss, every time with the identity
/// of the moment. Calls fail with `Unavailable` while there is no connection; a caller that
/// cannot wait sets a deadline on the call.
#[must_use]
pub fn channel(address: SocketAddr, identities: &IdentityStore, expected: Role) -> Channel {
    let identities = identities.clone();
    let connector = service_fn(move |_| {
        let config = identities.client_config();
        async move {
            let stream = dial(
                address,
                config,
                tls::server_name(expected),
                CONNECT_DEADLINE,
            );
            stream.await.map(TokioIo::new)
        }
    });
    endpoint().connect_with_connector_lazy(connector)
}

/// How all channels behave. The address is the connector's affair; the text here becomes the
/// authority of the requests, which nobody reads.
pub(super) fn endpoint() -> Endpoint {
    Endpoint::from_static("http://swarmlet")
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
}

/// Connects and shakes hands. Errors name the address.
pub(super) async fn dial(
    address: SocketAddr,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    deadline: Duration,
) -> io::Result<TlsStream<TcpStream>> {
    let connect = async {
        let stream = TcpStream::connect(address).await?;
        // Small messages in both directions: waiting to fill packets would only delay them.
        stream.set_nodelay(true)?;
        TlsConnector::from(config).connect(name, stream).await
    };
    match tokio::time::timeout(deadline, connect).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(io::Error::new(
            error.kind(),
            ConnectError {
                address,
                source: error,
            },
        )),
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer from {address} within {deadline:?}"),
        )),
    }
}

/// Says which of several managers it was that could not be reached.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to {address}")]
struct ConnectError {
    address: SocketAddr,
    source: io::Error,
}
