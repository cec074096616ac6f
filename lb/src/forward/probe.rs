//! Asks an ejected endpoint, again and again, whether it takes connections.

use std::{sync::Arc, time::Duration};

use super::socket::connect;
use crate::{
    health::{Outcome, probe_delay},
    port::{Port, ProbeTarget},
    random::random,
    shared::Shared,
};

/// Within this time a probe's handshake must complete. Longer than a client's
/// first try, for nobody waits: a slow endpoint is better than none.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Probes until the endpoint is restored, drained or removed.
pub(super) fn spawn(port: Arc<Port>, shared: Arc<Shared>, target: ProbeTarget) {
    let abort = shared.abort.clone();
    let probes = shared.probes.clone();
    probes.spawn(abort.run_until_cancelled_owned(async move {
        probe(&port, &shared, &target).await;
    }));
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
        let outcome = match connect(target.endpoint.address, PROBE_TIMEOUT).await {
            // Dropping the stream resets it, so that probes leave no TIME_WAIT.
            Ok(_stream) => Some(Outcome::Connected),
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
