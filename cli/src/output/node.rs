//! Nodes: `node ls` and `node inspect --pretty`.

use std::fmt::Write as _;

use serde::Serialize;
use swarmlet_core::model::{Node, NodeId, RuntimeKind, Timestamp};

use super::{Row, ago, natural, title};

/// One line of `node ls`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct NodeRow {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Self")]
    is_self: bool,
    hostname: String,
    status: String,
    availability: String,
    manager_status: String,
    engine_version: String,
    /// In words; the table has no room for them, and `node ls` says them below it.
    problems: Vec<String>,
}

impl Row for NodeRow {
    const HEADERS: &'static [&'static str] = &[
        "ID",
        "HOSTNAME",
        "STATUS",
        "AVAILABILITY",
        "MANAGER STATUS",
        "ENGINE VERSION",
    ];

    fn cells(&self) -> Vec<String> {
        let mark = if self.is_self { " *" } else { "" };
        vec![
            format!("{}{mark}", short(&self.id)),
            self.hostname.clone(),
            self.status.clone(),
            self.availability.clone(),
            self.manager_status.clone(),
            self.engine_version.clone(),
        ]
    }

    fn id(&self) -> &str {
        &self.id
    }
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// The lines of `node ls`, by host name; each node comes with its `manager_status` (`leader`,
/// `reachable`, `unreachable`, `joining` before it votes, or empty).
pub(crate) fn node_rows(nodes: &[(Node, String)], own: Option<&NodeId>) -> Vec<NodeRow> {
    let mut sorted: Vec<_> = nodes.iter().collect();
    sorted.sort_by(|(a, _), (b, _)| {
        natural(&a.description.hostname, &b.description.hostname).then_with(|| a.id.cmp(&b.id))
    });
    sorted
        .into_iter()
        .map(|(node, manager_status)| NodeRow {
            id: node.id.to_string(),
            is_self: own == Some(&node.id),
            hostname: node.description.hostname.clone(),
            status: title(&node.status.state.to_string()),
            availability: title(&node.spec.availability.to_string()),
            manager_status: title(manager_status),
            engine_version: engine(node),
            problems: problems(node)
                .map(|(what, remedy)| format!("{what}; {remedy}"))
                .collect(),
        })
        .collect()
}

/// What is wrong with a node, and what to do about it.
fn problems(node: &Node) -> impl Iterator<Item = (String, String)> {
    let at = swarmlet_core::diagnosis::place(node);
    node.problems
        .iter()
        .map(move |problem| (problem.kind.what(&at), problem.kind.remedy(&at)))
}

/// The engine's version, `unknown` where the engine does not answer, or the runtime's name where
/// it has no engine.
fn engine(node: &Node) -> String {
    let description = &node.description;
    match description.runtime {
        RuntimeKind::Docker if description.engine_version.is_empty() => "unknown".to_owned(),
        RuntimeKind::Docker => description.engine_version.clone(),
        RuntimeKind::Process => description.runtime.to_string(),
    }
}

/// `node inspect --pretty`.
pub(crate) fn pretty_node(node: &Node, manager_status: &str, now: Timestamp) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<25}{value}");
    };
    let description = &node.description;
    line("ID:", node.id.as_str());
    if !node.spec.labels.is_empty() {
        line("Labels:", "");
        for (key, value) in &node.spec.labels {
            line(&format!(" - {key}={value}"), "");
        }
    }
    line("Hostname:", &description.hostname);
    line(
        "Joined:",
        &format!("{} ago", ago(now.since(node.created_at))),
    );
    line("Status:", "");
    line(" State:", &title(&node.status.state.to_string()));
    if !node.status.message.is_empty() {
        line(" Message:", &node.status.message);
    }
    line(
        " Availability:",
        &title(&node.spec.availability.to_string()),
    );
    line(" Address:", &description.address.to_string());
    if let Some(manager) = &node.manager {
        line("Manager Status:", "");
        line(" Address:", &manager.address.to_string());
        line(" Raft Status:", &title(manager_status));
    }
    line("Platform:", "");
    line(" Operating System:", &description.platform.os);
    line(" Architecture:", &description.platform.arch);
    line("Resources:", "");
    let cpus = description.resources.nano_cpus;
    line(
        " CPUs:",
        &format!(
            "{}.{:02}",
            cpus / 1_000_000_000,
            cpus % 1_000_000_000 / 10_000_000
        ),
    );
    line(
        " Memory:",
        &format!("{}MiB", description.resources.memory_bytes >> 20),
    );
    for (kind, amount) in &description.resources.generic {
        let names = description.generic_names.get(kind);
        let names = names.map_or(String::new(), |names| format!(" ({})", names.join(", ")));
        line(&format!(" {kind}:"), &format!("{amount}{names}"));
    }
    line("Engine:", "");
    line(" Runtime:", &description.runtime.to_string());
    if description.runtime == RuntimeKind::Docker {
        let version = match description.engine_version.as_str() {
            "" => "unknown (the engine does not answer)",
            version => version,
        };
        line(" Version:", version);
    }
    line(" Swarmlet:", &description.program_version);
    if !node.port_problems.is_empty() {
        line("Port Problems:", "");
        for problem in &node.port_problems {
            line(
                &format!(" - {}/{}:", problem.port, problem.protocol),
                &problem.reason,
            );
        }
    }
    if !node.problems.is_empty() {
        line("Problems:", "");
        for (what, remedy) in problems(node) {
            line(&format!(" - {what};"), "");
            line(&format!("   {remedy}"), "");
        }
    }
    text.lines()
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect()
}
