//! `node ls/inspect/ps/update/rm`; `promote` and `demote` are in [`role`].

use std::process::ExitCode;

use anyhow::{Result, bail};
use serde::Serialize;
use swarmlet_core::model::{ManagerInfo, Node, NodeProblem, Role};
use swarmlet_proto::v1;
use swarmlet_proto::v1::planned_change::Change;

use super::plan;
use super::tasks::{Listing, filter_tasks};
use super::{Failures, check_filters, label_matches, now, passes, role};
use crate::args::{
    Format, NodeCommand, NodeInspectArgs, NodeLsArgs, NodePsArgs, NodeRmArgs, NodeUpdateArgs,
};
use crate::client::{Client, ClientError, call, find};
use crate::output::{Style, list, node_rows, pretty_node, print};

/// Runs a command on nodes.
///
/// # Errors
/// What is to be said to the user.
pub(crate) async fn run(command: NodeCommand, client: &Client) -> Result<ExitCode> {
    match command {
        NodeCommand::Ls(args) => ls(&args, client).await?,
        NodeCommand::Inspect(args) => inspect(&args, client).await?,
        NodeCommand::Ps(args) => ps(&args, client).await?,
        NodeCommand::Update(args) => return update(&args, client).await,
        NodeCommand::Promote(args) => role::change(&args, Role::Manager, client).await?,
        NodeCommand::Demote(args) => role::change(&args, Role::Worker, client).await?,
        NodeCommand::Rm(args) => rm(&args, client).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn ls(args: &NodeLsArgs, client: &Client) -> Result<()> {
    check_filters(
        &args.filter,
        &[
            "id",
            "name",
            "role",
            "availability",
            "node.label",
            "label",
            "membership",
        ],
    )?;
    let own = client.own_id().await?;
    let mut nodes = client.nodes().await?;
    nodes.retain(|(node, _)| {
        passes(&args.filter, |key, value| match key {
            "id" => node.id.as_str().starts_with(value),
            "name" => node.description.hostname.contains(value),
            "role" => node.spec.role.to_string() == value,
            "availability" => node.spec.availability.to_string() == *value,
            "node.label" => label_matches(&node.spec.labels, value),
            "label" => label_matches(&node.description.engine_labels, value),
            // Whoever has joined is accepted.
            _ => value == "accepted",
        })
    });
    let style = Style::new(args.quiet, args.format);
    print(&list(&node_rows(&nodes, own.as_ref()), style)?)?;
    if style == Style::Table {
        warn_of_ports(nodes.iter().map(|(node, _)| node));
        for problem in nodes.iter().flat_map(|(node, _)| node_problems(node)) {
            eprintln!("WARNING: {problem}");
        }
    }
    Ok(())
}

/// What is wrong with a node.
pub(super) fn node_problems(node: &Node) -> impl Iterator<Item = NodeProblem> {
    let at = swarmlet_core::diagnosis::place(node);
    node.problems.iter().map(move |problem| NodeProblem {
        at: at.clone(),
        problem: problem.clone(),
    })
}

/// Says which nodes do not answer on which published ports.
pub(super) fn warn_of_ports<'a>(nodes: impl Iterator<Item = &'a Node>) {
    for node in nodes {
        for problem in &node.port_problems {
            eprintln!(
                "WARNING: node {} does not answer on published port {}/{}: {}",
                node.description.hostname, problem.port, problem.protocol, problem.reason
            );
        }
    }
}

/// The node that a user means.
pub(super) async fn resolve<'a>(
    name: &str,
    nodes: &'a [(Node, String)],
    client: &Client,
) -> Result<&'a (Node, String), ClientError> {
    let own = if name == "self" {
        client.own_id().await?
    } else {
        None
    };
    let name = own.as_ref().map_or(name, |id| id.as_str());
    find("node", name, nodes, |(node, _)| {
        (node.id.as_str(), node.description.hostname.as_str())
    })
}

async fn inspect(args: &NodeInspectArgs, client: &Client) -> Result<()> {
    let nodes = client.nodes().await?;
    let mut found = Vec::new();
    let mut failures = Failures::default();
    for name in &args.nodes {
        match resolve(name, &nodes, client).await {
            Ok(node) => found.push(node),
            Err(error) => failures.note(&error),
        }
    }
    if args.pretty || args.format == Format::Table {
        let texts: Vec<_> = found
            .iter()
            .map(|(node, status)| pretty_node(node, status, now()))
            .collect();
        print(&texts.join("\n"))?;
    } else {
        print(&inspected(&found)?)?;
    }
    failures.result()
}

/// A node as Docker's API shows it, its fields in Docker's order, with what only the leader knows
/// in `ManagerStatus`.
#[derive(Serialize)]
struct Inspected {
    /// Without its own `ManagerStatus`.
    #[serde(flatten)]
    node: Node,
    #[serde(rename = "ManagerStatus", skip_serializing_if = "Option::is_none")]
    manager: Option<InspectedManager>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedManager {
    leader: bool,
    reachability: String,
    #[serde(flatten)]
    info: ManagerInfo,
}

fn inspected(nodes: &[&(Node, String)]) -> Result<String> {
    let nodes = nodes.iter().map(|(node, status)| {
        let leader = status == "leader";
        let mut node = node.clone();
        Inspected {
            manager: node.manager.take().map(|info| InspectedManager {
                leader,
                reachability: if leader { "reachable" } else { status }.to_owned(),
                info,
            }),
            node,
        }
    });
    Ok(serde_json::to_string_pretty(&nodes.collect::<Vec<_>>())? + "\n")
}

async fn ps(args: &NodePsArgs, client: &Client) -> Result<()> {
    check_filters(&args.filter, &["id", "name", "desired-state"])?;
    let nodes = client.nodes().await?;
    let mut tasks = Vec::new();
    let mut failures = Failures::default();
    for name in &args.nodes {
        match resolve(name, &nodes, client).await {
            Ok((node, _)) => tasks.extend(client.tasks("", node.id.as_str()).await?),
            Err(error) => failures.note(&error),
        }
    }
    if failures.are_all_of(&args.nodes) {
        return failures.result();
    }
    let nodes = nodes
        .into_iter()
        .map(|(node, _)| (node.id.clone(), node))
        .collect();
    filter_tasks(&mut tasks, &args.filter, &nodes);
    Listing {
        no_trunc: args.no_trunc,
        style: Style::new(args.quiet, args.format),
    }
    .print(tasks, &nodes, &client.services().await?)?;
    failures.result()
}

async fn update(args: &NodeUpdateArgs, client: &Client) -> Result<ExitCode> {
    let nodes = client.nodes().await?;
    let (node, _) = resolve(&args.node, &nodes, client).await?;
    let mut spec = node.spec.clone();
    if let Some(availability) = args.availability {
        spec.availability = availability.into();
    }
    if let Some(role) = args.role {
        spec.role = role.into();
    }
    spec.labels.extend(args.label_add.iter().cloned());
    for key in &args.label_rm {
        if spec.labels.remove(key).is_none() {
            bail!("key {key} doesn't exist in node's labels");
        }
    }
    let request = v1::UpdateNodeRequest {
        id: node.id.to_string(),
        expected: node.version.0,
        spec: Some((&spec).into()),
    };
    if args.plan.dry_run {
        return plan::show(vec![Change::UpdateNode(request)], &args.plan, client).await;
    }
    call(client.control().update_node(request)).await?;
    print(&format!("{}\n", args.node))?;
    Ok(ExitCode::SUCCESS)
}

async fn rm(args: &NodeRmArgs, client: &Client) -> Result<()> {
    let nodes = client.nodes().await?;
    let mut failures = Failures::default();
    for name in &args.nodes {
        let removed = async {
            let (node, _) = resolve(name, &nodes, client).await?;
            let request = v1::RemoveNodeRequest {
                id: node.id.to_string(),
                force: args.force,
            };
            call(client.control().remove_node(request)).await
        };
        match removed.await {
            Ok(_) => print(&format!("{name}\n"))?,
            Err(error) => failures.note(&error),
        }
    }
    failures.result()
}
