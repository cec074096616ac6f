//! Accepts clients on one listening socket and sees each through to its end.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::OwnedSemaphorePermit,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{
    connect::reach,
    relay::relay,
    socket::{AcceptAdvice, advise},
};
use crate::{port::Port, shared::Shared};

/// Pause after an error that trying at once would only repeat. Long enough not
/// to spin, short enough that nobody gives up on the connect meanwhile.
const PAUSE: Duration = Duration::from_millis(100);

/// A listening socket at work.
#[derive(Debug)]
pub(crate) struct AcceptLoop {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl AcceptLoop {
    /// Begins to accept. `address` is where the listener is bound.
    pub(crate) fn start(
        listener: TcpListener,
        address: SocketAddr,
        port: Arc<Port>,
        shared: Arc<Shared>,
    ) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(accept(listener, port, shared, stop.clone()));
        Self {
            address,
            stop,
            task,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the listening socket; it is closed when this returns. Accepted
    /// connections go on.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(address = %self.address, %error, "accept loop ended badly");
        }
    }
}

async fn accept(
    listener: TcpListener,
    port: Arc<Port>,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((client, _)) => {
                // Waiting here, with one connection in hand, leaves the others
                // in the kernel's queue until there is room for them.
                let permit = tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    permit = Arc::clone(&shared.capacity).acquire_owned() => permit,
                };
                let Ok(permit) = permit else { return };
                port.count_accepted();
                spawn_serve(client, permit, &port, &shared);
            }
            Err(error) => match advise(&error) {
                AcceptAdvice::AgainAtOnce => {}
                AcceptAdvice::Pause => {
                    tracing::warn!(%error, "cannot accept, pausing");
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(PAUSE) => {}
                    }
                }
            },
        }
    }
}

fn spawn_serve(
    client: TcpStream,
    permit: OwnedSemaphorePermit,
    port: &Arc<Port>,
    shared: &Arc<Shared>,
) {
    let abort = shared.abort.clone();
    let port = Arc::clone(port);
    let served = Arc::clone(shared);
    shared
        .connections
        .spawn(abort.run_until_cancelled_owned(async move {
            serve(client, &port, &served).await;
            drop(permit);
        }));
}

async fn serve(client: TcpStream, port: &Arc<Port>, shared: &Arc<Shared>) {
    let Some((endpoint, lease)) = reach(port, shared).await else {
        port.count_unserved();
        return;
    };
    if let Err(error) = relay(&client, &endpoint, &lease, &shared.timeouts).await {
        tracing::debug!(
            port = lease.endpoint().port,
            endpoint = lease.endpoint().id,
            %error,
            "connection reset"
        );
    }
    // The sockets go before the lease: an endpoint is drained once nothing of
    // its connections is left.
    drop((client, endpoint));
}
