//! `init`, `join`, `leave`, `join-token`, `info`.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use swarmlet_core::model::{Availability, ClusterSpec, Role, RuntimeKind};
use swarmlet_proto::v1;

use super::role::warn_of_two;
use crate::args::{Format, InfoArgs, InitArgs, JoinArgs, JoinTokenArgs, LeaveArgs};
use crate::client::{Client, call, call_within};
use crate::daemon::check_address;
use crate::daemon::start::{self, Started};
use crate::output::{Row, Style, list, print};

/// Time for `join`: several addresses may each take their seconds to not answer, and a new
/// manager catches up before it counts.
const JOIN_DEADLINE: Duration = Duration::from_secs(120);

/// Time for `leave`: every task of the node may use its grace period.
const LEAVE_DEADLINE: Duration = Duration::from_secs(180);

/// Makes this node the first of a new cluster.
///
/// # Errors
/// What is to be said to the user.
pub(crate) async fn init(args: InitArgs, socket: &Path) -> Result<()> {
    let (client, started) = start::ensure(socket, &args.daemon).await?;
    let is_runtime_named = args.daemon.runtime.is_some();
    let spec = ClusterSpec {
        task_history_limit: args.task_history_limit,
        node_replace_delay: args.node_replace_delay,
        ..ClusterSpec::default()
    };
    let request = v1::InitRequest {
        advertise_addr: args.advertise_addr.unwrap_or_default(),
        availability: Availability::from(args.availability).to_string(),
        spec: Some((&spec).into()),
        force_new_cluster: args.force_new_cluster,
    };
    let answer = call_within(JOIN_DEADLINE, client.local().init(request)).await;
    if args.force_new_cluster {
        if answer.is_err() && is_in_no_swarm(&client).await {
            started.undo(socket).await;
        }
        return print_alone(&answer?);
    }
    let answer = undo_start(answer, started, socket).await?;
    warn_of_elsewhere(&answer.address);
    print(&format!(
        "Swarm initialized: current node ({}) is now a manager.\n\n\
         To add a worker to this swarm, run the following command:\n\n    \
         swarmlet join --token {} {}\n\n\
         To add a manager to this swarm, run 'swarmlet join-token manager' and follow the \
         instructions.\n\n",
        answer.node_id, answer.worker_token, answer.address
    ))?;
    if let (false, Ok(info)) = (is_runtime_named, client.info().await) {
        warn_of_processes(&info);
    }
    Ok(())
}

/// Whoever asked for no runtime wants containers, and finds out here rather than with the first
/// image that is no path of an executable.
fn warn_of_processes(info: &v1::InfoResponse) {
    if let Some(warning) = without_engine(&info.runtime) {
        eprintln!("WARNING: {warning}");
    }
}

fn without_engine(runtime: &str) -> Option<&'static str> {
    (runtime == RuntimeKind::Process.to_string()).then_some(
        "no container engine answered here, and so this node's tasks are plain processes. For \
         containers, run `swarmlet leave --force`, see what the engine lacks (`swarmlet doctor`), \
         and begin again; --runtime process says that it is meant so.",
    )
}

/// A mistyped --advertise-addr is told at once: it would be noticed on the other nodes only, as
/// a host that does not answer.
fn warn_of_elsewhere(address: &str) {
    let Ok(address) = address.parse::<SocketAddr>() else {
        return;
    };
    if is_elsewhere(address.ip()) {
        eprintln!(
            "WARNING: {} is not an address of this machine, and all nodes, this one included, must \
             reach it there. If that is a mistake, run `swarmlet leave --force` and name the right \
             one with --advertise-addr.",
            address.ip()
        );
    }
}

/// Whether no interface of this machine has the address.
fn is_elsewhere(ip: IpAddr) -> bool {
    let bound = UdpSocket::bind((ip, 0));
    bound.is_err_and(|error| error.kind() == ErrorKind::AddrNotAvailable)
}

/// Whether the daemon has no node. One that it has brought back goes on, whatever became of a
/// request.
async fn is_in_no_swarm(client: &Client) -> bool {
    let info = client.info().await;
    info.is_ok_and(|info| info.state == "inactive")
}

/// What has become of the swarm, and how managers join it again.
fn print_alone(answer: &v1::InitResponse) -> Result<()> {
    print(&format!(
        "Swarm initialized: current node ({}) is now its only manager, and services go on.\n\n",
        answer.node_id
    ))?;
    if !answer.left_behind.is_empty() {
        print(&format!(
            "Left behind: {}. Where one of them comes back, run 'swarmlet leave --force' on it and \
             join it again; remove it from the list of nodes with 'swarmlet node rm'.\n\n",
            answer.left_behind.join(", ")
        ))?;
    }
    print(
        "To add a manager to this swarm, run 'swarmlet join-token manager' and follow the \
         instructions.\n\n",
    )?;
    Ok(())
}

/// Ends a daemon that was started for a request that was then refused: it would only be in
/// the way of the next attempt, whose settings may be others.
async fn undo_start<T, E>(answer: Result<T, E>, started: Started, socket: &Path) -> Result<T>
where
    anyhow::Error: From<E>,
{
    match answer {
        Ok(answer) => Ok(answer),
        Err(error) => {
            started.undo(socket).await;
            Err(error.into())
        }
    }
}

/// Makes this node one of a cluster that exists.
///
/// # Errors
/// What is to be said to the user.
pub(crate) async fn join(args: JoinArgs, socket: &Path) -> Result<()> {
    let token = match (args.token, args.token_file) {
        (Some(token), _) => token,
        (None, Some(path)) => std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read the token from {}", path.display()))?,
        (None, None) => String::new(),
    };
    let token = token.trim().to_owned();
    // A mistyped token or address is answered before a daemon is started for it.
    token.parse::<swarmlet_proto::token::JoinToken>()?;
    for remote in &args.remotes {
        if let Err(error) = check_address(remote) {
            bail!("{error}; {}", error.remedy());
        }
    }
    let (client, started) = start::ensure(socket, &args.daemon).await?;
    let is_runtime_named = args.daemon.runtime.is_some();
    let request = v1::LocalJoinRequest {
        token,
        remotes: args.remotes,
        advertise_addr: args.advertise_addr.unwrap_or_default(),
        availability: Availability::from(args.availability).to_string(),
    };
    let answer = call_within(JOIN_DEADLINE, client.local().join(request)).await;
    let answer = undo_start(answer, started, socket).await?;
    // It has joined, whatever the daemon is about to be.
    if let Ok(info) = client.info().await {
        warn_of_elsewhere(&info.address);
        if !is_runtime_named {
            warn_of_processes(&info);
        }
    }
    print(&format!("This node joined a swarm as a {}.\n", answer.role))?;
    if answer.unheard {
        eprintln!(
            "WARNING: the managers have not heard this node yet: `swarmlet node ls` shows it as \
             Unknown, and as Down after a while, until they do. If it stays so, run `swarmlet doctor`."
        );
    }
    if answer.role == "manager" {
        warn_of_two(&client).await;
    }
    Ok(())
}

/// Takes this node out of its cluster.
///
/// # Errors
/// What is to be said to the user.
pub(crate) async fn leave(args: &LeaveArgs, client: &Client, socket: &Path) -> Result<()> {
    let pid = client.info().await.map(|info| info.pid)?;
    let request = v1::LeaveRequest { force: args.force };
    call_within(LEAVE_DEADLINE, client.local().leave(request)).await?;
    start::wait_for_end(socket, pid).await;
    print("Node left the swarm.\n")?;
    Ok(())
}

/// Shows or rotates a join token.
///
/// # Errors
/// What is to be said to the user.
pub(crate) async fn join_token(args: &JoinTokenArgs, client: &Client) -> Result<()> {
    let role = Role::from(args.role);
    let request = v1::JoinTokenRequest {
        role: role.to_string(),
        rotate: args.rotate,
    };
    let answer = call(client.control().join_token(request)).await?;
    if args.quiet {
        print(&format!("{}\n", answer.token))?;
        return Ok(());
    }
    if args.rotate {
        print(&format!("Successfully rotated {role} join token.\n\n"))?;
    }
    let address = answer.addresses.first().map_or("", String::as_str);
    print(&format!(
        "To add a {role} to this swarm, run the following command:\n\n    \
         swarmlet join --token {} {address}\n\n",
        answer.token
    ))?;
    Ok(())
}

/// What `info` shows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct InfoRow {
    #[serde(rename = "State")]
    state: String,
    #[serde(rename = "NodeID")]
    node: String,
    #[serde(rename = "ClusterID")]
    cluster: String,
    role: String,
    #[serde(rename = "NodeAddr")]
    address: String,
    runtime: String,
    #[serde(rename = "PID")]
    pid: u32,
    version: String,
    /// For whoever compares managers: a table has no room for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    raft: Option<RaftRow>,
}

/// How far a manager's copy of the state has come.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct RaftRow {
    term: u64,
    applied_index: u64,
    #[serde(rename = "StateSHA256")]
    state_sha256: String,
}

impl Row for InfoRow {
    const HEADERS: &'static [&'static str] = &[
        "SWARM", "NODE ID", "ROLE", "ADDRESS", "RUNTIME", "PID", "VERSION",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.state.clone(),
            self.node.clone(),
            self.role.clone(),
            self.address.clone(),
            self.runtime.clone(),
            self.pid.to_string(),
            self.version.clone(),
        ]
    }

    fn id(&self) -> &str {
        &self.node
    }
}

/// Shows what the daemon is doing.
///
/// # Errors
/// What is to be said to the user.
pub(crate) async fn info(args: &InfoArgs, client: &Client) -> Result<()> {
    let info = client.info().await?;
    let row = InfoRow {
        state: info.state,
        node: info.node_id,
        cluster: info.cluster_id,
        role: info.role,
        address: info.address,
        runtime: info.runtime,
        pid: info.pid,
        version: info.program_version,
        raft: info.raft.map(|raft| RaftRow {
            term: raft.term,
            applied_index: raft.applied_index,
            state_sha256: raft.state_sha256,
        }),
    };
    let style = match args.format {
        Format::Table => Style::Table,
        Format::Json => Style::Json,
    };
    print(&list(&[row], style)?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_that_nobody_asked_for_are_told() {
        assert!(without_engine(&RuntimeKind::Process.to_string()).is_some());
        assert_eq!(without_engine(&RuntimeKind::Docker.to_string()), None);
        assert_eq!(without_engine(""), None, "of a daemon without a node");
    }

    #[test]
    fn an_address_of_another_machine_is_told_from_an_own_one() {
        for (address, expected) in [
            ("127.0.0.1", false),
            ("127.9.9.9", false),
            // Of documentation: nobody has it.
            ("192.0.2.1", true),
        ] {
            assert_eq!(
                is_elsewhere(address.parse().unwrap()),
                expected,
                "{address}"
            );
        }
    }
}
