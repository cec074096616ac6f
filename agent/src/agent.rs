//! Puts the agent's parts together.
//!
//! ```text
//!   managers <──session──> Session ──assignments──> Worker ──steps──> Runtime
//!                            │  ^                     │
//!                       table│  │reports, statuses <──┘
//!                            v  │
//!                          Router ──tables──> TableSink
//! ```

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use swarmlet_core::model::{ClusterId, NodeId, NodeProblem, Place, Resources};
use swarmlet_proto::transport::IdentityStore;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::description::{GenericResources, NodeFacts};
use crate::diagnosis::{self, Told, Watched, Watcher};
use crate::ports::Ports;
use crate::publisher::Publisher;
use crate::routing::{Router, SinkReport, TableSink};
use crate::runtime::{Runtime, Scope};
use crate::session::{Connection, Farewell, Session};
use crate::standing::Standing;
use crate::store::{Kept, Store, StoreError};
use crate::worker::{Worker, WorkerHandle};

/// How long leaving may take. Grace periods are the user's choice and may be longer, but
/// whoever leaves by force has to get an answer.
const LEAVE_DEADLINE: Duration = Duration::from_secs(120);

/// What an agent is told by whoever starts it.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Folder of the agent's own, made where there is none; an absolute path.
    pub data_dir: PathBuf,
    /// The node.
    pub node: NodeId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Address at which other nodes reach this one's tasks.
    pub advertise: IpAddr,
    /// Host name.
    pub hostname: String,
    /// First and last port of the range that is given to tasks.
    pub task_ports: (u16, u16),
    /// What tasks may not reserve, for the system itself.
    pub reserve: Resources,
    /// What it has besides CPU and memory.
    pub generic: GenericResources,
    /// What must not run out, beside the container engine.
    pub watched: Watched,
    /// Managers to try where none are known from an earlier session.
    pub managers: Vec<SocketAddr>,
}

impl AgentConfig {
    /// Host names, addresses and numbers of the node.
    #[must_use]
    pub fn facts(&self) -> NodeFacts {
        NodeFacts {
            hostname: self.hostname.clone(),
            advertise: self.advertise,
            task_ports: self.task_ports,
            // Only a running agent answers.
            probe_port: 0,
            reserve: self.reserve.clone(),
            generic: self.generic.clone(),
        }
    }

    fn check(&self) -> Result<(), AgentError> {
        if !self.data_dir.is_absolute() {
            return Err(AgentError::RelativePath(self.data_dir.clone()));
        }
        let (first, last) = self.task_ports;
        if first == 0 || first > last {
            return Err(AgentError::TaskPorts(first, last));
        }
        Ok(())
    }

    fn place(&self) -> Place {
        Place {
            node: self.node.clone(),
            hostname: self.hostname.clone(),
            address: self.advertise,
        }
    }

    fn scope(&self) -> Scope {
        Scope {
            cluster: self.cluster.clone(),
            node: self.node.clone(),
            hostname: self.hostname.clone(),
            advertise: self.advertise,
            dir: self.data_dir.join("tasks"),
        }
    }
}

/// Why an agent does not start, or does not leave.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A path that depends on the working directory, which tasks do not share.
    #[error("the agent's folder {0} is not an absolute path")]
    RelativePath(PathBuf),
    /// A range of ports that has none.
    #[error("invalid range of task ports {0}-{1}: expected FIRST-LAST within 1-65535")]
    TaskPorts(u16, u16),
    /// The folder cannot be used.
    #[error("the agent's folder cannot be used")]
    Store(#[from] StoreError),
    /// Tasks did not end.
    #[error(
        "not all tasks were removed within {} s; the container engine or a task may hang",
        LEAVE_DEADLINE.as_secs()
    )]
    TasksLeft,
}

/// A running agent. Dropping it ends it, and its tasks go on running.
pub struct Agent {
    worker: WorkerHandle,
    store: Store,
    runtime: Arc<dyn Runtime>,
    /// Managers that it was started with.
    seeds: Vec<SocketAddr>,
    connected: watch::Receiver<Connection>,
    problems: watch::Receiver<Vec<NodeProblem>>,
    farewell: Farewell,
    stop: CancellationToken,
    parts: Mutex<JoinSet<()>>,
}

impl Agent {
    /// Starts the agent: containers that run are adopted, the last table is applied, and a
    /// session is kept from now on. None of it needs a manager.
    ///
    /// # Errors
    /// [`AgentError`] where the configuration or the folder is unusable.
    pub async fn start(
        config: AgentConfig,
        identities: IdentityStore,
        runtime: Arc<dyn Runtime>,
        sink: Arc<dyn TableSink>,
    ) -> Result<Self, AgentError> {
        config.check()?;
        let store = Store::open(&config.data_dir)?;
        let reading = store.clone();
        let kept = tokio::task::spawn_blocking(move || reading.load())
            .await
            .unwrap_or_else(|error| {
                tracing::error!(%error, "what was kept on disk could not be read");
                Kept::default()
            });
        let mut ports = Ports::new(
            &config.node,
            config.advertise,
            config.task_ports,
            kept.ports,
        );
        let probe = ports.for_probes();
        let probe_port = probe
            .as_ref()
            .and_then(|listener| listener.local_addr().ok())
            .map_or(0, |address| address.port());
        let managers = managers(kept.managers, config.managers.clone());
        let (connection, connected) = watch::channel(Connection::default());
        let (to_watcher, told_of_cluster) = watch::channel(Told::default());
        let (watcher, views) = Watcher::new(
            config.place(),
            runtime.clone(),
            config.watched.clone(),
            told_of_cluster,
            connected.clone(),
            managers.clone(),
        );
        let (worker, handle, told) = Worker::new(
            config.scope(),
            runtime.clone(),
            store.clone(),
            ports,
            kept.tasks,
            connected.clone(),
        );
        let (tables, table) = watch::channel(kept.table.map(Arc::new));
        let (to_session, reports) = watch::channel(SinkReport::default());
        let router = Router {
            node: config.node.clone(),
            store: store.clone(),
            sink,
            worker: handle.clone(),
        };
        let stop = CancellationToken::new();
        let farewell = Farewell::default();
        let session = Session {
            publisher: Publisher::new(
                identities.clone(),
                runtime.clone(),
                config.scope(),
                stop.clone(),
            ),
            identities,
            facts: NodeFacts {
                probe_port,
                ..config.facts()
            },
            runtime: runtime.clone(),
            store: store.clone(),
            worker: handle.clone(),
            managers,
            standing: Standing::new(kept.incarnation),
            statuses: told.statuses,
            engine: told.engine,
            reports,
            tables,
            connected: connection,
            views: views.clone(),
            told: to_watcher,
            farewell: farewell.clone(),
        };
        let mut parts = JoinSet::new();
        parts.spawn(worker.run(stop.clone()));
        parts.spawn(router.run(table, to_session, stop.clone()));
        parts.spawn(session.run(stop.clone()));
        parts.spawn(watcher.run(stop.clone()));
        if let Some(listener) = probe {
            parts.spawn(diagnosis::answer(listener, stop.clone()));
        }
        Ok(Self {
            worker: handle,
            store,
            runtime,
            seeds: config.managers,
            connected,
            problems: views.problems,
            farewell,
            stop,
            parts: Mutex::new(parts),
        })
    }

    /// The managers that it knows, whether or not it has a session with one. This reads a small
    /// file.
    #[must_use]
    pub fn managers(&self) -> Vec<SocketAddr> {
        managers(self.store.managers(), self.seeds.clone())
    }

    /// How the agent stands with the managers.
    #[must_use]
    pub fn connected(&self) -> watch::Receiver<Connection> {
        self.connected.clone()
    }

    /// Everything that is known to be wrong: in the whole cluster while there is a session, and
    /// with this node alone otherwise.
    #[must_use]
    pub fn problems(&self) -> watch::Receiver<Vec<NodeProblem>> {
        self.problems.clone()
    }

    /// What runs the node's tasks.
    #[must_use]
    pub fn runtime(&self) -> &dyn Runtime {
        &*self.runtime
    }

    /// Ends the agent; tasks go on running.
    pub async fn stop(&self) {
        self.stop.cancel();
        let mut parts = self.parts.lock().await;
        while let Some(part) = parts.join_next().await {
            if let Err(error) = part {
                tracing::error!(%error, "a part of the agent failed");
            }
        }
    }

    /// Tells the managers, stops and removes every task, ends the agent, and forgets what it kept.
    ///
    /// # Errors
    /// [`AgentError::TasksLeft`] where tasks do not end in time; the agent has ended then,
    /// and what it kept is still there, so that another attempt can be made.
    pub async fn leave(&self) -> Result<(), AgentError> {
        // First, so that nobody is sent to its tasks any more and others take their place.
        self.farewell.say().await;
        let left = tokio::time::timeout(LEAVE_DEADLINE, self.worker.leave()).await;
        self.stop().await;
        left.map_err(|_| AgentError::TasksLeft)?;
        self.store.wipe()?;
        Ok(())
    }
}

/// Managers known from the last session, and after them those that are not.
fn managers(kept: Vec<SocketAddr>, seeds: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let mut managers = kept;
    for seed in seeds {
        if !managers.contains(&seed) {
            managers.push(seed);
        }
    }
    managers
}
