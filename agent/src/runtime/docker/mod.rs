//! Tasks as containers of a Docker engine (API 1.41, Docker 20.10, and later).
//!
//! The engine keeps everything: labels carry cluster, node, task and ports, so that an agent
//! without any memory finds its containers again and leaves those of others alone.

mod create;
mod events;
mod image;
mod log;
mod observe;
mod pulls;
mod resolve;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder, StartContainerOptions, StopContainerOptionsBuilder,
};
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{self, BoxStream, StreamExt};
use swarmlet_core::model::{RegistryAuth, Resources, RuntimeKind, Task, TaskId, TaskPort, cut};
use tokio::time::Instant;

use self::pulls::Pulls;
use super::exits::Exits;
use super::log::{LogLine, LogQuery};
use super::{
    Container, ContainerState, DetectError, Engine, Resolved, Runtime, RuntimeError, RuntimeEvent,
    Scope, go_arch,
};
use crate::registry;

/// Where an engine listens when nobody says otherwise.
const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// How long a call may take. Engines under load answer a create after seconds; one that takes
/// longer than this hangs.
const CALL_DEADLINE: Duration = Duration::from_secs(30);

/// How long the engine may take to say that it is there, which costs it nothing.
const PING_DEADLINE: Duration = Duration::from_secs(2);

/// What a stop may take beyond the grace period: the kill, and the clean-up after it.
const STOP_SLACK: Duration = Duration::from_secs(30);

/// How long an engine may go on saying that a container runs whose process has ended: it
/// cleans up first. After this it is believed.
const CLEAN_UP: Duration = Duration::from_secs(3);

/// Pause between two looks at such a container.
const CLEAN_UP_POLL: Duration = Duration::from_millis(20);

/// The most bytes of an engine's reason that are told. Its own are a line or two; a page of HTML
/// comes from something else that answers at its socket.
const MOST_REASON: usize = 1_000;

/// Containers looked at at the same time.
const CONCURRENT_INSPECTIONS: usize = 8;

/// Labels of a container.
mod label {
    pub(super) const CLUSTER: &str = "swarmlet.cluster.id";
    pub(super) const NODE: &str = "swarmlet.node.id";
    pub(super) const SERVICE: &str = "swarmlet.service.id";
    pub(super) const SERVICE_NAME: &str = "swarmlet.service.name";
    pub(super) const TASK: &str = "swarmlet.task.id";
    pub(super) const TASK_NAME: &str = "swarmlet.task.name";
    pub(super) const PORTS: &str = "swarmlet.task.ports";
}

/// Runs tasks as containers.
#[derive(Debug, Clone)]
pub struct DockerRuntime {
    host: String,
    exits: Exits,
    pulls: Pulls,
    /// The folder of the Docker configuration with this node's own registry credentials.
    docker_config: Option<PathBuf>,
}

impl DockerRuntime {
    /// A runtime of the engine at `host` (`unix://PATH` or `tcp://HOST:PORT`), or of the
    /// machine's own where there is none. It need not answer yet.
    ///
    /// # Errors
    /// [`DetectError::InvalidHost`] for any other form.
    pub fn new(host: Option<&str>) -> Result<Self, DetectError> {
        let host = host.filter(|host| !host.is_empty()).unwrap_or(DEFAULT_HOST);
        let known = ["unix://", "tcp://", "http://"].iter().any(|scheme| {
            host.strip_prefix(scheme)
                .is_some_and(|rest| !rest.is_empty())
        });
        if !known {
            return Err(DetectError::InvalidHost(host.to_owned()));
        }
        Ok(Self {
            host: host.to_owned(),
            exits: Exits::default(),
            pulls: Pulls::default(),
            docker_config: registry::config_dir(),
        })
    }

    /// A client for one call. It is made each time, because making it fails where the
    /// engine's socket does not exist yet, and it costs nothing: no connection is kept.
    fn client(&self, deadline: Duration) -> Result<Docker, RuntimeError> {
        Docker::connect_with_host(&self.host)
            .map(|client| client.with_timeout(deadline))
            .map_err(|error| self.away(&error))
    }

    fn away(&self, error: &dyn std::error::Error) -> RuntimeError {
        RuntimeError::Unavailable(format!(
            "cannot connect to the Docker engine at {}: {}",
            self.host,
            root_cause(error)
        ))
    }

    /// Something answers, and not as an engine does. Nothing follows from such an answer, least
    /// of all that a container is gone.
    fn strange(&self, answer: &str) -> RuntimeError {
        RuntimeError::Unavailable(format!(
            "the Docker engine at {} gives no valid answer: {answer}",
            self.host
        ))
    }

    /// Gives a call its deadline and its errors their meaning.
    async fn call<T>(
        &self,
        deadline: Duration,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<Answer<T>, RuntimeError> {
        match tokio::time::timeout(deadline, call).await {
            Ok(Ok(value)) => Ok(Answer::Value(value)),
            Ok(Err(Error::DockerResponseServerError {
                status_code,
                message,
            })) => Ok(Answer::Error(status_code, reason(status_code, &message))),
            Ok(Err(Error::RequestTimeoutError)) | Err(_) => Err(RuntimeError::Unavailable(
                format!("the Docker engine at {} does not answer", self.host),
            )),
            Ok(Err(Error::HyperLegacyError { err })) if err.is_connect() => Err(self.away(&err)),
            Ok(Err(error)) => Err(self.strange(&root_cause(&error))),
        }
    }

    /// The identifiers of containers with a label, those that ended included.
    async fn ids(&self, labels: Vec<String>) -> Result<Vec<String>, RuntimeError> {
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&HashMap::from([("label", labels)]))
            .build();
        let client = self.client(CALL_DEADLINE)?;
        let found = self
            .call(CALL_DEADLINE, client.list_containers(Some(options)))
            .await?
            .value()?;
        let ids: Option<_> = found.into_iter().map(|container| container.id).collect();
        ids.ok_or_else(|| self.strange("a container without an identifier"))
    }

    /// The identifier of a task's container.
    async fn find(&self, scope: &Scope, task: &TaskId) -> Result<Option<String>, RuntimeError> {
        let mut labels = scope_labels(scope);
        labels.push(format!("{}={task}", label::TASK));
        Ok(self.ids(labels).await?.into_iter().next())
    }

    async fn inspect_id(&self, id: &str) -> Result<Option<Container>, RuntimeError> {
        let client = self.client(CALL_DEADLINE)?;
        let call = client.inspect_container(id, None::<InspectContainerOptions>);
        match self.call(CALL_DEADLINE, call).await? {
            Answer::Value(found) => {
                let container =
                    observe::container(&found).map_err(|missing| self.strange(missing))?;
                if let Some(container) = &container {
                    self.exits.observe(container);
                }
                Ok(container)
            }
            Answer::Error(404, _) => {
                self.exits.forget(id);
                Ok(None)
            }
            Answer::Error(_, message) => Err(RuntimeError::Refused(message)),
        }
    }

    async fn inspect_task(
        &self,
        scope: &Scope,
        task: &TaskId,
    ) -> Result<Option<Container>, RuntimeError> {
        let Some(id) = self.find(scope, task).await? else {
            return Ok(None);
        };
        let deadline = Instant::now() + CLEAN_UP;
        loop {
            let found = self.inspect_id(&id).await?;
            match &found {
                Some(container) if self.exits.contradicts(container) => {}
                _ => return Ok(found),
            }
            if Instant::now() >= deadline {
                // The engine knows better after all.
                self.exits.forget(&id);
                return Ok(found);
            }
            tokio::time::sleep(CLEAN_UP_POLL).await;
        }
    }

    async fn start_task(
        &self,
        scope: &Scope,
        task: &Task,
        ports: &[TaskPort],
    ) -> Result<Container, RuntimeError> {
        if let Some(found) = self.inspect_task(scope, &task.id).await? {
            if found.state != ContainerState::Created {
                return Ok(found);
            }
            // An earlier attempt made it, maybe with other ports, and got no further.
            self.remove_id(&found.id).await?;
        }
        let body = create::body(scope, task, ports)?;
        let options = CreateContainerOptionsBuilder::new()
            .name(&task.container_name())
            .build();
        let client = self.client(CALL_DEADLINE)?;
        let call = client.create_container(Some(options), body);
        let id = match self.call(CALL_DEADLINE, call).await? {
            Answer::Value(created) => {
                for warning in created.warnings {
                    tracing::warn!(task = %task.id, warning, "the engine warns");
                }
                created.id
            }
            Answer::Error(status, message) => return Err(refusal(status, message)),
        };
        let call = client.start_container(&id, None::<StartContainerOptions>);
        if let Answer::Error(status, message) = self.call(CALL_DEADLINE, call).await? {
            // What was made for these ports is of no use to another attempt.
            self.remove_id(&id).await?;
            return Err(refusal(status, message));
        }
        // Only now does it have an address and a process.
        self.inspect_id(&id)
            .await?
            .ok_or_else(|| RuntimeError::Refused("the container is gone".to_owned()))
    }

    async fn stop_task(
        &self,
        scope: &Scope,
        task: &TaskId,
        grace: Duration,
    ) -> Result<(), RuntimeError> {
        let Some(id) = self.find(scope, task).await? else {
            return Ok(());
        };
        let seconds = i32::try_from(grace.as_millis().div_ceil(1000)).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::new().t(seconds).build();
        let deadline = grace.saturating_add(STOP_SLACK);
        let client = self.client(deadline)?;
        match self
            .call(deadline, client.stop_container(&id, Some(options)))
            .await?
        {
            Answer::Value(()) | Answer::Error(304 | 404, _) => Ok(()),
            Answer::Error(_, message) => Err(RuntimeError::Refused(message)),
        }
    }

    async fn remove_id(&self, id: &str) -> Result<(), RuntimeError> {
        let options = RemoveContainerOptionsBuilder::new()
            .force(true)
            .v(true)
            .build();
        let client = self.client(CALL_DEADLINE)?;
        match self
            .call(CALL_DEADLINE, client.remove_container(id, Some(options)))
            .await?
        {
            // 409: somebody else is removing it already.
            Answer::Value(()) | Answer::Error(404 | 409, _) => Ok(()),
            Answer::Error(_, message) => Err(RuntimeError::Refused(message)),
        }
    }

    async fn describe_engine(&self) -> Result<Engine, RuntimeError> {
        let client = self.client(CALL_DEADLINE)?;
        let info = self.call(CALL_DEADLINE, client.info()).await?.value()?;
        let labels = info
            .labels
            .unwrap_or_default()
            .iter()
            .map(|label| match label.split_once('=') {
                Some((name, value)) => (name.to_owned(), value.to_owned()),
                None => (label.clone(), String::new()),
            })
            .collect::<BTreeMap<_, _>>();
        let number = |value: Option<i64>| value.and_then(|n| u64::try_from(n).ok());
        let (Some(version), Some(cpus), Some(memory_bytes)) = (
            info.server_version.filter(|version| !version.is_empty()),
            number(info.ncpu),
            number(info.mem_total),
        ) else {
            return Err(self.strange("no version, processors or memory"));
        };
        Ok(Engine {
            version,
            labels,
            resources: Resources {
                nano_cpus: cpus.saturating_mul(1_000_000_000),
                memory_bytes,
                ..Resources::default()
            },
            arch: go_arch(&info.architecture.unwrap_or_default()).to_owned(),
            storage: info.docker_root_dir.map(PathBuf::from),
        })
    }
}

impl Runtime for DockerRuntime {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Docker
    }

    fn describe(&self) -> BoxFuture<'_, Result<Engine, RuntimeError>> {
        self.describe_engine().boxed()
    }

    fn alive(&self) -> BoxFuture<'_, Result<(), RuntimeError>> {
        async move {
            let client = self.client(PING_DEADLINE)?;
            self.call(PING_DEADLINE, client.ping()).await?.value()?;
            Ok(())
        }
        .boxed()
    }

    fn resolve<'a>(
        &'a self,
        image: &'a str,
        auth: Option<&'a RegistryAuth>,
    ) -> BoxFuture<'a, Result<Option<Resolved>, RuntimeError>> {
        self.resolve_image(image, auth).boxed()
    }

    fn prepare<'a>(
        &'a self,
        scope: &'a Scope,
        task: &'a Task,
    ) -> BoxFuture<'a, Result<(), RuntimeError>> {
        async move {
            // Whatever would be refused at the start is refused before anything is pulled.
            create::body(scope, task, &[])?;
            match task.spec.container() {
                Some(container) => self.have_image(container).await,
                None => Err(RuntimeError::Rejected(
                    "the task has no container".to_owned(),
                )),
            }
        }
        .boxed()
    }

    fn start<'a>(
        &'a self,
        scope: &'a Scope,
        task: &'a Task,
        ports: &'a [TaskPort],
    ) -> BoxFuture<'a, Result<Container, RuntimeError>> {
        self.start_task(scope, task, ports).boxed()
    }

    fn inspect<'a>(
        &'a self,
        scope: &'a Scope,
        task: &'a TaskId,
    ) -> BoxFuture<'a, Result<Option<Container>, RuntimeError>> {
        self.inspect_task(scope, task).boxed()
    }

    fn list<'a>(&'a self, scope: &'a Scope) -> BoxFuture<'a, Result<Vec<Container>, RuntimeError>> {
        async move {
            let ids = self.ids(scope_labels(scope)).await?;
            let looks: Vec<_> = ids
                .into_iter()
                .map(|id| async move { self.inspect_id(&id).await })
                .collect();
            let found: Vec<_> = stream::iter(looks)
                .buffer_unordered(CONCURRENT_INSPECTIONS)
                .collect()
                .await;
            found.into_iter().filter_map(Result::transpose).collect()
        }
        .boxed()
    }

    fn events(&self, scope: &Scope) -> BoxStream<'static, RuntimeEvent> {
        stream::select(self.exits.events(), events::stream(self.clone(), scope)).boxed()
    }

    fn stop<'a>(
        &'a self,
        scope: &'a Scope,
        task: &'a TaskId,
        grace: Duration,
    ) -> BoxFuture<'a, Result<(), RuntimeError>> {
        self.stop_task(scope, task, grace).boxed()
    }

    fn remove<'a>(
        &'a self,
        scope: &'a Scope,
        task: &'a TaskId,
    ) -> BoxFuture<'a, Result<(), RuntimeError>> {
        async move {
            match self.find(scope, task).await? {
                Some(id) => self.remove_id(&id).await,
                None => Ok(()),
            }
        }
        .boxed()
    }

    fn logs(
        &self,
        scope: &Scope,
        task: &TaskId,
        query: LogQuery,
    ) -> BoxStream<'static, Result<LogLine, RuntimeError>> {
        log::stream(self.clone(), scope, task, query)
    }
}

/// What an engine that is there answers.
enum Answer<T> {
    Value(T),
    /// HTTP status and message.
    Error(u16, String),
}

impl<T> Answer<T> {
    fn value(self) -> Result<T, RuntimeError> {
        match self {
            Self::Value(value) => Ok(value),
            Self::Error(_, message) => Err(RuntimeError::Refused(message)),
        }
    }
}

/// An engine's reason, which is told to the managers: never without a word, and no page of them.
fn reason(status: u16, message: &str) -> String {
    match message.trim() {
        "" => format!("the Docker engine answers with HTTP status {status} and no reason"),
        message => cut(message.to_owned(), MOST_REASON),
    }
}

/// What a refused create or start means. The engine has no codes for it, only texts.
fn refusal(status: u16, message: String) -> RuntimeError {
    let taken = ["port is already allocated", "address already in use"]
        .iter()
        .any(|text| message.contains(text));
    if taken {
        return RuntimeError::PortTaken(message);
    }
    match status {
        400 | 403 | 404 => RuntimeError::Rejected(message),
        _ => RuntimeError::Refused(message),
    }
}

fn scope_labels(scope: &Scope) -> Vec<String> {
    vec![
        format!("{}={}", label::CLUSTER, scope.cluster),
        format!("{}={}", label::NODE, scope.node),
    ]
}

/// The innermost error: of "error in the client: connect error: no such file" the last part
/// is what the user can do something about.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod fake_engine;
#[cfg(test)]
mod strange_tests;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_have_addresses_of_known_form() {
        for host in [
            None,
            Some(""),
            Some("unix:///x"),
            Some("tcp://127.0.0.1:2375"),
        ] {
            assert!(DockerRuntime::new(host).is_ok(), "{host:?}");
        }
        for host in ["/var/run/docker.sock", "unix://", "ssh://host", "docker"] {
            let error = DockerRuntime::new(Some(host)).unwrap_err().to_string();
            assert!(error.contains(&format!("{host:?}")), "{error}");
        }
    }

    #[test]
    fn refusals_are_told_apart() {
        let text = |text: &str| text.to_owned();
        let allocated = "driver failed programming external connectivity on endpoint ng: Bind for 10.0.0.1:20000 failed: port is already allocated";
        assert_eq!(
            refusal(500, text(allocated)),
            RuntimeError::PortTaken(text(allocated))
        );
        assert_eq!(
            refusal(404, text("No such image: x:latest")),
            RuntimeError::Rejected(text("No such image: x:latest"))
        );
        assert_eq!(
            refusal(500, text("no space")),
            RuntimeError::Refused(text("no space"))
        );
    }

    #[test]
    fn a_reason_is_never_empty_and_never_a_page() {
        assert_eq!(reason(500, "no space\n"), "no space");
        assert!(reason(502, " \n").contains("502"));
        assert!(reason(500, &"é".repeat(5_000)).len() <= MOST_REASON);
    }

    #[tokio::test]
    async fn an_engine_that_is_away_is_unavailable() {
        let runtime = DockerRuntime::new(Some("unix:///nonexistent/docker.sock")).unwrap();
        let error = runtime.describe().await.unwrap_err();
        assert!(
            matches!(&error, RuntimeError::Unavailable(text) if text.contains("/nonexistent/docker.sock")),
            "{error}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_hangs_is_unavailable() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("docker.sock");
        let _listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let runtime = DockerRuntime::new(Some(&format!("unix://{}", socket.display()))).unwrap();
        let error = runtime.describe().await.unwrap_err();
        assert!(
            matches!(&error, RuntimeError::Unavailable(text) if text.ends_with("does not answer")),
            "{error}"
        );
    }
}
