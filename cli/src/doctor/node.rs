//! The daemon, and what it knows of its node and the cluster.

use std::path::Path;
use std::time::Duration;

use swarmlet_core::diagnosis;
use swarmlet_core::model::{Node, NodeId, NodeProblem, NodeState};
use swarmlet_proto::v1;
use tokio::time::timeout;

use super::{Case, Finding};
use crate::client::{Client, ClientError, call_within, read};

const DAEMON: &str = "daemon";

/// How long the daemon may take for an answer. It has all of them in memory.
const DEADLINE: Duration = Duration::from_secs(3);

/// How long the list of nodes may take; the managers may have to elect a leader first.
const NODES_DEADLINE: Duration = Duration::from_secs(5);

/// What the daemon says; `None` where none runs.
pub(super) async fn ask(socket: &Path) -> Option<Vec<Finding>> {
    let client = match timeout(DEADLINE, Client::connect(socket)).await {
        Ok(Ok(client)) => client,
        Ok(Err(ClientError::NoDaemon(_))) => return None,
        Ok(Err(error)) => {
            let remedy = "run it as root or as a member of the socket's group";
            return Some(vec![Finding::problem(DAEMON, error.to_string(), remedy)]);
        }
        Err(_) => return Some(vec![hangs()]),
    };
    let info = match call_within(DEADLINE, client.local().info(v1::InfoRequest {})).await {
        Ok(info) => info,
        Err(ClientError::Deadline(_)) => return Some(vec![hangs()]),
        Err(error) => {
            let remedy = "see its log (journalctl -u swarmlet), and restart it";
            return Some(vec![Finding::problem(DAEMON, error.to_string(), remedy)]);
        }
    };
    let mut findings = vec![version(&info)];
    match info.state.as_str() {
        "active" => findings.extend(active(&client, &info).await),
        "starting" => findings.push(Finding::warning(
            "node",
            "the daemon is bringing its node back",
            "try again in a moment; if it stays so, see its log (journalctl -u swarmlet)",
        )),
        _ => findings.push(Finding::ok("node", "this host is not part of a swarm")),
    }
    Some(findings)
}

fn hangs() -> Finding {
    Finding::problem(
        DAEMON,
        format!("it does not answer within {} s", DEADLINE.as_secs()),
        "restart it (systemctl restart swarmlet): tasks and connections go on",
    )
}

fn version(info: &v1::InfoResponse) -> Finding {
    let own = env!("CARGO_PKG_VERSION");
    let found = format!("version {} (pid {})", info.program_version, info.pid);
    if info.program_version == own {
        return Finding::ok(DAEMON, found);
    }
    Finding::warning(
        DAEMON,
        format!("{found}, and this command is version {own}"),
        "restart the daemon (systemctl restart swarmlet): tasks and connections go on",
    )
}

/// What is to be said where no daemon answers.
pub(super) async fn absent(case: &Case, socket: &Path) -> Vec<Finding> {
    let Err(error) = case.layout.load() else {
        if case.record.is_none() {
            let found = "none runs, and this host is not part of a swarm";
            return vec![Finding::ok(DAEMON, found)];
        }
        return vec![Finding::problem(
            DAEMON,
            format!(
                "this host is a node of a swarm, and no daemon answers at {}",
                socket.display()
            ),
            "start it (systemctl start swarmlet, or `swarmlet daemon`); tasks go on meanwhile",
        )];
    };
    let denied = error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied);
    let found = format!("none runs; {error:#}");
    vec![if denied {
        Finding::warning(DAEMON, found, "run it as root")
    } else {
        Finding::problem(
            DAEMON,
            found,
            "restore the file, or join again: tasks go on meanwhile",
        )
    }]
}

/// A node of a cluster.
async fn active(client: &Client, info: &v1::InfoResponse) -> Vec<Finding> {
    let mut local = client.local();
    let request = local.diagnose(v1::DiagnoseRequest {});
    let diagnosis = match call_within(DEADLINE, request).await {
        Ok(diagnosis) => diagnosis,
        Err(error) => {
            let remedy = "are daemon and command of one version? restart the daemon";
            return vec![Finding::problem("node", error.to_string(), remedy)];
        }
    };
    let role = format!("{} {} at {}", info.role, info.node_id, info.address);
    let mut findings = vec![Finding::ok("node", role)];
    if !diagnosis.expelled.is_empty() {
        findings = vec![expelled(&diagnosis.expelled)];
        findings.extend(balancer(&diagnosis));
        return findings;
    }
    findings.push(session(&diagnosis));
    findings.extend(balancer(&diagnosis));
    let mut known = Vec::new();
    for problem in diagnosis.problems {
        match read::<_, NodeProblem>(problem) {
            Ok(problem) => known.push(problem),
            Err(error) => findings.push(Finding::problem("cluster", error.to_string(), "")),
        }
    }
    if info.role == "manager" {
        let nodes = timeout(NODES_DEADLINE, client.nodes()).await;
        match nodes {
            Ok(Ok(nodes)) => findings.extend(cluster(&nodes, &mut known)),
            Ok(Err(error)) => findings.push(no_managers(&error.to_string())),
            Err(_) => findings.push(no_managers("the managers do not answer")),
        }
    }
    let own = NodeId::parse(&info.node_id).ok();
    let (here, elsewhere): (Vec<_>, Vec<_>) = known.into_iter().partition(|found| {
        own.as_ref()
            .is_some_and(|own| found.problem.kind.concerns(&found.at, own))
    });
    if here.is_empty() && elsewhere.is_empty() {
        findings.push(Finding::ok("cluster", "no problem is known"));
    }
    for found in here.iter().chain(&elsewhere) {
        let kind = &found.problem.kind;
        let (what, remedy) = (kind.what(&found.at), kind.remedy(&found.at));
        findings.push(Finding::problem(kind.name(), what, remedy));
    }
    findings
}

/// A node that its swarm has gone on without. What it knows of the others is of the past.
fn expelled(reason: &str) -> Finding {
    Finding::problem(
        "node",
        reason,
        "run `swarmlet leave --force` on this host, then `swarmlet join` (`swarmlet join-token` on a \
         manager prints the command)",
    )
}

fn no_managers(reason: &str) -> Finding {
    Finding::problem(
        "cluster",
        format!("the nodes cannot be listed: {reason}"),
        "bring back managers until more than half of them run",
    )
}

fn session(diagnosis: &v1::DiagnoseResponse) -> Finding {
    const SUBJECT: &str = "session";
    if !diagnosis.manager.is_empty() {
        return Finding::ok(
            SUBJECT,
            format!("with the manager at {}", diagnosis.manager),
        );
    }
    let reason = match diagnosis.session_error.as_str() {
        "" => "there is none yet",
        reason => reason,
    };
    Finding::problem(
        SUBJECT,
        format!("no manager answers this node: {reason}"),
        "see whether the managers run and TCP 2377 is open from here to them; tasks go on \
         meanwhile",
    )
}

fn balancer(diagnosis: &v1::DiagnoseResponse) -> Vec<Finding> {
    const SUBJECT: &str = "balancer";
    if !diagnosis.balancer {
        let remedy = "see its log (lb.log in the data directory), and restart the daemon";
        return vec![Finding::problem(SUBJECT, "it does not run", remedy)];
    }
    if diagnosis.port_errors.is_empty() {
        return vec![Finding::ok(SUBJECT, "it forwards")];
    }
    let taken = |error: &String| {
        let remedy = "end who has the port (ss -ltnp); the balancer takes it then";
        Finding::problem(SUBJECT, error.clone(), remedy)
    };
    diagnosis.port_errors.iter().map(taken).collect()
}

/// What only managers know: nodes that are away, and problems of all of them.
fn cluster(nodes: &[(Node, String)], known: &mut Vec<NodeProblem>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (node, manager_status) in nodes {
        let at = diagnosis::place(node);
        for problem in &node.problems {
            let found = NodeProblem {
                at: at.clone(),
                problem: problem.clone(),
            };
            if !known
                .iter()
                .any(|one| one.at == found.at && one.problem.kind.is_same(&problem.kind))
            {
                known.push(found);
            }
        }
        if node.status.state != NodeState::Ready {
            findings.push(Finding::problem(
                "nodes",
                format!("{at} is {}: {}", node.status.state, node.status.message),
                "start the host and its daemon, or remove it (swarmlet node rm)",
            ));
        } else if manager_status == "unreachable" {
            findings.push(Finding::problem(
                "nodes",
                format!("the manager on {at} cannot be reached by the leader"),
                format!("open TCP 2377 between the managers and {}", at.address),
            ));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            "nodes",
            format!("all {} are ready", nodes.len()),
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;
    use crate::output::samples;
    use swarmlet_core::model::{Problem, ProblemKind, Role};

    #[test]
    fn nodes_that_are_away_and_problems_of_all_are_told_once() {
        let mut one = samples::node(1, "host1", Role::Manager);
        one.problems = vec![Problem {
            since: samples::NOW,
            kind: ProblemKind::Clock { ahead_ms: 5000 },
        }];
        let mut two = samples::node(2, "host2", Role::Worker);
        two.status.state = NodeState::Unknown;
        two.status.message = "no heartbeat for 4 s".to_owned();
        let three = samples::node(3, "host3", Role::Manager);
        let nodes = [
            (one, "leader".to_owned()),
            (two, String::new()),
            (three, "unreachable".to_owned()),
        ];
        let mut known = Vec::new();
        for _ in 0..2 {
            let findings = cluster(&nodes, &mut known);
            let found: Vec<&str> = findings.iter().map(|f| f.found.as_str()).collect();
            assert_eq!(
                found,
                [
                    "host2 (10.99.0.2) is unknown: no heartbeat for 4 s",
                    "the manager on host3 (10.99.0.3) cannot be reached by the leader"
                ]
            );
            assert_eq!(known.len(), 1);
        }
        let findings = cluster(&nodes[..1], &mut known);
        assert_eq!(findings[0].level, Level::Ok);
    }
}
