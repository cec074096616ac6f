//! `lb status`: what a balancer listens on, and how its endpoints are.

mod json;

use std::time::Duration;

use swarmlet_core::model::Timestamp;
use swarmlet_lb::access::Format;
use swarmlet_lb::settings::InForce;
use swarmlet_lb::status::{
    ConnectTimes, EndpointCondition, EndpointStatus, ListenerStatus, RemovedEndpoint, Status,
    Traffic,
};

use super::{ago, columns};

pub(crate) use json::balancers_json;

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

/// A line for each process, the one that listens first; by what settings that one works; and a
/// line for each of its ports and endpoints.
pub(crate) fn balancers(generations: &[Status], now: Timestamp) -> String {
    let mut text: String = generations.iter().map(|one| process(one, now)).collect();
    let Some(current) = generations.first() else {
        return text;
    };
    text.push_str(&settings(current));
    let mut rows: Vec<_> = current
        .listeners
        .iter()
        .flat_map(|listener| listener_rows(listener, &current.removed, now))
        .collect();
    let unpublished = current.removed.iter().filter(|removed| {
        let mut listeners = current.listeners.iter();
        !listeners.any(|listener| listener.port == removed.port)
    });
    rows.extend(unpublished.map(|removed| removed_row(removed.port.to_string(), removed)));
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&columns(&HEADERS, &rows));
    }
    text
}

fn process(status: &Status, now: Timestamp) -> String {
    let of_ports = |count: fn(&ListenerStatus) -> u64| status.listeners.iter().map(count).sum();
    let active: u64 = of_ports(|listener| listener.traffic.active);
    let accepted: u64 = of_ports(|listener| listener.accepted);
    let unserved: u64 = of_ports(|listener| listener.unserved);
    let refused: u64 = of_ports(|listener| listener.refused);
    let shed: u64 = of_ports(|listener| listener.shed);
    let removed: u64 = status.removed.iter().map(|removed| removed.active).sum();
    let what = if status.shutting_down {
        "finishes its connections".to_owned()
    } else {
        format!("listens by table {}", status.table_version)
    };
    format!(
        "Process {} (version {}, started {} ago) {what}: {} open, {accepted} accepted, \
         {unserved} unserved, {refused} refused, {shed} shed\n",
        status.pid,
        status.program,
        since(status.started_at_ms, now),
        active + removed,
    )
}

fn settings(status: &Status) -> String {
    let InForce {
        max_connections,
        max_buffered,
        per_source,
        access_log,
    } = &status.settings;
    let for_each = match (per_source.connections, per_source.rate) {
        (None, None) => "no limit".to_owned(),
        (Some(most), None) => format!("{most} connections"),
        (None, Some(rate)) => format!("{rate} new connections a second"),
        (Some(most), Some(rate)) => format!("{most} connections, {rate} new ones a second"),
    };
    let log = match access_log {
        None => "none".to_owned(),
        Some(log) => {
            let format = match log.format {
                Format::Line => "line",
                Format::Json => "json",
            };
            let dropped = status.access_log_dropped;
            let error = log.error.as_ref().map(|error| format!("; {error}"));
            let path = log.path.display();
            format!(
                "{path} ({format}), {dropped} dropped{}",
                error.unwrap_or_default()
            )
        }
    };
    format!(
        "Limits: {max_connections} connections, {} buffered ({} now); for each source {for_each}\n\
         Access log: {log}\n",
        bytes(*max_buffered),
        bytes(status.buffered),
    )
}

fn listener_rows(
    listener: &ListenerStatus,
    removed: &[RemovedEndpoint],
    now: Timestamp,
) -> Vec<Vec<String>> {
    let mut state = match &listener.error {
        Some(reason) => format!("not bound: {reason}"),
        None => "listening".to_owned(),
    };
    for (count, what) in [
        (listener.unserved, "unserved"),
        (listener.refused, "refused"),
        (listener.shed, "shed"),
    ] {
        if count > 0 {
            state.push_str(&format!(", {count} {what}"));
        }
    }
    if listener.panicking {
        state.push_str("; too few endpoints answer, all are used");
    }
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
                name(&endpoint.id),
                endpoint.address.to_string(),
                condition(endpoint, now),
            ],
            &endpoint.traffic,
            &endpoint.connect_times,
        )
    }));
    let of_port = removed.iter().filter(|one| one.port == listener.port);
    rows.extend(of_port.map(|one| removed_row(String::new(), one)));
    rows
}

/// Of one that no table names any more only its connections are known.
fn removed_row(port: String, removed: &RemovedEndpoint) -> Vec<String> {
    let mut row = vec![
        port,
        String::new(),
        name(&removed.id),
        removed.address.to_string(),
        "removed".to_owned(),
        removed.active.to_string(),
    ];
    row.resize(HEADERS.len(), String::new());
    row
}

fn name(id: &str) -> String {
    id.chars().take(NAME_LEN).collect()
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
    ago(Duration::from_millis(now.0.saturating_sub(then_ms))).to_lowercase()
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
    use swarmlet_lb::SourceLimits;
    use swarmlet_lb::settings::AccessLogState;

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
            refused: 7,
            shed: u64::from(port == 81),
            panicking: port == 80,
            traffic: traffic(2),
            connect_times: ConnectTimes::default(),
            endpoints,
        };
        let removed = |port| RemovedEndpoint {
            port,
            id: "gone".to_owned(),
            address: "10.0.0.9:20000".parse().unwrap(),
            active: 1,
        };
        let current = Status {
            table_version: 57,
            program: "1.2.3".to_owned(),
            program_file: None,
            pid: 100,
            started_at_ms: 40_000,
            shutting_down: false,
            buffered: 1_234,
            access_log_dropped: 3,
            settings: InForce {
                max_connections: 15_324,
                max_buffered: 256 << 20,
                per_source: SourceLimits {
                    connections: Some(100),
                    rate: None,
                },
                access_log: Some(AccessLogState {
                    path: "/var/log/lb.log".into(),
                    format: Format::Json,
                    error: Some("cannot write: No space left on device".to_owned()),
                }),
            },
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
            removed: vec![removed(80), removed(99)],
        };
        let before = Status {
            pid: 99,
            shutting_down: true,
            buffered: 0,
            access_log_dropped: 0,
            listeners: Vec::new(),
            removed: Vec::new(),
            ..current.clone()
        };
        let found = balancers(&[current, before], Timestamp(100_000));
        let expected = "\
Process 100 (version 1.2.3, started about a minute ago) listens by table 57: 6 open, 2000 accepted, 0 unserved, 14 refused, 1 shed
Process 99 (version 1.2.3, started about a minute ago) finishes its connections: 0 open, 0 accepted, 0 unserved, 0 refused, 0 shed
Limits: 15324 connections, 268MB buffered (1.2kB now); for each source 100 connections
Access log: /var/log/lb.log (json), 3 dropped; cannot write: No space left on device

PORT   SERVICE   ENDPOINT       ADDRESS          STATE                                                          ACTIVE   TOTAL   IN      OUT     FAILED   CONNECT P50/P99
80     ng                                        listening, 7 refused; too few endpoints answer, all are used   2        1000    123kB   7.8MB   2        -/-
                 0123456789ab   10.0.0.1:20000   ready about a minute                                           1        1000    123kB   7.8MB   2        250us/2.5ms
                 b              10.0.0.1:20000   ejected about a minute (connection refused)                    1        1000    123kB   7.8MB   2        250us/2.5ms
                 gone           10.0.0.9:20000   removed                                                        1
81     ng                                        not bound: another program listens there, 7 refused, 1 shed    2        1000    123kB   7.8MB   2        -/-
99               gone           10.0.0.9:20000   removed                                                        1
";
        assert_eq!(found, expected, "{found}");
    }
}
