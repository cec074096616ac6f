//! `lb status`: what a balancer listens on, and how its endpoints are.

use std::time::Duration;

use swarmlet_core::model::Timestamp;
use swarmlet_lb::status::{
    ConnectTimes, EndpointCondition, EndpointStatus, ListenerStatus, Status, Traffic,
};

use super::{ago, columns};

const HEADERS: [&str; 11] = [
    "PORT",
    "SERVICE",
    "ENDPOINT",
    "ADDRESS",
    "STATE",
    "ACTIVE",
    "TOTAL",
    "IN",
    "OUT",
    "FAILED",
    "CONNECT P50/P99",
];

/// Characters of an endpoint's name: as many as of other identifiers.
const NAME_LEN: usize = 12;

/// The one that listens, with a line for each port and each endpoint; then those that finish
/// their connections.
pub(crate) fn balancers(generations: &[Status], now: Timestamp) -> String {
    let mut text = String::new();
    for status in generations {
        let active: u64 = status
            .listeners
            .iter()
            .map(|l| l.traffic.active)
            .sum::<u64>()
            + status.removed.iter().map(|r| r.active).sum::<u64>();
        let what = if status.shutting_down {
            "finishes its connections".to_owned()
        } else {
            format!("listens by table {}", status.table_version)
        };
        text.push_str(&format!(
            "Process {} (version {}, started {} ago) {what}: {active} open\n",
            status.pid,
            status.program,
            since(status.started_at_ms, now),
        ));
    }
    if let Some(current) = generations.first()
        && !current.listeners.is_empty()
    {
        let rows: Vec<_> = current
            .listeners
            .iter()
            .flat_map(|listener| listener_rows(listener, now))
            .collect();
        text.push('\n');
        text.push_str(&columns(&HEADERS, &rows));
    }
    text
}

fn listener_rows(listener: &ListenerStatus, now: Timestamp) -> Vec<Vec<String>> {
    let state = match &listener.error {
        Some(reason) => format!("not bound: {reason}"),
        None if listener.unserved > 0 => format!("listening, {} unserved", listener.unserved),
        None => "listening".to_owned(),
    };
    let mut rows = vec![row(
        [
            listener.port.to_string(),
            listener.service.clone(),
            String::new(),
            String::new(),
            state,
        ],
        &listener.traffic,
        &listener.connect_times,
    )];
    rows.extend(listener.endpoints.iter().map(|endpoint| {
        row(
            [
                String::new(),
                String::new(),
                endpoint.id.chars().take(NAME_LEN).collect(),
                endpoint.address.to_string(),
                condition(endpoint, now),
            ],
            &endpoint.traffic,
            &endpoint.connect_times,
        )
    }));
    rows
}

fn condition(endpoint: &EndpointStatus, now: Timestamp) -> String {
    let state = match endpoint.condition {
        EndpointCondition::Ready => "ready",
        EndpointCondition::Draining => "draining",
        EndpointCondition::Ejected => "ejected",
    };
    let since = since(endpoint.since_ms, now);
    if endpoint.reason.is_empty() {
        format!("{state} {since}")
    } else {
        format!("{state} {since} ({})", endpoint.reason)
    }
}

fn row(first: [String; 5], traffic: &Traffic, times: &ConnectTimes) -> Vec<String> {
    let quantile = |share| times.quantile_us(share).map_or("-".to_owned(), duration);
    let mut row = first.to_vec();
    row.extend([
        traffic.active.to_string(),
        traffic.connections.to_string(),
        bytes(traffic.bytes_to_endpoint),
        bytes(traffic.bytes_to_client),
        traffic.connect_failures.to_string(),
        format!("{}/{}", quantile(0.5), quantile(0.99)),
    ]);
    row
}

fn since(then_ms: u64, now: Timestamp) -> String {
    ago(Duration::from_millis(now.0.saturating_sub(then_ms)))
}

/// Three digits at most, in powers of 1000, as Docker prints traffic.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut unit = 0;
    let mut scale: u64 = 1;
    while count / scale >= 1000 && unit + 1 < UNITS.len() {
        scale *= 1000;
        unit += 1;
    }
    let whole = count / scale;
    if unit == 0 || whole >= 100 {
        return format!("{whole}{}", UNITS[unit]);
    }
    let tenths = count % scale * 10 / scale;
    format!("{whole}.{tenths}{}", UNITS[unit])
}

fn duration(us: u64) -> String {
    match us {
        0..1_000 => format!("{us}us"),
        1_000..1_000_000 if us.is_multiple_of(1_000) => format!("{}ms", us / 1_000),
        1_000..1_000_000 => format!("{}.{}ms", us / 1_000, us % 1_000 / 100),
        _ => format!("{}s", us / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_short() {
        let all = [
            0,
            999,
            1_000,
            1_260,
            99_990,
            123_456,
            5_000_000_000,
            u64::MAX,
        ]
        .map(bytes);
        assert_eq!(
            all,
            [
                "0B", "999B", "1.0kB", "1.2kB", "99.9kB", "123kB", "5.0GB", "18.4EB"
            ]
        );
        let all = ConnectTimes::BOUNDS_US.map(duration);
        assert_eq!(
            all.join(" "),
            "100us 250us 500us 1ms 2.5ms 5ms 10ms 25ms 50ms 100ms 250ms 500ms 1s"
        );
    }

    fn traffic(active: u64) -> Traffic {
        Traffic {
            active,
            connections: 1_000,
            connect_failures: 2,
            bytes_to_endpoint: 123_456,
            bytes_to_client: 7_890_000,
        }
    }

    fn endpoint(id: &str, condition: EndpointCondition, reason: &str) -> EndpointStatus {
        EndpointStatus {
            id: id.to_owned(),
            address: "10.0.0.1:20000".parse().unwrap(),
            weight: 1,
            condition,
            since_ms: 40_000,
            reason: reason.to_owned(),
            traffic: traffic(1),
            connect_times: ConnectTimes {
                counts: vec![0, 98, 0, 0, 2],
                sum_us: 1,
            },
        }
    }

    #[test]
    fn each_port_and_endpoint_is_a_line() {
        let listener = |port, error: Option<&str>, endpoints| ListenerStatus {
            port,
            service: "ng".to_owned(),
            bound: Vec::new(),
            error: error.map(str::to_owned),
            accepted: 1_000,
            unserved: 0,
            refused: 0,
            shed: 0,
            traffic: traffic(2),
            connect_times: ConnectTimes::default(),
            endpoints,
        };
        let current = Status {
            table_version: 57,
            program: "1.2.3".to_owned(),
            program_file: None,
            pid: 100,
            started_at_ms: 40_000,
            shutting_down: false,
            buffered: 0,
            access_log_dropped: 0,
            listeners: vec![
                listener(
                    80,
                    None,
                    vec![
                        endpoint("0123456789abcdefghi", EndpointCondition::Ready, ""),
                        endpoint("b", EndpointCondition::Ejected, "connection refused"),
                    ],
                ),
                listener(81, Some("another program listens there"), vec![]),
            ],
            removed: Vec::new(),
        };
        let before = Status {
            pid: 99,
            shutting_down: true,
            buffered: 0,
            access_log_dropped: 0,
            listeners: Vec::new(),
            ..current.clone()
        };
        let found = balancers(&[current, before], Timestamp(100_000));
        let expected = "\
Process 100 (version 1.2.3, started About a minute ago) listens by table 57: 4 open
Process 99 (version 1.2.3, started About a minute ago) finishes its connections: 0 open

PORT   SERVICE   ENDPOINT       ADDRESS          STATE                                         ACTIVE   TOTAL   IN      OUT     FAILED   CONNECT P50/P99
80     ng                                        listening                                     2        1000    123kB   7.8MB   2        -/-
                 0123456789ab   10.0.0.1:20000   ready About a minute                          1        1000    123kB   7.8MB   2        250us/2.5ms
                 b              10.0.0.1:20000   ejected About a minute (connection refused)   1        1000    123kB   7.8MB   2        250us/2.5ms
81     ng                                        not bound: another program listens there      2        1000    123kB   7.8MB   2        -/-
";
        assert_eq!(found, expected, "{found}");
    }
}
