//! The command line's way to its node's daemon: the local socket, a deadline for each request,
//! and one place where what went wrong becomes a sentence.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use swarmlet_core::model::{Node, NodeId, Service, Task};
use swarmlet_proto::ANSWER_LIMIT_BYTES;
use swarmlet_proto::v1;
use swarmlet_proto::v1::control_client::ControlClient;
use swarmlet_proto::v1::local_balancer_client::LocalBalancerClient;
use swarmlet_proto::v1::local_client::LocalClient;
use swarmlet_proto::v1::logs_client::LogsClient;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

/// Time for an answer of the cluster. A leader is elected within 2 s and managers give up a
/// write without a quorum after 2 s; what takes longer than this will not come any more.
const REQUEST_DEADLINE: Duration = Duration::from_secs(15);

/// Present in answers of a manager that could not ask the others.
const STALE_KEY: &str = "x-swarmlet-stale";

/// Whether there was one. A command is one process, and its answers come from many places.
static STALE_SEEN: AtomicBool = AtomicBool::new(false);

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nobody listens.
    #[error(
        "Cannot connect to the swarmlet daemon at unix://{}. Is the daemon running? (see `swarmlet doctor`)",
        .0.display()
    )]
    NoDaemon(PathBuf),
    /// Somebody listens, but not for everybody.
    #[error(
        "permission denied while trying to connect to the swarmlet daemon at unix://{}: run the \
         command as root or as a member of the socket's group",
        .0.display()
    )]
    Denied(PathBuf),
    /// The socket cannot be used for another reason.
    #[error("cannot connect to the swarmlet daemon at unix://{}: {error}", .path.display())]
    Socket {
        path: PathBuf,
        error: std::io::Error,
    },
    /// The daemon is there but does not answer.
    #[error("the daemon did not answer within {} seconds; the outcome is unknown", .0.as_secs())]
    Deadline(Duration),
    /// The daemon went away in the middle.
    #[error("the connection to the daemon broke ({0}); the outcome is unknown")]
    Broken(String),
    /// The cluster refused.
    #[error("{0}")]
    Refused(String),
    /// The cluster's answer makes no sense here.
    #[error("the daemon's answer cannot be read ({0}); are daemon and command of one version?")]
    Malformed(String),
    /// There is none of that name.
    #[error("no such {kind}: {name}")]
    Unknown { kind: &'static str, name: String },
    /// There are several of that name.
    #[error("{kind} {name} is ambiguous ({matches} matches found)")]
    Ambiguous {
        kind: &'static str,
        name: String,
        matches: usize,
    },
}

/// A connection to the daemon.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    channel: Channel,
}

impl Client {
    /// Connects to a daemon that runs already.
    ///
    /// # Errors
    /// [`ClientError`] that says why nobody can be talked to.
    pub(crate) async fn connect(socket: &Path) -> Result<Self, ClientError> {
        // The channel connects when it is first used and wraps what goes wrong in several
        // layers; a connection by hand gives the system's own error.
        let path = socket.to_owned();
        match tokio::net::UnixStream::connect(socket).await {
            Ok(_) => Ok(Self {
                channel: swarmlet_proto::transport::unix_channel(socket),
            }),
            Err(error) => Err(match error.kind() {
                ErrorKind::NotFound | ErrorKind::ConnectionRefused => ClientError::NoDaemon(path),
                ErrorKind::PermissionDenied => ClientError::Denied(path),
                _ => ClientError::Socket { path, error },
            }),
        }
    }

    /// What the daemon does for its own machine.
    pub(crate) fn local(&self) -> LocalClient<Channel> {
        LocalClient::new(self.channel.clone())
    }

    /// What the daemon does about its machine's balancer.
    pub(crate) fn local_balancer(&self) -> LocalBalancerClient<Channel> {
        LocalBalancerClient::new(self.channel.clone())
    }

    /// What the cluster does.
    pub(crate) fn control(&self) -> ControlClient<Channel> {
        ControlClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_LIMIT_BYTES)
    }

    /// What containers have written.
    pub(crate) fn logs(&self) -> LogsClient<Channel> {
        LogsClient::new(self.channel.clone())
    }

    /// All nodes, each with its `manager_status`.
    pub(crate) async fn nodes(&self) -> Result<Vec<(Node, String)>, ClientError> {
        let answer = call(self.control().list_nodes(v1::ListNodesRequest {})).await?;
        answer
            .nodes
            .into_iter()
            .map(|view| {
                let node = view.node.ok_or_else(|| missing("node"))?;
                Ok((read(node)?, view.manager_status))
            })
            .collect()
    }

    /// All nodes, by identifier.
    pub(crate) async fn nodes_by_id(&self) -> Result<BTreeMap<NodeId, Node>, ClientError> {
        let nodes = self.nodes().await?;
        Ok(nodes
            .into_iter()
            .map(|(node, _)| (node.id.clone(), node))
            .collect())
    }

    /// All services.
    pub(crate) async fn services(&self) -> Result<Vec<Service>, ClientError> {
        let answer = call(self.control().list_services(v1::ListServicesRequest {})).await?;
        answer.services.into_iter().map(read).collect()
    }

    /// The tasks of a service and of a node; an empty text stands for all.
    pub(crate) async fn tasks(&self, service: &str, node: &str) -> Result<Vec<Task>, ClientError> {
        let request = v1::ListTasksRequest {
            service_id: service.to_owned(),
            node_id: node.to_owned(),
        };
        let answer = call(self.control().list_tasks(request)).await?;
        answer.tasks.into_iter().map(read).collect()
    }

    /// What the daemon says of itself.
    pub(crate) async fn info(&self) -> Result<v1::InfoResponse, ClientError> {
        call(self.local().info(v1::InfoRequest {})).await
    }

    /// This node's identifier, where it belongs to a cluster.
    pub(crate) async fn own_id(&self) -> Result<Option<NodeId>, ClientError> {
        Ok(NodeId::parse(&self.info().await?.node_id).ok())
    }
}

/// Waits for an answer, but not for ever.
///
/// # Errors
/// [`ClientError`] for a refusal, a broken connection or no answer in time.
pub(crate) async fn call<T>(
    request: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, ClientError> {
    call_within(REQUEST_DEADLINE, request).await
}

/// As [`call`], with a deadline of its own for what takes its time (`join`, `leave`).
///
/// # Errors
/// As [`call`].
pub(crate) async fn call_within<T>(
    deadline: Duration,
    request: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, ClientError> {
    match tokio::time::timeout(deadline, request).await {
        Ok(Ok(response)) => {
            if response.metadata().contains_key(STALE_KEY) {
                STALE_SEEN.store(true, Ordering::Relaxed);
            }
            Ok(response.into_inner())
        }
        Ok(Err(status)) => Err(status_error(&status)),
        Err(_) => Err(ClientError::Deadline(deadline)),
    }
}

/// Says, once a command has printed what it had to, that this may be of the past.
pub(crate) fn warn_of_stale() {
    if STALE_SEEN.load(Ordering::Relaxed) {
        eprintln!(
            "WARNING: the swarm does not have a leader; this is what this manager knew last, and \
             it may be stale"
        );
    }
}

/// The one place where a status becomes a sentence.
pub(crate) fn status_error(status: &Status) -> ClientError {
    // A status that the daemon sent has no source; one that the transport made up has.
    if let Some(source) = std::error::Error::source(status) {
        let mut source = source;
        while let Some(deeper) = source.source() {
            source = deeper;
        }
        return ClientError::Broken(source.to_string());
    }
    match status.code() {
        Code::Unimplemented => ClientError::Malformed(format!(
            "it does not know the request: {}",
            status.message()
        )),
        code if status.message().is_empty() => ClientError::Refused(code.description().to_owned()),
        _ => ClientError::Refused(status.message().to_owned()),
    }
}

/// Reads a message as an object of the model.
///
/// # Errors
/// [`ClientError::Malformed`].
pub(crate) fn read<M, T>(message: M) -> Result<T, ClientError>
where
    T: TryFrom<M, Error: std::fmt::Display>,
{
    T::try_from(message).map_err(|error| ClientError::Malformed(error.to_string()))
}

/// An answer without a part that it must have.
pub(crate) fn missing(what: &str) -> ClientError {
    ClientError::Malformed(format!("it lacks {what}"))
}

/// Finds an object by its whole identifier, its name, or the beginning of its identifier, in
/// this order, as Docker does.
///
/// # Errors
/// [`ClientError::Unknown`] or [`ClientError::Ambiguous`].
pub(crate) fn find<'a, T>(
    kind: &'static str,
    name: &str,
    objects: &'a [T],
    describe: impl Fn(&'a T) -> (&'a str, &'a str),
) -> Result<&'a T, ClientError> {
    if let Some(object) = objects.iter().find(|object| describe(object).0 == name) {
        return Ok(object);
    }
    let by_name: Vec<_> = objects
        .iter()
        .filter(|object| describe(object).1 == name)
        .collect();
    let matches = if by_name.is_empty() && !name.is_empty() {
        objects
            .iter()
            .filter(|object| describe(object).0.starts_with(name))
            .collect()
    } else {
        by_name
    };
    match matches.as_slice() {
        [object] => Ok(object),
        [] => Err(ClientError::Unknown {
            kind,
            name: name.to_owned(),
        }),
        several => Err(ClientError::Ambiguous {
            kind,
            name: name.to_owned(),
            matches: several.len(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_found_by_id_name_and_prefix() {
        let objects = [
            ("abc1", "ng"),
            ("abc2", "api"),
            ("xyz", "abc1"),
            ("ng", "x"),
        ];
        let by = |name: &str| {
            find("service", name, &objects, |&(id, name)| (id, name))
                .map(|object| object.0)
                .map_err(|error| error.to_string())
        };
        assert_eq!(by("abc1"), Ok("abc1"), "an identifier goes before a name");
        assert_eq!(by("api"), Ok("abc2"));
        assert_eq!(by("ng"), Ok("ng"));
        assert_eq!(by("xy"), Ok("xyz"));
        assert_eq!(
            by("abc"),
            Err("service abc is ambiguous (2 matches found)".to_owned())
        );
        assert_eq!(by("nope"), Err("no such service: nope".to_owned()));
        assert_eq!(by(""), Err("no such service: ".to_owned()));
    }

    #[test]
    fn refusals_are_passed_on_as_they_are() {
        let text = |status: Status| status_error(&status).to_string();
        assert_eq!(
            text(Status::not_found("no such service: x")),
            "no such service: x"
        );
        assert_eq!(
            text(Status::new(Code::Unavailable, "")),
            Code::Unavailable.description()
        );
    }

    #[tokio::test]
    async fn a_missing_daemon_is_named_by_its_socket() {
        let error = Client::connect(Path::new("/nowhere/s")).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "Cannot connect to the swarmlet daemon at unix:///nowhere/s. Is the daemon running? (see `swarmlet doctor`)"
        );
    }
}
