//! One agent's stream: assignments, tables and managers out, heartbeats and reports in.
//!
//! ```text
//! opened ──hello──► state is current ──► node is ready ──► Welcome, complete set, table, managers ──► differences …
//!     ends when: the agent goes · a later session replaces it · the node is removed or leaves · shutdown
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use swarmlet_core::diagnosis;
use swarmlet_core::model::{NodeId, NodeState, Version};
use swarmlet_core::state::State;
use swarmlet_proto::expelled;
use swarmlet_proto::v1;
use swarmlet_proto::v1::agent_message::Kind as From;
use swarmlet_proto::v1::manager_message::Kind as To;
use swarmlet_proto::v1::peer_client::PeerClient;

use super::Place;
use super::assignments::Sent;
use super::collector::Collector;
use super::feed::TableFeed;
use crate::clock;
use crate::dialer::Dialer;
use crate::news::{self, NodeNews, Seen, TableNews};
use crate::raft::Raft;
use crate::status;

/// How long an agent may take to introduce itself.
const HELLO_WAIT: Duration = Duration::from_secs(5);

/// How long a session waits for this manager's state to be current. An election takes less;
/// after it the agent had better try another manager.
const CURRENT_WAIT: Duration = Duration::from_secs(5);

/// How long a welcome, or a farewell, waits for the leader to take note of the node: an election
/// in between must not keep the node from its tasks, or hold up one that leaves.
const NOTED_WAIT: Duration = Duration::from_secs(1);

/// Differences are sent at most this often; what changes meanwhile goes together. The first
/// after a while goes at once, so that nobody is sent to a container that has died.
const INTERVAL: Duration = Duration::from_millis(50);

/// How long this manager may know of no leader before sessions end: longer than an election, and
/// so short that a node whose manager alone does not hear the leader is heard through another
/// one before it counts as unknown.
const LEADERLESS: Duration = Duration::from_secs(2);

/// Heartbeats that fit into the time after which a silent node counts as unknown: two may be
/// lost, and the third is still in time.
const HEARTBEATS: u32 = 4;

/// No heartbeat is asked for more often than this, whatever the settings say.
const MIN_HEARTBEAT: Duration = Duration::from_millis(100);

/// Problems that a node is told of. People read them.
const MAX_PROBLEMS: usize = 100;

/// What a session works with.
pub(crate) struct Session {
    pub(crate) node: NodeId,
    pub(crate) raft: Raft,
    pub(crate) dialer: Dialer,
    pub(crate) feed: TableFeed,
    pub(crate) collector: Collector,
    pub(crate) outbound: mpsc::Sender<Result<v1::ManagerMessage, Status>>,
}

impl Session {
    /// Runs the session to its end and tells the agent why it ended.
    pub(crate) async fn run(
        &self,
        mut inbound: Streaming<v1::AgentMessage>,
        place: &Place,
        stop: CancellationToken,
    ) {
        let end = tokio::select! {
            () = place.replaced.cancelled() => {
                Err(Status::aborted("a later session of this node took its place"))
            }
            () = stop.cancelled() => Err(Status::unavailable("this manager is stopping")),
            () = self.outbound.closed() => Ok(()),
            leader = self.collector.reach().lost() => Err(Status::unavailable(format!(
                "this manager cannot call the leader at {leader}"
            ))),
            end = self.talk(&mut inbound, place) => end,
        };
        let reason = end.as_ref().err().map(Status::message);
        tracing::info!(node = %self.node, reason, "session ended");
        if let Err(status) = end {
            // An agent that has gone, or reads nothing, cannot be told.
            let _ = self.outbound.try_send(Err(status));
        }
    }

    async fn talk(
        &self,
        inbound: &mut Streaming<v1::AgentMessage>,
        place: &Place,
    ) -> Result<(), Status> {
        let hello = timeout(HELLO_WAIT, inbound.message()).await;
        let Ok(Some(v1::AgentMessage {
            kind: Some(From::Hello(hello)),
        })) = hello.map_err(|_| Status::deadline_exceeded("no hello within 5 s"))?
        else {
            return Err(Status::invalid_argument("a session begins with a hello"));
        };
        let description = hello
            .description
            .ok_or_else(|| Status::invalid_argument("the hello has no node description"))?;
        let news = NodeNews {
            description: Some(news::description(description)?),
            ..NodeNews::default()
        };
        timeout(CURRENT_WAIT, self.current())
            .await
            .map_err(|_| Status::unavailable("this manager's state is not current"))??;
        tracing::info!(node = %self.node, "session began");
        self.collector.report(&self.node, news);
        tokio::select! {
            end = self.listen(inbound) => end,
            end = async {
                self.reaches(NodeState::Ready).await;
                self.tell(place).await
            } => end,
            status = self.leaderless() => Err(status),
        }
    }

    /// Waits until the cluster counts the node as ready, so that whoever waits for the welcome
    /// (`swarmlet join` does) finds a node that gets tasks; or as down, so that one that leaves
    /// stops its tasks when nobody is sent to them any more.
    async fn reaches(&self, wanted: NodeState) {
        let mut states = self.raft.watch_state();
        let reached = states.wait_for(|state| {
            state
                .node(&self.node)
                .is_none_or(|node| node.status.state == wanted)
        });
        if timeout(NOTED_WAIT, reached).await.is_err() {
            tracing::debug!(node = %self.node, %wanted, "the session goes on before the leader knows of the node");
        }
    }

    /// Returns once this manager has known no leader for a while. The agent then knows that it
    /// is on its own, and looks after its containers itself.
    async fn leaderless(&self) -> Status {
        let mut leadership = self.raft.watch_leadership();
        let mut since = None;
        loop {
            // Elections that fail change the term all the time: only a leader counts.
            since = match leadership.borrow_and_update().leader {
                Some(_) => None,
                None => Some(since.unwrap_or_else(Instant::now)),
            };
            let patience = since.map(|since: Instant| since + LEADERLESS);
            tokio::select! {
                changed = leadership.changed() => if changed.is_err() {
                    return stopping();
                },
                () = sleep_until(patience.unwrap_or_else(Instant::now)), if patience.is_some() => {
                    return Status::unavailable("the managers have no leader");
                }
            }
        }
    }

    /// Waits until this manager has applied everything that was committed when the session
    /// began. A replica that has just come back knows nothing of the latest tasks, and its
    /// complete set would make the agent stop them.
    async fn current(&self) -> Result<(), Status> {
        let leadership = *self.raft.watch_leadership().borrow();
        let version = if leadership.is_self {
            let state = self.raft.linearizable().await;
            state.map_err(|e| status::of_proposal(&e))?.version()
        } else {
            let leader = leadership.leader.ok_or_else(status::not_leader)?;
            let mut peer = PeerClient::new(self.dialer.channel(leader.address));
            let read = peer.read_version(v1::ReadVersionRequest {}).await?;
            Version(read.into_inner().version)
        };
        let mut states = self.raft.watch_state();
        let applied = states.wait_for(|state| state.version() >= version).await;
        applied.map_err(|_| Status::unavailable("this manager is stopping"))?;
        self.feed.reached(version).await;
        Ok(())
    }

    async fn listen(&self, inbound: &mut Streaming<v1::AgentMessage>) -> Result<(), Status> {
        while let Some(message) = inbound.message().await? {
            let mut news = NodeNews::default();
            match message.kind {
                Some(From::Heartbeat(beat)) => {
                    news.clock_ahead_ms = news::ahead_ms(beat.sent_at_ms, clock::now());
                }
                Some(From::Observation(observation)) => {
                    news.observation = Some(Seen::now(news::observation(observation)?));
                }
                Some(From::Statuses(batch)) => {
                    let state = self.raft.state();
                    news.statuses = news::statuses(batch)?;
                    // Only what is its own: nothing else is a node's to say, and so what
                    // waits for the leader is never more than the node's tasks.
                    news.statuses.retain(|id, _| {
                        state
                            .task(id)
                            .is_some_and(|task| task.node.as_ref() == Some(&self.node))
                    });
                }
                Some(From::Table(report)) => {
                    let mut table = TableNews::try_from(report)?;
                    let state = self.raft.state();
                    table.draining.retain(|id, _| state.task(id).is_some());
                    news.table = Some(table);
                }
                Some(From::Description(description)) => {
                    news.description = Some(news::description(description)?);
                }
                Some(From::Leaving(v1::Leaving {})) => {
                    news.leaving = true;
                    self.collector.report(&self.node, news);
                    self.reaches(NodeState::Down).await;
                    return Ok(());
                }
                Some(From::Hello(_)) => {
                    return Err(Status::invalid_argument("a second hello in one session"));
                }
                // A newer agent may say what this manager does not know; it is still alive.
                None => {}
            }
            self.collector.report(&self.node, news);
        }
        Ok(())
    }

    async fn tell(&self, place: &Place) -> Result<(), Status> {
        let mut states = self.raft.watch_state();
        let mut tables = self.feed.subscribe();
        let mut sent = Sent::default();

        let state = states.borrow_and_update().clone();
        let welcome = self.welcome(&state)?;
        let mut spec = welcome.spec.clone();
        self.send(To::Welcome(welcome)).await?;
        self.send(To::Assignments(sent.complete(&state, &self.node)))
            .await?;
        let mut table = tables.borrow_and_update().clone();
        self.send(To::Table((*table).clone())).await?;
        let mut managers = managers(&state);
        self.send(To::Managers(managers.clone())).await?;
        let mut others = Others::of(&state, &self.node);
        self.send(To::Peers(others.peers.clone())).await?;
        self.send(To::Problems(others.problems.clone())).await?;
        place.welcomed(&self.outbound);
        let mut not_before = Instant::now();
        loop {
            tokio::select! {
                changed = states.changed() => changed.map_err(|_| stopping())?,
                changed = tables.changed() => changed.map_err(|_| stopping())?,
            }
            sleep_until(not_before).await;
            let state = states.borrow_and_update().clone();
            let node = state.node(&self.node).ok_or_else(|| removed(&self.node))?;
            let wanted = v1::NodeSpec::from(&node.spec);
            if spec.as_ref() != Some(&wanted) {
                self.send(To::Spec(wanted.clone())).await?;
                spec = Some(wanted);
            }
            for changes in sent.changes(&state, &self.node) {
                self.send(To::Assignments(changes)).await?;
                not_before = Instant::now() + INTERVAL;
            }
            let latest = tables.borrow_and_update().clone();
            if !Arc::ptr_eq(&latest, &table) {
                table = latest;
                not_before = Instant::now() + INTERVAL;
                self.send(To::Table((*table).clone())).await?;
            }
            let now = self::managers(&state);
            if now != managers {
                managers = now;
                self.send(To::Managers(managers.clone())).await?;
            }
            if others.stamp == Others::stamp(&state) {
                continue;
            }
            let now = Others::of(&state, &self.node);
            if now.peers != others.peers {
                self.send(To::Peers(now.peers.clone())).await?;
            }
            if now.problems != others.problems {
                self.send(To::Problems(now.problems.clone())).await?;
            }
            others = now;
        }
    }

    fn welcome(&self, state: &State) -> Result<v1::Welcome, Status> {
        let node = state.node(&self.node).ok_or_else(|| removed(&self.node))?;
        let cluster = state.cluster();
        let spec = cluster
            .map(|cluster| cluster.spec.clone())
            .unwrap_or_default();
        let heartbeat = (spec.node_unknown_after / HEARTBEATS).max(MIN_HEARTBEAT);
        Ok(v1::Welcome {
            heartbeat_ms: u64::try_from(heartbeat.as_millis()).unwrap_or(u64::MAX),
            spec: Some((&node.spec).into()),
            incarnation: cluster.map_or(0, |cluster| cluster.incarnation),
        })
    }

    async fn send(&self, kind: To) -> Result<(), Status> {
        let message = v1::ManagerMessage { kind: Some(kind) };
        self.outbound
            .send(Ok(message))
            .await
            .map_err(|_| Status::cancelled("the agent went away"))
    }
}

/// What a node is told of the others.
struct Others {
    stamp: (usize, Version),
    peers: v1::PeerList,
    problems: v1::ProblemList,
}

impl Others {
    /// Changes whenever a node does. Most changes of the state are of tasks, and each of a
    /// thousand sessions would write its list of a thousand peers for nothing.
    fn stamp(state: &State) -> (usize, Version) {
        let versions = state.nodes().map(|node| node.version);
        (state.nodes().count(), versions.max().unwrap_or_default())
    }

    fn of(state: &State, node: &NodeId) -> Self {
        let peers = diagnosis::peers(state, node);
        let problems = diagnosis::all(state);
        Self {
            stamp: Self::stamp(state),
            peers: v1::PeerList {
                peers: peers.iter().map(Into::into).collect(),
            },
            problems: v1::ProblemList {
                problems: problems.iter().take(MAX_PROBLEMS).map(Into::into).collect(),
            },
        }
    }
}

fn managers(state: &State) -> v1::ManagerList {
    v1::ManagerList {
        managers: crate::managers::addresses(state),
    }
}

fn removed(node: &NodeId) -> Status {
    expelled::expelled(format!("node {node} was removed from the cluster"))
}

fn stopping() -> Status {
    Status::unavailable("this manager is stopping")
}
