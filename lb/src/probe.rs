//! Asks an ejected endpoint, again and again, whether it takes connections.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rustix::io::Errno;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    health::{Outcome, probe_delay},
    port::{Port, ProbeTarget},
    proxy,
    random::random,
    shared::Shared,
    socket::{ConnectError, reset_when_closed},
};

/// Within this time a probe's handshake must complete. Longer than a client's
/// first try, for nobody waits: a slow endpoint is better than none.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Probes until the endpoint is restored, drained or removed.
pub(crate) fn spawn(port: Arc<Port>, shared: Arc<Shared>, target: ProbeTarget) {
    let abort = shared.abort.clone();
    let probes = shared.probes.clone();
    let runtime = shared.runtime.clone();
    let task = abort.run_until_cancelled_owned(async move {
        probe(&port, &shared, &target).await;
    });
    probes.spawn_on(task, &runtime);
}

async fn probe(port: &Port, shared: &Shared, target: &ProbeTarget) {
    let timeouts = &shared.timeouts;
    let mut failures = 0;
    loop {
        let delay = probe_delay(failures, timeouts.probe_min, timeouts.probe_max, random());
        tokio::time::sleep(delay).await;
        if !port.wants_probe(target) {
            return;
        }
        let greeting = port.proxy_protocol(target.endpoint.key);
        let outcome = match connect(target.endpoint.address, greeting, PROBE_TIMEOUT).await {
            Ok(()) => Some(Outcome::Connected),
            Err(error) => error.outcome(),
        };
        failures = match outcome {
            Some(Outcome::Connected) => 0,
            Some(Outcome::Refused | Outcome::Unanswered) | None => failures + 1,
        };
        if !port.wants_probe(target) {
            return;
        }
        if let Some(outcome) = outcome {
            // An endpoint that is ejected already cannot be ejected anew.
            let _ = port.observe(target.endpoint.key, outcome, "");
        }
    }
}

/// Connects and ends the connection at once. Who expects a PROXY header gets one, of the version
/// `greeting`, and a connection that ends in order.
pub(crate) async fn connect(
    address: SocketAddr,
    greeting: Option<proxy::Version>,
    timeout: Duration,
) -> Result<(), ConnectError> {
    let mut stream = tokio::time::timeout(timeout, TcpStream::connect(address))
        .await
        .map_err(|_| ConnectError::TimedOut(timeout))?
        .map_err(|error| match Errno::from_io_error(&error) {
            Some(errno) => errno.into(),
            None => ConnectError::Unreachable(error),
        })?;
    if stream.local_addr().is_ok_and(|local| local == address) {
        // Nobody listens there: the kernel has connected the socket to itself.
        return Err(ConnectError::Refused);
    }
    match greeting {
        // A few bytes fit into any socket's buffer, so that nothing waits here. An endpoint that
        // has ended it meanwhile has accepted it all the same.
        Some(version) => {
            let _ = stream.write_all(proxy::own_header(version)).await;
        }
        // So that probes leave no TIME_WAIT; without it they leave one. A reset behind a header
        // could be what the endpoint sees first.
        None => {
            let _ = reset_when_closed(&stream);
        }
    }
    Ok(())
}
