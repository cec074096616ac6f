//! What balancers forward, for each published port and each endpoint.
//!
//! Names of endpoints come and go with tasks, so how many there may be on the page is bounded:
//! at any time only those of the table in force are on it, and of those no more than
//! [`MAX_ENDPOINTS`], in the order of ports. `swarmlet_lb_endpoints_left_out` counts the others;
//! the series of ports count everything in any case.

use std::fmt;

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};

use super::{Labels, Page, signed};
use crate::status::{
    ConnectTimes, EndpointCondition, EndpointStatus, ListenerStatus, Status, Traffic,
};

/// Endpoints that have series of their own: eight each, which a scrape takes in stride.
const MAX_ENDPOINTS: usize = 1_000;

/// The conditions of an endpoint, as they are labels.
const CONDITIONS: [(&str, EndpointCondition); 3] = [
    ("ready", EndpointCondition::Ready),
    ("draining", EndpointCondition::Draining),
    ("ejected", EndpointCondition::Ejected),
];

impl Page {
    /// Whether somebody listens.
    pub fn balancer_up(&mut self, up: bool) {
        self.gauge("lb_up", "Whether the balancer forwards", up);
    }

    /// Of the process that listens, which is the first, and of those that finish connections.
    pub fn balancers(&mut self, generations: &[Status]) {
        let Some(current) = generations.first() else {
            return;
        };
        self.gauge(
            "lb_processes",
            "Balancer processes: the one that listens and those that finish connections",
            signed(generations.len() as u64),
        );
        let before = &generations[1..];
        self.gauge(
            "lb_connections_of_replaced",
            "Connections of processes that were replaced",
            signed(before.iter().map(open).sum()),
        );
        self.gauge(
            "lb_table_version",
            "Version of the table in force",
            signed(current.table_version),
        );
        self.gauge(
            "lb_max_connections",
            "Connections that there may be at once",
            signed(current.settings.max_connections),
        );
        self.gauge(
            "lb_buffered_bytes",
            "Bytes that one side has sent and the other did not take yet",
            signed(current.buffered),
        );
        self.gauge(
            "lb_max_buffered_bytes",
            "Bytes past which the connections that hold the most are reset",
            signed(current.settings.max_buffered),
        );
        let log = current.settings.access_log.as_ref();
        self.gauge(
            "lb_access_log_failing",
            "Whether there is an access log that cannot be written",
            log.is_some_and(|log| log.error.is_some()),
        );
        self.counter(
            "lb_access_log_dropped",
            "Connections that the access log lacks",
            current.access_log_dropped,
        );
        self.ports(&current.listeners);
        self.endpoints(&current.listeners);
    }

    fn ports(&mut self, listeners: &[ListenerStatus]) {
        let of = |value: &dyn Fn(&ListenerStatus) -> u64| -> Vec<(Labels, u64)> {
            let values = listeners.iter();
            values.map(|l| (port_labels(l), value(l))).collect()
        };
        self.gauges(
            "lb_port_served",
            "Whether the port is bound",
            of(&|l| u64::from(l.error.is_none())),
        );
        self.counters("lb_accepted", "Connections accepted", of(&|l| l.accepted));
        self.counters(
            "lb_unserved",
            "Connections reset for want of an endpoint",
            of(&|l| l.unserved),
        );
        self.counters(
            "lb_refused",
            "Connections reset for what the client did, or since its source had too many",
            of(&|l| l.refused),
        );
        self.counters(
            "lb_shed",
            "Connections reset for the memory that they held",
            of(&|l| l.shed),
        );
        self.gauges(
            "lb_port_panicking",
            "Whether all endpoints are used, for fewer than half of them answer",
            of(&|l| u64::from(l.panicking)),
        );
        self.traffic("lb", &of_all(listeners));
        let mut counts = Vec::new();
        for (name, condition) in CONDITIONS {
            for listener in listeners {
                let mut labels = port_labels(listener);
                labels.push(("condition".to_owned(), name.to_owned()));
                let endpoints = listener.endpoints.iter();
                let count = endpoints.filter(|e| e.condition == condition).count();
                counts.push((labels, count as u64));
            }
        }
        self.gauges("lb_endpoints", "Endpoints by condition", counts);
        let times = listeners
            .iter()
            .map(|l| (port_labels(l), l.connect_times.clone()))
            .collect();
        self.registry.register(
            "lb_connect_seconds",
            "Time from the choice of an endpoint to its answer",
            Histograms(times),
        );
    }

    fn endpoints(&mut self, listeners: &[ListenerStatus]) {
        let all = || {
            let pairs = listeners.iter();
            pairs.flat_map(|l| l.endpoints.iter().map(move |e| (l, e)))
        };
        let some: Vec<_> = all().take(MAX_ENDPOINTS).collect();
        self.gauge(
            "lb_endpoints_left_out",
            "Endpoints without series of their own",
            signed((all().count() - some.len()) as u64),
        );
        let mut states = Vec::new();
        for (listener, endpoint) in &some {
            let state = CONDITIONS.iter().find(|(_, c)| *c == endpoint.condition);
            let mut labels = endpoint_labels(listener, endpoint);
            let name = state.map_or("unknown", |(name, _)| *name);
            labels.push(("condition".to_owned(), name.to_owned()));
            states.push((labels, 1));
        }
        self.gauges("lb_endpoint_condition", "The endpoint's condition", states);
        let traffic: Vec<_> = some
            .iter()
            .map(|(l, e)| (endpoint_labels(l, e), e.traffic))
            .collect();
        self.traffic("lb_endpoint", &traffic);
        let mut sums = Vec::new();
        for (listener, endpoint) in &some {
            let us = endpoint.connect_times.sum_us;
            sums.push((endpoint_labels(listener, endpoint), seconds(us)));
        }
        self.seconds(
            "lb_endpoint_connect_seconds",
            "Time that the connects to the endpoint took together",
            sums,
        );
    }

    /// What ports and endpoints have in common.
    fn traffic(&mut self, prefix: &str, all: &[(Labels, Traffic)]) {
        let of = |value: fn(&Traffic) -> u64| -> Vec<(Labels, u64)> {
            let values = all.iter();
            values.map(|(l, t)| (l.clone(), value(t))).collect()
        };
        self.gauges(
            &format!("{prefix}_connections_active"),
            "Connections now",
            of(|t| t.active),
        );
        let counters: [(&str, &str, Counter); 4] = [
            ("connections", "Connections made", |t| t.connections),
            ("connect_failures", "Connects that failed", |t| {
                t.connect_failures
            }),
            ("received_bytes", "Bytes from clients to endpoints", |t| {
                t.bytes_to_endpoint
            }),
            ("sent_bytes", "Bytes from endpoints to clients", |t| {
                t.bytes_to_client
            }),
        ];
        for (name, help, value) in counters {
            self.counters(&format!("{prefix}_{name}"), help, of(value));
        }
    }
}

/// What is counted of a port or an endpoint.
type Counter = fn(&Traffic) -> u64;

fn open(status: &Status) -> u64 {
    let listed: u64 = status.listeners.iter().map(|l| l.traffic.active).sum();
    listed + status.removed.iter().map(|r| r.active).sum::<u64>()
}

fn of_all(listeners: &[ListenerStatus]) -> Vec<(Labels, Traffic)> {
    let all = listeners.iter();
    all.map(|l| (port_labels(l), l.traffic)).collect()
}

fn port_labels(listener: &ListenerStatus) -> Labels {
    vec![
        ("port".to_owned(), listener.port.to_string()),
        ("service".to_owned(), listener.service.clone()),
    ]
}

fn endpoint_labels(listener: &ListenerStatus, endpoint: &EndpointStatus) -> Labels {
    let mut labels = port_labels(listener);
    labels.push(("task".to_owned(), endpoint.id.clone()));
    labels.push(("address".to_owned(), endpoint.address.to_string()));
    labels
}

/// Histograms that somebody else has counted.
#[derive(Debug)]
struct Histograms(Vec<(Labels, ConnectTimes)>);

impl EncodeMetric for Histograms {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (labels, times) in &self.0 {
            let bounds = ConnectTimes::BOUNDS_US.iter().map(|us| seconds(*us));
            let bounds = bounds.chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(times.counts.iter().copied()).collect();
            encoder
                .encode_family(labels)?
                .encode_histogram::<NoLabelSet>(
                    seconds(times.sum_us),
                    times.counts.iter().sum(),
                    &buckets,
                    None,
                )?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

/// Exact below a hundred years.
#[allow(clippy::cast_precision_loss)]
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::InForce;

    fn status(endpoints: usize) -> Status {
        let endpoint = |number: usize| EndpointStatus {
            id: format!("task{number}"),
            address: "10.0.0.1:20000".parse().unwrap(),
            weight: 1,
            condition: EndpointCondition::Ejected,
            since_ms: 0,
            reason: String::new(),
            traffic: Traffic {
                active: 2,
                connections: 5,
                ..Traffic::default()
            },
            connect_times: ConnectTimes {
                counts: Vec::new(),
                sum_us: 2_500,
            },
        };
        let mut counts = vec![0; ConnectTimes::BOUNDS_US.len() + 1];
        counts[1] = 3;
        counts[3] = 2;
        Status {
            table_version: 7,
            program: String::new(),
            program_file: None,
            pid: 1,
            started_at_ms: 0,
            shutting_down: false,
            buffered: 9,
            access_log_dropped: 3,
            settings: InForce {
                max_connections: 100,
                ..InForce::default()
            },
            listeners: vec![ListenerStatus {
                port: 80,
                service: "ng".to_owned(),
                bound: Vec::new(),
                error: None,
                accepted: 5,
                unserved: 0,
                refused: 4,
                shed: 1,
                panicking: true,
                traffic: Traffic::default(),
                connect_times: ConnectTimes {
                    counts,
                    sum_us: 2_500,
                },
                endpoints: (0..endpoints).map(endpoint).collect(),
            }],
            removed: Vec::new(),
        }
    }

    fn page(generations: &[Status]) -> String {
        let mut page = Page::new();
        page.balancer_up(true);
        page.balancers(generations);
        page.text().unwrap()
    }

    #[track_caller]
    fn check(page: &str, line: &str) {
        assert!(page.lines().any(|found| found == line), "{line}\n{page}");
    }

    #[test]
    fn ports_and_endpoints_have_series() {
        let page = page(&[status(2), status(2)]);
        let port = "port=\"80\",service=\"ng\"";
        let task = format!("{port},task=\"task1\",address=\"10.0.0.1:20000\"");
        check(&page, "swarmlet_lb_up 1");
        check(&page, "swarmlet_lb_processes 2");
        check(&page, &format!("swarmlet_lb_accepted_total{{{port}}} 5"));
        check(
            &page,
            &format!("swarmlet_lb_connect_seconds_sum{{{port}}} 0.0025"),
        );
        check(
            &page,
            &format!("swarmlet_lb_connect_seconds_count{{{port}}} 5"),
        );
        check(
            &page,
            &format!("swarmlet_lb_connect_seconds_bucket{{le=\"0.00025\",{port}}} 3"),
        );
        check(
            &page,
            &format!("swarmlet_lb_connect_seconds_bucket{{le=\"+Inf\",{port}}} 5"),
        );
        check(
            &page,
            &format!("swarmlet_lb_endpoints{{{port},condition=\"ejected\"}} 2"),
        );
        check(
            &page,
            &format!("swarmlet_lb_endpoint_connections_total{{{task}}} 5"),
        );
        check(
            &page,
            &format!("swarmlet_lb_endpoint_connections_active{{{task}}} 2"),
        );
        check(
            &page,
            &format!("swarmlet_lb_endpoint_condition{{{task},condition=\"ejected\"}} 1"),
        );
        check(&page, &format!("swarmlet_lb_refused_total{{{port}}} 4"));
        check(&page, &format!("swarmlet_lb_shed_total{{{port}}} 1"));
        check(
            &page,
            &format!("swarmlet_lb_endpoint_connect_seconds_total{{{task}}} 0.0025"),
        );
        check(&page, &format!("swarmlet_lb_port_panicking{{{port}}} 1"));
        check(&page, "swarmlet_lb_access_log_dropped_total 3");
        check(&page, "swarmlet_lb_access_log_failing 0");
        check(&page, "swarmlet_lb_buffered_bytes 9");
        check(&page, "swarmlet_lb_max_connections 100");
        check(&page, "swarmlet_lb_endpoints_left_out 0");
    }

    /// As promtool's lints have it: each family with help and type, base units, `_total` on
    /// counters and on nothing else.
    #[test]
    fn names_follow_the_conventions() {
        let page = page(&[status(2)]);
        let (mut helps, mut kind) = (Vec::new(), ("", ""));
        for line in page.lines() {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            match words[..] {
                ["#", "HELP", name, help] => {
                    assert!(help.len() > 10, "{line}");
                    helps.push(name);
                }
                ["#", "TYPE", name, found] => kind = (name, found),
                ["#", "EOF"] => {}
                _ => {
                    let name = line.split(['{', ' ']).next().unwrap();
                    let (family, found) = kind;
                    assert!(helps.contains(&family), "{line}");
                    let suffix = name.strip_prefix(family).unwrap();
                    let expected: &[&str] = match found {
                        "counter" => &["_total"],
                        "histogram" => &["_bucket", "_sum", "_count"],
                        _ => &[""],
                    };
                    assert!(expected.contains(&suffix), "{line}");
                    assert!(!family.ends_with("_total"), "{line}");
                    for other in ["micro", "milli", "_ms", "_us", "kilo", "mega"] {
                        assert!(!family.contains(other), "{line}");
                    }
                    let of_bytes = ["bytes", "buffered"].iter().any(|one| family.contains(one));
                    assert_eq!(of_bytes, family.ends_with("_bytes"), "{line}");
                }
            }
        }
        assert!(helps.len() > 20, "{helps:?}");
    }

    #[test]
    fn series_of_endpoints_are_bounded() {
        let page = page(&[status(MAX_ENDPOINTS + 5)]);
        check(&page, "swarmlet_lb_endpoints_left_out 5");
        let lines = page.lines();
        let series =
            lines.filter(|line| line.starts_with("swarmlet_lb_endpoint_connections_active{"));
        assert_eq!(series.count(), MAX_ENDPOINTS);
    }
}
