//! The session with a manager: any manager, one at a time, for ever.
//!
//! ```text
//!   choose ──> connect ──> hello ──> welcome ──> serve ──┐
//!     ^                                                  │ error, end, silence
//!     └────────────── pause with jitter <────────────────┘
//! ```
//!
//! What arrives goes to the worker and the router; what they have to say is read from watch
//! channels, which hold the latest only: a session that was cut is followed by one that says
//! everything again, and nothing piles up in between.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use swarmlet_core::diagnosis::Peer;
use swarmlet_core::endpoints::Table;
use swarmlet_core::model::{InvalidId, NodeDescription, NodeProblem, NodeSpec, Role, Task, TaskId};
use swarmlet_proto::convert::Malformed;
use swarmlet_proto::transport::{IdentityStore, channel};
use swarmlet_proto::v1;
use swarmlet_proto::v1::dispatcher_client::DispatcherClient;
use swarmlet_proto::{ANSWER_LIMIT_BYTES, clock};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use crate::cause::chain;
use crate::description::{NodeFacts, describe};
use crate::diagnosis::{Told, Views};
use crate::publisher::Publisher;
use crate::routing::SinkReport;
use crate::runtime::Runtime;
use crate::standing::{Past, Standing};
use crate::store::Store;
use crate::worker::{Assignments, Outbox, WorkerHandle};

/// First and longest pause between two attempts. A new leader is there within two seconds;
/// waiting longer would only keep the node unknown.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// How long a manager may take to answer the hello. One that is stopped still completes the
/// connection, because its kernel does.
const WELCOME_DEADLINE: Duration = Duration::from_secs(3);

/// How long a message may wait until the manager takes it. The node would be unknown soon
/// after, so it is time for another manager.
const SEND_DEADLINE: Duration = Duration::from_secs(2);

/// How long a node that leaves waits for a manager to take note of it. One that works answers
/// within a round of the leader; the others find out by the silence.
const FAREWELL_DEADLINE: Duration = Duration::from_secs(2);

/// Statuses are collected for this long: they come in bursts, and each batch costs the
/// leader a log entry.
const BATCH_DELAY: Duration = Duration::from_millis(50);

/// Statuses in one message, which keeps it well below the limit of 4 MiB.
const BATCH: usize = 200;

/// A manager may ask for heartbeats this often, and no more often.
const HEARTBEAT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(60));

/// How often an engine that answers but has not described itself is asked again.
const ENGINE_PAUSE: Duration = Duration::from_secs(2);

/// How the agent stands with the managers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Connection {
    /// The manager that the session is with, while there is one.
    pub manager: Option<SocketAddr>,
    /// Why there is none, in the words of the last attempt.
    pub error: Option<String>,
    /// What the user wants of the node, from the last welcome.
    pub spec: Option<NodeSpec>,
    /// Why the managers do not take the node for one of theirs any more: it was removed, or left
    /// behind as a manager. Absent while they do, or while none of them answers.
    pub expelled: Option<String>,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    #[error("{}", .0.message())]
    Status(#[from] tonic::Status),
    /// One that was left behind, and does not know it.
    #[error(
        "the manager's state is of the past: another manager went on without it (`swarmlet init \
         --force-new-cluster`)"
    )]
    Past,
    #[error("the manager does not answer")]
    Silent,
    #[error("the manager takes no more messages")]
    Stuck,
    #[error("the manager ended the session")]
    Ended,
    #[error("the node leaves its swarm")]
    Left,
    #[error("a message of the manager is malformed")]
    Malformed(#[from] Malformed),
    #[error("a message of the manager is malformed")]
    Id(#[from] InvalidId),
    #[error("a message of the manager is malformed: {0}")]
    Message(&'static str),
}

/// Everything that a session needs.
pub(crate) struct Session {
    pub(crate) identities: IdentityStore,
    pub(crate) facts: NodeFacts,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) store: Store,
    pub(crate) worker: WorkerHandle,
    pub(crate) managers: Vec<SocketAddr>,
    pub(crate) standing: Standing,
    pub(crate) statuses: watch::Receiver<Outbox>,
    /// Whether the engine answers.
    pub(crate) engine: watch::Receiver<bool>,
    pub(crate) reports: watch::Receiver<SinkReport>,
    pub(crate) tables: watch::Sender<Option<Arc<Table>>>,
    pub(crate) connected: watch::Sender<Connection>,
    /// What the node sees of itself and the others.
    pub(crate) views: Views,
    /// What the managers tell of the others.
    pub(crate) told: watch::Sender<Told>,
    /// Brings logs to managers that ask for them.
    pub(crate) publisher: Publisher,
    pub(crate) farewell: Farewell,
}

/// How the managers learn that the node leaves: while a session lasts, it is the last that they
/// are told in it.
#[derive(Clone, Default)]
pub(crate) struct Farewell {
    wanted: CancellationToken,
    said: CancellationToken,
}

impl Farewell {
    /// Ends the session for good; returns once a manager has taken note, or did not in time.
    pub(crate) async fn say(&self) {
        self.wanted.cancel();
        if timeout(FAREWELL_DEADLINE, self.said.cancelled())
            .await
            .is_err()
        {
            tracing::warn!("the managers do not know yet that this node leaves");
        }
    }
}

impl Session {
    /// Keeps a session for as long as `stop` is not cancelled.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let farewell = self.farewell.clone();
        // Whatever ends this, whoever waits for the farewell waits no longer.
        let _said = farewell.said.drop_guard();
        let mut pause = BACKOFF.0;
        loop {
            let suspects = self.views.suspects.borrow().clone();
            for manager in order(&self.managers, self.facts.advertise, &suspects, random()) {
                let ended = tokio::select! {
                    () = stop.cancelled() => return,
                    ended = self.with(manager) => ended,
                };
                let was_connected = self.connected.borrow().manager.is_some();
                self.note(manager, &ended);
                if farewell.wanted.is_cancelled() {
                    return;
                }
                if was_connected {
                    pause = BACKOFF.0;
                    // The list may have changed, and the order is to be drawn anew.
                    break;
                }
            }
            if let Some(reason) = self.standing.end_round() {
                self.note_expelled(reason);
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = farewell.wanted.cancelled() => return,
                () = sleep(jittered(pause, random())) => {}
            }
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    /// Once for each reason, as of a session that ended.
    fn note_expelled(&self, reason: String) {
        self.connected.send_if_modified(|connection| {
            let news = connection.expelled.as_ref() != Some(&reason);
            if news {
                tracing::error!("{reason}");
                connection.expelled = Some(reason);
            }
            news
        });
    }

    fn note(&mut self, manager: SocketAddr, ended: &SessionError) {
        if let SessionError::Status(status) = ended {
            self.standing.refused(status);
        }
        let error = Some(format!("{manager}: {}", chain(ended)));
        let error = error.as_deref();
        self.connected.send_if_modified(|connection| {
            let news = connection.manager.is_some() || connection.error.as_deref() != error;
            if news {
                // Once for each reason: managers that stay away would fill the log.
                tracing::warn!(error, "no session with a manager");
                connection.manager = None;
                connection.error = error.map(str::to_owned);
            }
            news
        });
    }

    /// One session. It only ever ends with a reason.
    async fn with(&mut self, manager: SocketAddr) -> SessionError {
        let description = describe(&self.facts, &*self.runtime).await;
        match self.open(manager, &description).await {
            Ok((link, inbound, heartbeat)) => {
                let describing = redescribe(
                    &link,
                    self.facts.clone(),
                    self.runtime.clone(),
                    self.engine.clone(),
                    description,
                );
                tokio::select! {
                    ended = self.serve(&link, inbound, heartbeat) => ended,
                    ended = describing => ended,
                }
            }
            Err(error) => error,
        }
    }

    async fn open(
        &mut self,
        manager: SocketAddr,
        description: &NodeDescription,
    ) -> Result<(Link, Streaming<v1::ManagerMessage>, Duration), SessionError> {
        let channel = channel(manager, &self.identities, Role::Manager);
        // Room for a few messages; behind it the sender waits, with a deadline.
        let (sender, outbound) = mpsc::channel(16);
        let link = Link(sender);
        link.send(v1::agent_message::Kind::Hello(v1::Hello {
            description: Some(v1::NodeDescription::from(description)),
        }))
        .await?;
        let mut client =
            DispatcherClient::new(channel).max_decoding_message_size(ANSWER_LIMIT_BYTES);
        let answer = async {
            let mut inbound = client
                .session(ReceiverStream::new(outbound))
                .await?
                .into_inner();
            let first = inbound.message().await?.ok_or(SessionError::Ended)?;
            Ok::<_, SessionError>((inbound, first))
        };
        let (inbound, first) = timeout(WELCOME_DEADLINE, answer)
            .await
            .map_err(|_| SessionError::Silent)??;
        let Some(v1::manager_message::Kind::Welcome(welcome)) = first.kind else {
            return Err(SessionError::Message("it does not begin with a welcome"));
        };
        let spec = welcome.spec.map(NodeSpec::try_from).transpose()?;
        match self.standing.welcomed(welcome.incarnation) {
            Ok(None) => {}
            // Before anything of it is followed: a restart must not go back.
            Ok(Some(later)) => {
                if let Err(error) = self.store.save_incarnation(later).await {
                    tracing::warn!(%error, "the cluster's incarnation could not be kept on disk");
                }
            }
            Err(Past) => return Err(SessionError::Past),
        }
        tracing::info!(%manager, "session with a manager");
        self.connected.send_replace(Connection {
            manager: Some(manager),
            error: None,
            spec,
            expelled: None,
        });
        let heartbeat = Duration::from_millis(welcome.heartbeat_ms).clamp(HEARTBEAT.0, HEARTBEAT.1);
        Ok((link, inbound, heartbeat))
    }

    async fn serve(
        &mut self,
        link: &Link,
        mut inbound: Streaming<v1::ManagerMessage>,
        heartbeat: Duration,
    ) -> SessionError {
        let mut beats = tokio::time::interval_at(Instant::now() + heartbeat, heartbeat);
        let mut sent = 0;
        let mut next_batch = Instant::now();
        // Whatever the last session said may not have arrived: all of it is news.
        self.statuses.mark_changed();
        self.reports.mark_changed();
        self.views.seen.mark_changed();
        let mut batch_at = None;
        loop {
            let done = tokio::select! {
                () = self.farewell.wanted.cancelled() => {
                    return part(link, &mut inbound).await;
                }
                message = inbound.message() => match message {
                    Ok(Some(message)) => self.take(message).await,
                    Ok(None) => Err(SessionError::Ended),
                    Err(status) => Err(status.into()),
                },
                _ = beats.tick() => {
                    let beat = v1::Heartbeat { sent_at_ms: clock::now().0 };
                    link.send(v1::agent_message::Kind::Heartbeat(beat)).await
                }
                Ok(()) = self.statuses.changed(), if batch_at.is_none() => {
                    // The first after a while goes at once: a container that has died must not
                    // be sent clients for longer than the way to the managers takes.
                    batch_at = Some(next_batch);
                    Ok(())
                }
                () = tokio::time::sleep_until(batch_at.unwrap_or_else(Instant::now)), if batch_at.is_some() => {
                    batch_at = None;
                    next_batch = Instant::now() + BATCH_DELAY;
                    self.send_statuses(link, &mut sent).await
                }
                Ok(()) = self.reports.changed() => {
                    let report = table_report(&self.reports.borrow_and_update());
                    link.send(v1::agent_message::Kind::Table(report)).await
                }
                Ok(()) = self.views.seen.changed() => {
                    let seen = self.views.seen.borrow_and_update().at(Instant::now());
                    let observation = v1::Observation::from(&seen);
                    link.send(v1::agent_message::Kind::Observation(observation)).await
                }
            };
            if let Err(error) = done {
                return error;
            }
        }
    }

    async fn send_statuses(&mut self, link: &Link, sent: &mut u64) -> Result<(), SessionError> {
        let (news, latest) = self.statuses.borrow_and_update().since(*sent);
        for batch in news.chunks(BATCH) {
            let reports = batch
                .iter()
                .map(|(task, status)| v1::TaskReport {
                    task_id: task.to_string(),
                    status: Some(v1::TaskStatus::from(status)),
                })
                .collect();
            link.send(v1::agent_message::Kind::Statuses(v1::StatusBatch {
                reports,
            }))
            .await?;
        }
        *sent = latest;
        Ok(())
    }

    async fn take(&mut self, message: v1::ManagerMessage) -> Result<(), SessionError> {
        use v1::manager_message::Kind;
        match message.kind {
            Some(Kind::Assignments(assignments)) => {
                self.worker.assign(read_assignments(assignments)?).await;
            }
            Some(Kind::Table(table)) => self.take_table(Table::try_from(table)?),
            Some(Kind::Managers(list)) => self.take_managers(&list).await,
            Some(Kind::Peers(list)) => {
                let peers = list.peers.into_iter().map(Peer::try_from);
                let peers = peers.collect::<Result<Vec<_>, _>>()?;
                self.told.send_modify(|told| told.peers = peers);
            }
            Some(Kind::Problems(list)) => {
                let problems = list.problems.into_iter().map(NodeProblem::try_from);
                let problems = problems.collect::<Result<Vec<_>, _>>()?;
                self.told.send_modify(|told| told.problems = problems);
            }
            Some(Kind::Spec(spec)) => {
                let spec = NodeSpec::try_from(spec)?;
                self.connected
                    .send_modify(|connection| connection.spec = Some(spec));
            }
            Some(Kind::Logs(wanted)) => self.publisher.bring(wanted),
            Some(Kind::Welcome(_)) => {
                return Err(SessionError::Message("a second welcome"));
            }
            // Of a newer manager, which gets along with agents that do not know it.
            None => tracing::debug!("a message of a kind that this agent does not know"),
        }
        Ok(())
    }

    fn take_table(&self, table: Table) {
        self.tables.send_if_modified(|current| {
            // A manager that lags behind must not take the balancer back.
            let newer = current
                .as_ref()
                .is_none_or(|current| current.version < table.version);
            if newer {
                *current = Some(Arc::new(table));
            }
            newer
        });
    }

    async fn take_managers(&mut self, list: &v1::ManagerList) {
        let managers: Vec<SocketAddr> = list
            .managers
            .iter()
            .filter_map(|manager| manager.address.parse().ok())
            .collect();
        if managers.is_empty() || managers == self.managers {
            return;
        }
        self.managers.clone_from(&managers);
        if let Err(error) = self.store.save_managers(managers).await {
            tracing::warn!(%error, "the managers' addresses could not be kept on disk");
        }
    }
}

/// The way to the manager.
struct Link(mpsc::Sender<v1::AgentMessage>);

impl Link {
    async fn send(&self, kind: v1::agent_message::Kind) -> Result<(), SessionError> {
        let message = v1::AgentMessage { kind: Some(kind) };
        match self.0.send_timeout(message, SEND_DEADLINE).await {
            Ok(()) => Ok(()),
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => Err(SessionError::Stuck),
            Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(SessionError::Ended),
        }
    }
}

/// Says that the node leaves, and waits until the manager ends the session over it.
async fn part(link: &Link, inbound: &mut Streaming<v1::ManagerMessage>) -> SessionError {
    let leaving = v1::agent_message::Kind::Leaving(v1::Leaving {});
    if let Err(error) = link.send(leaving).await {
        return error;
    }
    loop {
        match inbound.message().await {
            // What was on its way still.
            Ok(Some(_)) => {}
            Ok(None) => return SessionError::Left,
            Err(status) => return status.into(),
        }
    }
}

/// A message with one task that cannot be read is refused whole: were the task left out of a
/// complete set, it would be stopped.
fn read_assignments(assignments: v1::Assignments) -> Result<Assignments, SessionError> {
    Ok(Assignments {
        complete: assignments.complete,
        update: assignments
            .update
            .into_iter()
            .map(Task::try_from)
            .collect::<Result<_, _>>()?,
        remove: assignments
            .remove
            .iter()
            .map(|id| TaskId::parse(id))
            .collect::<Result<_, _>>()?,
    })
}

/// Tells the manager whenever the engine falls silent or answers again; until the session ends.
///
/// What is known of an engine that is silent stays, but for its version: an empty one says that
/// it does not answer.
async fn redescribe(
    link: &Link,
    facts: NodeFacts,
    runtime: Arc<dyn Runtime>,
    mut engine: watch::Receiver<bool>,
    mut sent: NodeDescription,
) -> SessionError {
    loop {
        let answers = *engine.borrow_and_update();
        let described = !sent.engine_version.is_empty();
        let news = match (answers, described) {
            (true, false) => Some(describe(&facts, &*runtime).await),
            (false, true) => Some(NodeDescription {
                engine_version: String::new(),
                ..sent.clone()
            }),
            (true, true) | (false, false) => None,
        };
        if let Some(news) = news.filter(|news| *news != sent) {
            let kind = v1::agent_message::Kind::Description(v1::NodeDescription::from(&news));
            if let Err(error) = link.send(kind).await {
                return error;
            }
            sent = news;
        }
        // One that answers and did not describe itself in time is asked again.
        let again = answers && sent.engine_version.is_empty();
        tokio::select! {
            changed = engine.changed() => if changed.is_err() {
                // The worker has ended, and the agent is about to.
                std::future::pending::<()>().await;
            },
            () = sleep(ENGINE_PAUSE), if again => {}
        }
    }
}

fn table_report(report: &SinkReport) -> v1::TableReport {
    v1::TableReport {
        version: report.version,
        draining: report
            .draining
            .iter()
            .map(|(task, &active)| v1::DrainingEndpoint {
                task_id: task.to_string(),
                active,
            })
            .collect(),
        port_problems: report
            .port_problems
            .iter()
            .map(v1::PortProblem::from)
            .collect(),
    }
}

/// The managers in the order in which they are tried: the own node's first, because a session
/// with it needs no network; the others from a random one on, so that agents spread.
///
/// Those that do not answer attempts at the moment come last: each costs seconds, after which
/// the node would count as silent.
fn order(
    managers: &[SocketAddr],
    own: IpAddr,
    suspects: &BTreeSet<SocketAddr>,
    random: u64,
) -> Vec<SocketAddr> {
    let (mut ordered, mut others): (Vec<_>, Vec<_>) =
        managers.iter().partition(|manager| manager.ip() == own);
    if !others.is_empty() {
        let first = usize::try_from(random % others.len() as u64).unwrap_or(0);
        others.rotate_left(first);
    }
    ordered.extend(others);
    ordered.sort_by_key(|manager| suspects.contains(manager));
    ordered
}

/// Between half of the pause and all of it, so that agents that lost a manager together do
/// not come back together.
fn jittered(pause: Duration, random: u64) -> Duration {
    let half = pause / 2;
    half + half.mul_f64((random % 1000) as f64 / 1000.0)
}

/// A random number, for what only has to differ.
pub(crate) fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without a random source the order and the pause are the same each time, and do.
    if SystemRandom::new().fill(&mut bytes).is_err() {
        tracing::debug!("no random source");
    }
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
