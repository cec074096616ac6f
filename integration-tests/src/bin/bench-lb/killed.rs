//! An endpoint that is killed under load: who of the clients loses a connection.
//!
//! The endpoints are processes of their own; one after the other is ended by SIGKILL while
//! clients make a connection for each request, and started again. Whether a client's failure was
//! one before the first byte is told by two who know:
//!
//! - the balancer counts the connections for which it could connect to no endpoint (`unserved`);
//! - a connection that was begun after the process had ended cannot have been with it: whatever
//!   fails of those should have gone to another endpoint.
//!
//! What is left are the requests that the process had, or that waited in the queues of its
//! sockets: those in flight.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use swarmlet_integration_tests::{
    bench::{Route, monotonic_ns},
    swarmlet_binary,
};

use crate::{
    Bench,
    cell::{Cell, Figure, Layout, Workload},
    contender::{Contender, Running},
    measure::{ENDPOINTS, Servers, Setup, WARM_UP_MS, number, report},
    results::{Results, Sample},
};

/// The name of this measurement among the cells.
pub(crate) const CELL: &str = "SIGKILL";

/// Connections at a time.
const CLIENTS: usize = 32;

/// How long a killed endpoint is away, and how long it is back before the next one is killed:
/// both more than the balancer takes to find out.
const AWAY: Duration = Duration::from_millis(300);
const BACK: Duration = Duration::from_millis(1_200);

/// Time that the processes take to start, on a busy machine.
const ROOM: Duration = Duration::from_millis(500);

/// Kills each of the endpoints once.
pub(crate) fn round(bench: &mut Bench<'_>, round: u32, results: &mut Results) -> Result<()> {
    let cell = Cell {
        workload: Workload::Short {
            client_closes: false,
        },
        layout: Layout::F,
        route: Route::Loopback,
    };
    let setup = Setup::new(bench, cell)?;
    let sample = measure(&setup).with_context(|| format!("{CELL}, round {}", round + 1))?;
    results.add(CELL.into(), Contender::Swarmlet, round, sample);
    Ok(())
}

fn measure(setup: &Setup<'_>) -> Result<Sample> {
    let contender = Contender::Swarmlet;
    let mut servers = Servers::start_singly(setup)?;
    let _balancer = Running::start(setup, contender)?;
    let window = u64::try_from(((AWAY + BACK + ROOM) * u32::from(ENDPOINTS)).as_millis())?;
    let begun = Instant::now();
    let client = setup.client_for(contender, setup.small_port(), &["short"], CLIENTS, window)?;
    let mut killed = Vec::new();
    thread::sleep(Duration::from_millis(WARM_UP_MS));
    for number in 0..usize::from(ENDPOINTS) {
        let from = monotonic_ns();
        servers.kill(number)?;
        killed.push((from, monotonic_ns()));
        thread::sleep(AWAY);
        servers.revive(setup, number)?;
        thread::sleep(BACK);
    }
    ensure!(
        begun.elapsed() < Duration::from_millis(window),
        "the load ended before the last endpoint was killed"
    );
    let report = report(client)?;
    let unserved = status(setup)?;
    eprintln!(
        "endpoints killed: {}, {unserved} unserved",
        report["failed"]
    );
    figures(&report, &killed, unserved)
}

/// The clients' failures, by what the balancer and the times of the kills say of them.
fn figures(report: &Value, killed: &[(u64, u64)], unserved: u64) -> Result<Sample> {
    let failed: u64 = report["failed"]
        .as_object()
        .context("no failures in the report")?
        .values()
        .filter_map(Value::as_u64)
        .sum();
    let begun: Vec<u64> = report["failed_begun_ns"]
        .as_array()
        .context("no moments in the report")?
        .iter()
        .filter_map(Value::as_u64)
        .collect();
    ensure!(
        failed == begun.len() as u64,
        "{failed} failures and {} moments: too many to tell apart",
        begun.len()
    );
    // At each kill those may fail that are with the endpoint at that moment; one that takes longer
    // than the pause between two kills does not exist here.
    let in_flight = |begun: &&u64| {
        let died = killed.iter().map(|(_, died)| *died);
        let next = died.into_iter().find(|died| *begun < died);
        next.is_some_and(|died| died - **begun < BACK.as_nanos() as u64)
    };
    let in_flight = begun.iter().filter(in_flight).count() as u64;
    let before = (failed - in_flight).max(unserved);
    let mut sample = Sample::new();
    sample.insert(Figure::FailedBefore, before as f64);
    sample.insert(
        Figure::FailedInFlight,
        in_flight.saturating_sub(unserved) as f64,
    );
    sample.insert(Figure::Rate, number(report, "per_second")?);
    Ok(sample)
}

/// Connections without an endpoint, as the balancer counts them.
fn status(setup: &Setup<'_>) -> Result<u64> {
    let binary = swarmlet_binary()?.display().to_string();
    let control = setup.control().display().to_string();
    let line = ["lb", "status", "--control", &control, "--format", "json"];
    let output = setup.testbed.balancer().run(&binary, &line)?.success()?;
    let status: Value = serde_json::from_str(&output)?;
    let listeners = status["listeners"].as_array().context("no listeners")?;
    // Behind the other port there is nobody here.
    let listener = listeners
        .iter()
        .find(|listener| listener["port"] == setup.small_port());
    listener
        .and_then(|listener| listener["unserved"].as_u64())
        .context("no count of the unserved")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn failures_are_told_apart_by_when_they_began() {
        let second = 1_000_000_000;
        let killed = [
            (10 * second, 10 * second + 5_000),
            (20 * second, 20 * second + 5_000),
        ];
        let check = |begun: &[u64], unserved, expected: (f64, f64)| {
            let report = json!({
                "failed": {"reset": begun.len()},
                "failed_begun_ns": begun,
                "per_second": 7.0,
            });
            let sample = figures(&report, &killed, unserved).unwrap();
            let found = (
                sample[&Figure::FailedBefore],
                sample[&Figure::FailedInFlight],
            );
            assert_eq!(found, expected, "{begun:?}");
        };
        check(&[], 0, (0.0, 0.0));
        // Just before a kill, and while the process was dying.
        check(&[10 * second - 1_000, 20 * second + 4_000], 0, (0.0, 2.0));
        // After it had died, long before anything was killed, and after everything.
        check(
            &[10 * second + 6_000, 3 * second, 21 * second],
            0,
            (3.0, 0.0),
        );
        // The balancer knows better.
        check(&[10 * second - 1_000], 1, (1.0, 0.0));
        let too_many = json!({"failed": {"reset": 2}, "failed_begun_ns": [1], "per_second": 7.0});
        assert!(figures(&too_many, &killed, 0).is_err());
    }
}
