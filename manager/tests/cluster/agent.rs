//! A node that runs nothing: it takes assignments, says at once that they run or have
//! stopped, and acknowledges every table.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use swarmlet_core::model::Role;
use swarmlet_proto::identity::Identity;
use swarmlet_proto::v1;
use swarmlet_proto::v1::agent_message::Kind as Say;
use swarmlet_proto::v1::dispatcher_client::DispatcherClient;
use swarmlet_proto::v1::manager_message::Kind as Hear;

use crate::harness::{Node, channel, description, join, until};

const RUNNING: i32 = v1::TaskState::Running as i32;
const SHUTDOWN: i32 = v1::TaskState::Shutdown as i32;

/// What an agent has seen.
#[derive(Default)]
pub(crate) struct Seen {
    /// Tasks that it has, with the state that it reported last.
    pub(crate) tasks: BTreeMap<String, i32>,
    /// The task as it was assigned last.
    pub(crate) assigned: BTreeMap<String, v1::Task>,
    /// Identifiers of tasks in the order in which they were started.
    pub(crate) started: Vec<String>,
    /// Identifiers of tasks that it was told to stop or to forget.
    pub(crate) stopped: Vec<String>,
    pub(crate) table: v1::EndpointTable,
    pub(crate) managers: Vec<String>,
    /// What the user wants of its node.
    pub(crate) spec: v1::NodeSpec,
    /// Logs that it was asked for.
    pub(crate) logs: Vec<v1::LogsWanted>,
    pub(crate) sessions: usize,
    /// By how many milliseconds its clock is ahead.
    pub(crate) clock_ahead_ms: i64,
    /// What it sees; told with each heartbeat.
    pub(crate) observation: v1::Observation,
    pub(crate) peers: Vec<v1::NodePeer>,
    pub(crate) problems: Vec<v1::NodeProblem>,
    pub(crate) last_error: Option<Status>,
}

pub(crate) struct Agent {
    pub(crate) hostname: String,
    pub(crate) identity: Identity,
    pub(crate) seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Agent {
    /// Joins as a worker and keeps a session with one of the managers, the first that works.
    pub(crate) async fn worker(hostname: &str, manager: &Node, all: &[&Node]) -> Self {
        let token = manager.token(Role::Worker).await;
        let joined = join(manager.address, &token, "").await.unwrap();
        Self::start(hostname, joined.identity, all)
    }

    /// The agent of a node that has its identity already.
    pub(crate) fn start(hostname: &str, identity: Identity, managers: &[&Node]) -> Self {
        Self::go_on(hostname, identity, managers, Arc::default())
    }

    /// The same agent with other managers; it still has its tasks.
    pub(crate) fn turn_to(self, managers: &[&Node]) -> Self {
        self.kill();
        let seen = self.seen.clone();
        Self::go_on(&self.hostname, self.identity.clone(), managers, seen)
    }

    fn go_on(
        hostname: &str,
        identity: Identity,
        managers: &[&Node],
        seen: Arc<Mutex<Seen>>,
    ) -> Self {
        let addresses: Vec<SocketAddr> = managers.iter().map(|node| node.address).collect();
        let run = run(
            hostname.to_owned(),
            identity.clone(),
            addresses,
            seen.clone(),
        );
        Self {
            hostname: hostname.to_owned(),
            identity,
            seen,
            task: tokio::spawn(run),
        }
    }

    pub(crate) fn id(&self) -> String {
        self.identity.node.to_string()
    }

    /// Waits until its node counts as ready.
    pub(crate) async fn is_ready(&self, manager: &Node) {
        let ready = v1::NodeState::Ready as i32;
        until(&format!("{} is ready", self.hostname), async || {
            let nodes = manager.nodes().await;
            let mut nodes = nodes.into_iter().filter_map(|view| view.node);
            let status = nodes.find(|node| node.id == self.id())?.status?;
            (status.state == ready).then_some(())
        })
        .await;
    }

    /// Falls silent, as a host that lost its power.
    pub(crate) fn kill(&self) {
        self.task.abort();
    }

    /// Tasks behind a published port as this node's balancer would know them, with their
    /// state, by task.
    pub(crate) fn endpoints(&self, port: u32) -> Vec<(String, i32)> {
        let seen = self.seen.lock().unwrap();
        let listener = seen.table.listeners.iter().find(|l| l.port == port);
        let endpoints = listener.map(|l| l.endpoints.as_slice()).unwrap_or_default();
        endpoints
            .iter()
            .map(|endpoint| (endpoint.task_id.clone(), endpoint.state))
            .collect()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(
    hostname: String,
    identity: Identity,
    managers: Vec<SocketAddr>,
    seen: Arc<Mutex<Seen>>,
) {
    for turn in 0.. {
        let address = managers[turn % managers.len()];
        let end = session(&hostname, &identity, address, &seen).await;
        if let Err(status) = end {
            seen.lock().unwrap().last_error = Some(status);
        }
        sleep(Duration::from_millis(100)).await;
    }
}

async fn session(
    hostname: &str,
    identity: &Identity,
    address: SocketAddr,
    seen: &Mutex<Seen>,
) -> Result<(), Status> {
    let (say, outbound) = mpsc::channel(64);
    let send = async |kind: Say| say.send(v1::AgentMessage { kind: Some(kind) }).await;
    let hello = Say::Hello(v1::Hello {
        description: Some(v1::NodeDescription {
            // Other than a manager's node in these tests, it has an agent, which answers.
            probe_port: 29_999,
            ..(&description(hostname)).into()
        }),
    });
    send(hello).await.unwrap();
    let mut client = DispatcherClient::new(channel(identity, address))
        .max_decoding_message_size(swarmlet_proto::ANSWER_LIMIT_BYTES);
    let mut inbound = client
        .session(ReceiverStream::new(outbound))
        .await?
        .into_inner();
    let mut heartbeat = interval(Duration::from_millis(250));
    loop {
        let message = tokio::select! {
            _ = heartbeat.tick() => {
                let (ahead, observation) = {
                    let seen = seen.lock().unwrap();
                    (seen.clock_ahead_ms, seen.observation.clone())
                };
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
                let now = u64::try_from(now.as_millis()).unwrap();
                let sent_at_ms = now.saturating_add_signed(ahead);
                if send(Say::Heartbeat(v1::Heartbeat { sent_at_ms })).await.is_err() {
                    return Ok(());
                }
                // Where the session has ended the next heartbeat finds out.
                let _ = send(Say::Observation(observation)).await;
                continue;
            }
            message = inbound.message() => message?,
        };
        let Some(message) = message else {
            return Ok(());
        };
        let answer = seen.lock().unwrap().hear(message.kind.unwrap());
        if let Some(answer) = answer
            && send(answer).await.is_err()
        {
            return Ok(());
        }
    }
}

impl Seen {
    fn hear(&mut self, message: Hear) -> Option<Say> {
        match message {
            Hear::Welcome(welcome) => {
                assert!(welcome.heartbeat_ms > 0);
                self.sessions += 1;
                self.spec = welcome.spec.unwrap();
                None
            }
            Hear::Spec(spec) => {
                self.spec = spec;
                None
            }
            Hear::Assignments(assignments) => {
                let reports = self.assign(assignments);
                (!reports.is_empty()).then_some(Say::Statuses(v1::StatusBatch { reports }))
            }
            Hear::Table(table) => {
                let version = table.version;
                self.table = table;
                Some(Say::Table(v1::TableReport {
                    version,
                    ..v1::TableReport::default()
                }))
            }
            Hear::Peers(list) => {
                self.peers = list.peers;
                None
            }
            Hear::Problems(list) => {
                self.problems = list.problems;
                None
            }
            Hear::Logs(wanted) => {
                self.logs.push(wanted);
                None
            }
            Hear::Managers(list) => {
                self.managers = list.managers.into_iter().map(|m| m.address).collect();
                None
            }
        }
    }

    fn assign(&mut self, assignments: v1::Assignments) -> Vec<v1::TaskReport> {
        if assignments.complete {
            let named: Vec<&String> = assignments.update.iter().map(|task| &task.id).collect();
            let gone: Vec<String> = self
                .tasks
                .keys()
                .filter(|id| !named.contains(id))
                .cloned()
                .collect();
            for id in gone {
                self.forget(id);
            }
        }
        for id in assignments.remove {
            self.forget(id);
        }
        let mut reports = Vec::new();
        for task in assignments.update {
            let before = self.tasks.get(&task.id).copied();
            let now = if task.desired >= SHUTDOWN {
                SHUTDOWN
            } else {
                RUNNING
            };
            let now = match before {
                Some(SHUTDOWN) => SHUTDOWN,
                _ if task.desired == v1::TaskState::Ready as i32 => task.desired,
                _ => now,
            };
            if now == RUNNING && before != Some(RUNNING) {
                self.started.push(task.id.clone());
            }
            if now == SHUTDOWN && before != Some(SHUTDOWN) {
                self.stopped.push(task.id.clone());
            }
            self.tasks.insert(task.id.clone(), now);
            reports.push(report(&task, now, self.started.len()));
            self.assigned.insert(task.id.clone(), task);
        }
        reports
    }

    fn forget(&mut self, id: String) {
        if self.tasks.remove(&id) == Some(RUNNING) {
            self.stopped.push(id);
        }
    }
}

fn report(task: &v1::Task, state: i32, count: usize) -> v1::TaskReport {
    let ports = task.ports.iter().map(|port| v1::TaskPort {
        target: port.target,
        host: 20000 + u32::try_from(count).unwrap(),
        protocol: port.protocol,
        mode: port.mode,
    });
    v1::TaskReport {
        task_id: task.id.clone(),
        status: Some(v1::TaskStatus {
            state,
            at_ms: 1,
            message: "pretended".to_owned(),
            ports: ports.collect(),
            container: Some(v1::ContainerStatus {
                id: format!("container-{}", task.id),
                ..v1::ContainerStatus::default()
            }),
            ..v1::TaskStatus::default()
        }),
    }
}

/// Waits until an agent's session has lasted through a moment, for tests about what must
/// *not* happen.
pub(crate) async fn watch_for(duration: Duration, mut check: impl FnMut()) {
    let end = Instant::now() + duration;
    while Instant::now() < end {
        check();
        sleep(Duration::from_millis(20)).await;
    }
}
