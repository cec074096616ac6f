//! The node for Prometheus; what its balancer forwards is told as the balancer by itself tells it.

use std::collections::BTreeMap;

use swarmlet_lb::metrics::{Labels, Page, signed};
use swarmlet_manager::Manager;

use super::balancer::Condition;
use super::view::Phase;

/// The page.
pub(super) async fn page(phase: &Phase) -> Page {
    let mut metrics = Page::new();
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
        metrics.balancer_up(up);
        let mut problems: BTreeMap<&str, u64> = BTreeMap::new();
        for found in active.agent.problems().borrow().iter() {
            *problems.entry(found.problem.kind.name()).or_default() += 1;
        }
        let problems = problems
            .into_iter()
            .map(|(kind, count)| (vec![("kind".to_owned(), kind.to_owned())], count));
        metrics.gauges("problems", "Problems known to this node, by kind", problems);
        if let Some(manager) = &active.manager {
            cluster(&mut metrics, manager);
        }
        metrics.balancers(&active.balancer.generations().await);
    }
    metrics
}

/// What a manager knows of the cluster: the same on all of them.
fn cluster(page: &mut Page, manager: &Manager) {
    let leadership = *manager.raft().watch_leadership().borrow();
    page.gauge("raft_term", "Raft's term", signed(leadership.term));
    page.gauge(
        "raft_leader",
        "Whether this manager leads",
        leadership.is_self,
    );
    page.gauge(
        "raft_has_leader",
        "Whether a leader is known",
        leadership.leader.is_some(),
    );
    let voters = manager.raft().voters().len();
    page.gauge("raft_voters", "Managers that vote", signed(voters as u64));
    let state = manager.state();
    page.gauge(
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
    page.gauges("nodes", "Nodes by state", by("state", nodes));
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
    page.gauges("tasks", "Tasks by service and state", tasks);
}
