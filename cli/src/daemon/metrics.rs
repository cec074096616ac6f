//! The node in Prometheus's text format. Everything is read when it is asked for; nothing is
//! counted here.

mod lb;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use swarmlet_manager::Manager;

use super::balancer::Condition;
use super::view::Phase;

type Labels = Vec<(String, String)>;

/// The page.
///
/// # Errors
/// The format cannot hold a value, which none of these is.
pub(super) async fn page(phase: &Phase) -> Result<String, fmt::Error> {
    let mut metrics = Metrics(Registry::with_prefix("swarmlet"));
    let active = phase.active();
    metrics.gauge(
        "node_active",
        "Whether the node belongs to a swarm",
        active.is_some(),
    );
    if let Some(active) = active {
        let manager = active.agent.connected().borrow().manager;
        metrics.gauge(
            "node_connected",
            "Whether a manager answers the agent",
            manager.is_some(),
        );
        metrics.gauge(
            "node_manager",
            "Whether the node is a manager",
            active.manager.is_some(),
        );
        let up = *active.balancer.condition().borrow() != Condition::Down;
        metrics.gauge("lb_up", "Whether the balancer forwards", up);
        let mut problems: BTreeMap<&str, u64> = BTreeMap::new();
        for found in active.agent.problems().borrow().iter() {
            *problems.entry(found.problem.kind.name()).or_default() += 1;
        }
        let problems = problems
            .into_iter()
            .map(|(kind, count)| (vec![("kind".to_owned(), kind.to_owned())], count));
        metrics.gauges("problems", "Problems known to this node, by kind", problems);
        if let Some(manager) = &active.manager {
            metrics.cluster(manager);
        }
        metrics.balancers(&active.balancer.generations().await);
    }
    let mut page = String::new();
    encode(&mut page, &metrics.0)?;
    Ok(page)
}

struct Metrics(Registry);

impl Metrics {
    fn gauge(&mut self, name: &str, help: &str, value: impl Into<i64>) {
        let gauge: Gauge = Gauge::default();
        gauge.set(value.into());
        self.0.register(name, help, gauge);
    }

    fn gauges(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, u64)>) {
        let family = Family::<Labels, Gauge>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).set(signed(value));
        }
        self.0.register(name, help, family);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        let counter: Counter = Counter::default();
        counter.inc_by(value);
        self.0.register(name, help, counter);
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels, u64)>,
    ) {
        let family = Family::<Labels, Counter>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).inc_by(value);
        }
        self.0.register(name, help, family);
    }

    /// Counted times.
    fn seconds(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, f64)>) {
        let family = Family::<Labels, Counter<f64, AtomicU64>>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).inc_by(value);
        }
        self.0.register(name, help, family);
    }

    /// What a manager knows of the cluster: the same on all of them.
    fn cluster(&mut self, manager: &Manager) {
        let leadership = *manager.raft().watch_leadership().borrow();
        self.gauge("raft_term", "Raft's term", signed(leadership.term));
        self.gauge(
            "raft_leader",
            "Whether this manager leads",
            leadership.is_self,
        );
        self.gauge(
            "raft_has_leader",
            "Whether a leader is known",
            leadership.leader.is_some(),
        );
        let voters = manager.raft().voters().len();
        self.gauge("raft_voters", "Managers that vote", signed(voters as u64));
        let state = manager.state();
        self.gauge(
            "raft_applied_index",
            "Last entry applied",
            signed(state.version().0),
        );
        let mut nodes: BTreeMap<String, u64> = BTreeMap::new();
        for node in state.nodes() {
            *nodes.entry(node.status.state.to_string()).or_default() += 1;
        }
        let by = |key: &str, counts: BTreeMap<String, u64>| -> Vec<(Labels, u64)> {
            let labels = |value| vec![(key.to_owned(), value)];
            counts
                .into_iter()
                .map(|(value, count)| (labels(value), count))
                .collect()
        };
        self.gauges("nodes", "Nodes by state", by("state", nodes));
        let mut tasks: BTreeMap<(String, String), u64> = BTreeMap::new();
        for task in state.tasks() {
            let key = (task.service_name.clone(), task.status.state.to_string());
            *tasks.entry(key).or_default() += 1;
        }
        let tasks = tasks.into_iter().map(|((service, state), count)| {
            (
                vec![("service".to_owned(), service), ("state".to_owned(), state)],
                count,
            )
        });
        self.gauges("tasks", "Tasks by service and state", tasks);
    }
}

/// Gauges are signed; no count here comes near the limit.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
