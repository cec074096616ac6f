//! Asks agents for logs: over this manager's own sessions, or through the other managers.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use swarmlet_core::model::NodeId;
use swarmlet_proto::v1;
use swarmlet_proto::v1::logs_client::LogsClient;
use swarmlet_proto::v1::manager_message::Kind;
use tokio::time::timeout;

use super::LogsService;

/// How long another manager may take to pass a request on. It only looks into a table.
const ASK_WAIT: Duration = Duration::from_millis(800);

/// The message that an agent gets.
pub(super) fn message(wanted: v1::LogsWanted) -> v1::ManagerMessage {
    v1::ManagerMessage {
        kind: Some(Kind::Logs(wanted)),
    }
}

/// Asks all of them; returns those that nobody has a session with.
pub(super) async fn ask(
    service: LogsService,
    wanted: Vec<(NodeId, v1::LogsWanted)>,
) -> BTreeSet<NodeId> {
    let mut elsewhere = Vec::new();
    for (node, wanted) in wanted {
        if !service.sessions.tell(&node, message(wanted.clone())) {
            elsewhere.push((node, wanted));
        }
    }
    let mut untold: BTreeSet<NodeId> = elsewhere.iter().map(|(node, _)| node.clone()).collect();
    if untold.is_empty() {
        return untold;
    }
    let request = v1::AskAgentsRequest {
        wanted: elsewhere
            .into_iter()
            .map(|(node, wanted)| v1::NodeLogsWanted {
                node_id: node.to_string(),
                wanted: Some(wanted),
            })
            .collect(),
    };
    let answers = others(&service).into_iter().map(|address| {
        let mut manager = LogsClient::new(service.dialer.channel(address));
        let request = request.clone();
        async move { timeout(ASK_WAIT, manager.ask_agents(request)).await }
    });
    for answer in join_all(answers).await {
        match answer {
            Ok(Ok(answer)) => {
                for id in answer.into_inner().node_ids {
                    untold.retain(|node| node.as_str() != id);
                }
            }
            Ok(Err(status)) => {
                tracing::debug!(reason = status.message(), "a manager passes nothing on");
            }
            Err(_) => tracing::debug!("a manager does not answer"),
        }
    }
    untold
}

/// Where the other managers are.
fn others(service: &LogsService) -> Vec<SocketAddr> {
    let state = service.raft.state();
    state
        .nodes()
        .filter(|node| node.id != service.node)
        .filter_map(|node| Some(node.manager.as_ref()?.address))
        .collect()
}
