//! One attempt to connect, and the other side of it.

use std::io::{self, ErrorKind};
use std::time::Duration;

use swarmlet_core::model::Closed;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::targets::Target;

/// How long an attempt waits for its answer. The kernel would send the first packet again
/// after a second; a new attempt does the same and can be told apart.
const DEADLINE: Duration = Duration::from_secs(1);

/// Without descriptors the next accept would fail at once, too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How an attempt ended.
pub(super) struct Finished {
    pub(super) target: Target,
    pub(super) begun: Instant,
    pub(super) outcome: Result<(), Closed>,
}

/// Begins an attempt, in a task of its own that ends after a second at the latest.
pub(super) fn begin(target: Target, results: mpsc::Sender<Finished>) {
    tokio::spawn(async move {
        let begun = Instant::now();
        let connected = timeout(DEADLINE, TcpStream::connect(target.address)).await;
        let outcome = match connected {
            Ok(Ok(stream)) => {
                // A reset leaves no TIME_WAIT on either side. Where it cannot be had, an
                // ordinary end does as well.
                if let Err(error) = stream.set_zero_linger() {
                    tracing::debug!(%error, "an attempt ends without a reset");
                }
                Ok(())
            }
            Ok(Err(error)) => match judge(&error) {
                Some(closed) => Err(closed),
                // It says something of this node and nothing of the other.
                None => {
                    tracing::debug!(%error, address = %target.address, "no attempt could be made");
                    return;
                }
            },
            Err(_) => Err(Closed::Dropped),
        };
        // Only at the end of the agent nobody waits for it.
        let _ = results
            .send(Finished {
                target,
                begun,
                outcome,
            })
            .await;
    });
}

/// What an error of a connect says of the way to the other node; nothing where this node has no
/// descriptor or no port for it.
fn judge(error: &io::Error) -> Option<Closed> {
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Some(Closed::Refused),
        ErrorKind::TimedOut => Some(Closed::Dropped),
        ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::NetworkDown
        | ErrorKind::PermissionDenied => Some(Closed::Unreachable),
        _ => None,
    }
}

/// Answers attempts of other nodes, by accepting them.
pub(crate) async fn answer(listener: std::net::TcpListener, stop: CancellationToken) {
    let listener = listener
        .set_nonblocking(true)
        .and_then(|()| TcpListener::from_std(listener));
    let listener = match listener {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(%error, "other nodes' attempts on the task ports are not answered");
            return;
        }
    };
    let accepting = async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(stream),
                Err(_) => sleep(ACCEPT_PAUSE).await,
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = accepting => {}
    }
}
