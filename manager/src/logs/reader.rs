//! One reader: what it wants, whom that was asked for, and what came of it.
//!
//! ```text
//!            ┌─────────── new tasks, tasks that came back (followed only) ──────────┐
//!            ▼                                                                      │
//!  plan ──▶ ask ──▶ ticket shown ──▶ lines … ──▶ each task's end ──▶ source ends ───┤
//!            │ not within `OPEN`       │ the connection breaks                      ▼
//!            └──────────▶ warning ◀────┘                               nothing is left: the end
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use swarmlet_core::logs::{Merge, Missing, Next, Patience, Plan, Readable, Target, plan};
use swarmlet_core::model::{NodeId, TaskId};
use swarmlet_core::state::State;
use swarmlet_proto::v1;
use swarmlet_proto::v1::publish_logs_request::Kind;
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use super::lines::{Gone, Outbox};
use super::tickets::Inbound;
use super::{LogsService, asking};

/// How long an agent may take until it comes: a message over a session, and a handshake. With
/// this a partial result is told as one within two seconds.
const OPEN: Duration = Duration::from_millis(1500);

/// How long a node may say nothing while its logs are read to their end. Agents tell after 8 s
/// that their runtime does not answer; one that says nothing at all is cut off.
const STALL: Duration = Duration::from_secs(10);

/// How long lines of other nodes wait for a followed one that has just spoken.
const LULL: Duration = Duration::from_millis(150);

/// How often what broke is asked for again.
const RETRY: Duration = Duration::from_secs(1);

/// Changes of the state are looked at together.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// How long the last lines may take once there is nothing more to come.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Longer pieces of lines are nobody's: agents cut long before.
const MAX_LINE_BYTES: usize = 256 << 10;

/// See the module.
pub(super) struct Reader {
    service: LogsService,
    target: Target,
    query: v1::LogQuery,
    outbox: Outbox,
    began: Instant,
    merge: Merge,
    sources: BTreeMap<u64, Source>,
    last_source: u64,
    /// By identifier.
    tasks: BTreeMap<String, Progress>,
    events: FuturesUnordered<BoxFuture<'static, Event>>,
    /// Tasks that were said to be missing.
    missing: BTreeSet<Missing>,
    /// Nodes that were, by name, until they are heard of.
    away: BTreeSet<String>,
    /// Whether some log was read.
    read: bool,
    /// When the state is looked at again.
    look_at: Option<Instant>,
    /// Since when nothing more can come.
    over_since: Option<Instant>,
    /// When something went out last.
    active: Instant,
}

/// What one agent was asked for.
struct Source {
    node: NodeId,
    hostname: String,
    /// Tasks whose end it has not told.
    tasks: BTreeSet<String>,
    lines: VecDeque<v1::LogLine>,
    /// The connection, while it is not read from.
    inbound: Option<Inbound>,
}

/// How far the log of a task was read.
struct Progress {
    shown: v1::LogSource,
    /// Process id of what ran when it was asked for.
    pid: u32,
    container: String,
    last_ns: u64,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// An agent was asked, and has not told its end.
    Reading,
    /// Its end was told.
    Ended,
    /// The connection broke before.
    Broken,
}

enum Event {
    /// An agent showed its ticket.
    Opened(u64, Option<Inbound>),
    /// It said something, or nothing any more.
    Said(u64, Result<Option<v1::PublishLogsRequest>, Status>, Inbound),
    /// Nobody has a session with these nodes.
    Untold(BTreeSet<NodeId>),
}

impl Reader {
    pub(super) fn new(
        service: LogsService,
        target: Target,
        query: v1::LogQuery,
        outbox: Outbox,
    ) -> Self {
        Self {
            merge: Merge::new(if query.follow {
                Patience::Follows(LULL)
            } else {
                Patience::Stalls(STALL)
            }),
            service,
            target,
            query,
            outbox,
            began: Instant::now(),
            sources: BTreeMap::new(),
            last_source: 0,
            tasks: BTreeMap::new(),
            events: FuturesUnordered::new(),
            missing: BTreeSet::new(),
            away: BTreeSet::new(),
            read: false,
            look_at: None,
            over_since: None,
            active: Instant::now(),
        }
    }

    /// Reads until everything was read, or nobody reads any more.
    pub(super) async fn run(mut self) {
        // Dropping it tells every agent that it may stop.
        if let Err(Gone) = self.read().await {
            tracing::debug!("a reader of logs has gone");
        }
    }

    async fn read(&mut self) -> Result<(), Gone> {
        let mut states = self.service.raft.watch_state();
        let state = states.borrow_and_update().clone();
        self.outbox.header(replicas(&state, &self.target));
        self.refresh(&state);
        loop {
            // Whatever is there already counts before time does: this may have waited for its
            // reader for long.
            while let Some(Some(event)) = self.events.next().now_or_never() {
                self.hear(event);
            }
            let until = match self.merge.next(self.began.elapsed()) {
                Next::Take(id) => {
                    self.take(id).await?;
                    continue;
                }
                Next::GiveUp(id) => {
                    self.lose(id, "it does not answer");
                    continue;
                }
                Next::WaitUntil(until) => Some(self.began + until),
                Next::Wait => None,
                Next::Nothing if self.is_over() => return self.end().await,
                Next::Nothing => None,
            };
            if self.outbox.flush().await? {
                self.active = Instant::now();
            }
            let patience = self.patience();
            let wake = [until, self.look_at, patience].into_iter().flatten().min();
            tokio::select! {
                Some(event) = self.events.next() => self.hear(event),
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
                Ok(()) = states.changed(), if self.query.follow => self.look_within(DEBOUNCE),
                () = self.outbox.closed() => return Err(Gone),
            }
            let now = Instant::now();
            if patience.is_some_and(|patience| patience <= now) {
                return self.end().await;
            }
            if self.look_at.is_some_and(|at| at <= now) {
                self.look_at = None;
                self.refresh(&self.service.raft.state());
            }
        }
    }

    /// When reading ends although sources are open: nothing can come, and nothing has.
    fn patience(&self) -> Option<Instant> {
        let since = self.over_since?.max(self.active);
        Some(since + LAST_LINES)
    }

    fn look_within(&mut self, time: Duration) {
        let at = Instant::now() + time;
        self.look_at = Some(self.look_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// Whether nothing more can come.
    fn is_over(&self) -> bool {
        !self.query.follow || self.over_since.is_some() || self.is_past()
    }

    /// Whether the moment has passed up to which lines are wanted.
    fn is_past(&self) -> bool {
        let now = crate::clock::now().0.saturating_mul(1_000_000);
        self.query.until_ns > 0 && self.query.until_ns < now
    }

    async fn end(&mut self) -> Result<(), Gone> {
        if self.outbox.has_warned() && !self.read && !self.query.follow {
            let status = Status::unavailable("no log could be read");
            return self.outbox.fail(status).await;
        }
        self.outbox.flush().await?;
        Ok(())
    }

    /// Asks for whatever there is and was not asked for.
    fn refresh(&mut self, state: &State) {
        let found = plan(state, &self.target);
        self.warn_of_missing(&found);
        if found.over && self.query.follow {
            self.over_since.get_or_insert_with(Instant::now);
        }
        let first = self.last_source == 0;
        let mut by_node: BTreeMap<NodeId, Vec<v1::TaskLog>> = BTreeMap::new();
        for readable in found.readable {
            if let Some(log) = self.wanted(state, &readable, first) {
                by_node.entry(readable.node).or_default().push(log);
            }
        }
        if by_node.is_empty() {
            // One that is followed may have its first task later.
            self.last_source = self.last_source.max(1);
            return;
        }
        let own = state.node(&self.service.node);
        let Some(manager) = own.and_then(|node| node.manager.as_ref()) else {
            self.outbox
                .warn("this manager is not part of the swarm yet: ask another one".to_owned());
            return;
        };
        let address = manager.address.to_string();
        let mut requests = Vec::new();
        for (node, tasks) in by_node {
            requests.extend(self.issue(state, node, tasks, &address));
        }
        let asking = asking::ask(self.service.clone(), requests);
        self.events.push(asking.map(Event::Untold).boxed());
    }

    fn warn_of_missing(&mut self, found: &Plan) {
        for missing in &found.missing {
            let news = match missing {
                Missing::Node { name, .. } => self.away.insert(name.clone()),
                // That a followed one is about to be placed is no news.
                Missing::Task { reason, .. } => {
                    (!self.query.follow || reason.is_some()) && !self.missing.contains(missing)
                }
            };
            if news {
                self.outbox.warn(missing.to_string());
            }
        }
        self.missing.clone_from(&found.missing);
    }

    /// What is wanted of a task now, if anything.
    fn wanted(&mut self, state: &State, found: &Readable, first: bool) -> Option<v1::TaskLog> {
        let id = found.task.as_str();
        let (since_ns, tail) = match self.tasks.get(id) {
            // What appears while it is followed is wanted from its beginning.
            None if first => (self.query.since_ns, self.query.tail),
            None => (self.query.since_ns, None),
            Some(progress) => {
                let again = match progress.stage {
                    Stage::Reading => false,
                    Stage::Broken => true,
                    // Started again in place: the same task, and another process.
                    Stage::Ended => {
                        found.pid != 0
                            && (&progress.container, progress.pid) != (&found.container, found.pid)
                    }
                };
                if !again {
                    return None;
                }
                (self.query.since_ns.max(progress.last_ns + 1), None)
            }
        };
        let last_ns = self.tasks.get(id).map_or(0, |task| task.last_ns);
        let progress = Progress {
            shown: shown(state, &found.task),
            pid: found.pid,
            container: found.container.clone(),
            last_ns,
            stage: Stage::Reading,
        };
        self.tasks.insert(id.to_owned(), progress);
        Some(v1::TaskLog {
            task_id: id.to_owned(),
            since_ns,
            tail,
        })
    }

    /// Makes a ticket for a node, and waits for it from now on.
    fn issue(
        &mut self,
        state: &State,
        node: NodeId,
        tasks: Vec<v1::TaskLog>,
        address: &str,
    ) -> Option<(NodeId, v1::LogsWanted)> {
        let stub = match self.service.tickets.issue(&node) {
            Ok(stub) => stub,
            Err(error) => {
                self.outbox.warn(error.to_string());
                return None;
            }
        };
        self.last_source += 1;
        let id = self.last_source;
        let hostname = state
            .node(&node)
            .map(|node| node.description.hostname.clone());
        let source = Source {
            hostname: hostname.unwrap_or_else(|| node.to_string()),
            node: node.clone(),
            tasks: tasks.iter().map(|log| log.task_id.clone()).collect(),
            lines: VecDeque::new(),
            inbound: None,
        };
        self.sources.insert(id, source);
        let now = self.began.elapsed();
        self.merge.add(id, now, now + OPEN);
        let wanted = v1::LogsWanted {
            ticket: stub.ticket.clone(),
            address: address.to_owned(),
            tasks,
            query: Some(self.query),
        };
        let opened = stub
            .brought()
            .map(move |inbound| Event::Opened(id, inbound));
        self.events.push(opened.boxed());
        Some((node, wanted))
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Opened(id, Some(inbound)) => {
                if let Some(source) = self.sources.get(&id) {
                    self.away.remove(&source.hostname);
                }
                self.merge.opened(id, self.began.elapsed());
                self.listen(id, inbound);
            }
            Event::Opened(id, None) => self.lose(id, "it does not answer"),
            Event::Said(id, said, inbound) => self.heard(id, said, inbound),
            Event::Untold(nodes) => {
                let waiting = self.sources.iter();
                let lost: Vec<u64> = waiting
                    .filter(|(_, source)| nodes.contains(&source.node) && !source.has_come())
                    .map(|(id, _)| *id)
                    .collect();
                for id in lost {
                    self.lose(id, "it has no session with a manager");
                }
            }
        }
    }

    fn listen(&mut self, id: u64, mut inbound: Inbound) {
        if !self.sources.contains_key(&id) {
            return;
        }
        let said = async move {
            let said = inbound.next().await;
            Event::Said(id, said, inbound)
        };
        self.events.push(said.boxed());
    }

    fn heard(
        &mut self,
        id: u64,
        said: Result<Option<v1::PublishLogsRequest>, Status>,
        inbound: Inbound,
    ) {
        let kind = match said {
            Ok(Some(said)) => said.kind,
            Ok(None) => return self.close(id),
            Err(_) => return self.lose(id, "the connection broke"),
        };
        let taken = match kind {
            Some(Kind::Lines(lines)) => self.take_in(id, lines),
            Some(Kind::End(end)) => self.task_ended(id, &end),
            // A newer agent may say what this manager does not know.
            None => true,
            Some(Kind::Ticket(_)) => false,
        };
        if !taken {
            let node = self.sources.get(&id).map(|source| source.node.to_string());
            tracing::warn!(node, "a node brings logs that it was not asked for");
            return self.lose(id, "it sent what it was not asked for");
        }
        match self.sources.get_mut(&id) {
            Some(source) if !source.lines.is_empty() => source.inbound = Some(inbound),
            _ => self.listen(id, inbound),
        }
    }

    /// Takes lines in; refuses those of tasks that the node was not asked for.
    fn take_in(&mut self, id: u64, lines: v1::LogLines) -> bool {
        let Some(source) = self.sources.get_mut(&id) else {
            return true;
        };
        for line in lines.lines {
            let known = source.tasks.contains(&line.task_id);
            let fits = line.data.len() <= MAX_LINE_BYTES && line.details.len() <= MAX_LINE_BYTES;
            if !known || !fits {
                return false;
            }
            source.lines.push_back(line);
        }
        if let Some(line) = source.lines.front() {
            self.merge.head(id, line.at_ns);
        }
        true
    }

    fn task_ended(&mut self, id: u64, end: &v1::TaskLogEnd) -> bool {
        let Some(source) = self.sources.get_mut(&id) else {
            return true;
        };
        let task = &end.task_id;
        if !source.tasks.remove(task) {
            return false;
        }
        let hostname = source.hostname.clone();
        let Some(progress) = self.tasks.get_mut(task) else {
            return true;
        };
        progress.stage = Stage::Ended;
        match &end.error {
            None => self.read = true,
            Some(error) => {
                let name = &progress.shown.task_name;
                let text = format!("task {name}.{task} on node {hostname}: {error}");
                self.outbox.warn(text);
            }
        }
        true
    }

    async fn take(&mut self, id: u64) -> Result<(), Gone> {
        let now = self.began.elapsed();
        let Some(source) = self.sources.get_mut(&id) else {
            self.merge.remove(id);
            return Ok(());
        };
        let Some(line) = source.lines.pop_front() else {
            self.merge.taken(id, now, false);
            return Ok(());
        };
        self.merge.taken(id, now, !line.data.ends_with(b"\n"));
        if let Some(next) = source.lines.front() {
            self.merge.head(id, next.at_ns);
        } else if let Some(inbound) = source.inbound.take() {
            self.listen(id, inbound);
        }
        self.read = true;
        let Some(progress) = self.tasks.get_mut(&line.task_id) else {
            return Ok(());
        };
        progress.last_ns = line.at_ns;
        self.outbox.line(&progress.shown, line).await?;
        self.active = Instant::now();
        Ok(())
    }

    /// A source is over. Tasks whose end it has not told are read again where they are followed.
    fn close(&mut self, id: u64) {
        self.merge.remove(id);
        let Some(source) = self.sources.remove(&id) else {
            return;
        };
        for task in &source.tasks {
            if let Some(progress) = self.tasks.get_mut(task) {
                progress.stage = Stage::Broken;
            }
        }
        if !source.tasks.is_empty() && self.query.follow {
            self.look_within(RETRY);
        }
    }

    /// A source is over before its time.
    fn lose(&mut self, id: u64, reason: &str) {
        let Some(source) = self.sources.get(&id) else {
            return;
        };
        let name = source.hostname.clone();
        // Once: what is asked for again fails again.
        if self.away.insert(name.clone()) {
            let reason = reason.to_owned();
            self.outbox.warn(Missing::Node { name, reason }.to_string());
        }
        self.close(id);
    }
}

impl Source {
    /// Whether its agent has brought something.
    fn has_come(&self) -> bool {
        self.inbound.is_some() || !self.lines.is_empty()
    }
}

fn replicas(state: &State, target: &Target) -> u64 {
    let Target::Service(id) = target else {
        return 0;
    };
    let replicas = state
        .service(id)
        .and_then(|service| service.spec.mode.replicas());
    u64::from(replicas.unwrap_or(0))
}

/// What the reader has to know of a task to show its lines.
fn shown(state: &State, id: &TaskId) -> v1::LogSource {
    let task = state.task(id);
    let node = task.and_then(|task| task.node.as_ref());
    let hostname = node
        .and_then(|node| state.node(node))
        .map(|node| node.description.hostname.clone());
    v1::LogSource {
        task_id: id.to_string(),
        task_name: task.map_or_else(|| id.to_string(), |task| task.name()),
        service_id: task
            .map(|task| task.service.to_string())
            .unwrap_or_default(),
        node_id: node.map(ToString::to_string).unwrap_or_default(),
        hostname: hostname.unwrap_or_default(),
        slot: task.map_or(0, |task| task.slot),
    }
}
