//! `node promote` and `node demote`.

use anyhow::Result;
use swarmlet_core::model::{Node, Role};
use swarmlet_proto::v1;

use super::Failures;
use super::node::resolve;
use crate::args::NodeRoleArgs;
use crate::client::{Client, ClientError, call};
use crate::output::print;

/// Asks for the role for each node. The node itself does the rest, which takes a second or two.
pub(super) async fn change(args: &NodeRoleArgs, role: Role, client: &Client) -> Result<()> {
    let mut failures = Failures::default();
    for name in &args.nodes {
        // Read anew for each: one role less changes what may be done to the next.
        let nodes = client.nodes().await?;
        let changed: Result<String, ClientError> = async {
            let (node, _) = resolve(name, &nodes, client).await?;
            if node.spec.role == role {
                return Ok(format!("Node {name} is already a {role}.\n"));
            }
            call(client.control().update_node(request(node, role))).await?;
            Ok(match role {
                Role::Manager => format!("Node {name} promoted to a manager in the swarm.\n"),
                Role::Worker => format!("Manager {name} demoted in the swarm.\n"),
            })
        }
        .await;
        match changed {
            Ok(text) => print(&text)?,
            Err(error) => failures.note(&error),
        }
    }
    if role == Role::Manager {
        warn_of_two(client).await;
    }
    failures.result()
}

fn request(node: &Node, role: Role) -> v1::UpdateNodeRequest {
    let mut spec = node.spec.clone();
    spec.role = role;
    v1::UpdateNodeRequest {
        id: node.id.to_string(),
        expected: node.version.0,
        spec: Some((&spec).into()),
    }
}

/// Two managers are worse than one: both must be there for a change.
pub(super) async fn warn_of_two(client: &Client) {
    // What was asked for is done; that the list cannot be had is no reason to say otherwise.
    let Ok(nodes) = client.nodes().await else {
        return;
    };
    let managers = nodes
        .iter()
        .filter(|(node, _)| node.spec.role == Role::Manager);
    if managers.count() == 2 {
        eprintln!(
            "WARNING: the swarm has two managers now, and losing either stops all changes. \
             Join a third one."
        );
    }
}
