//! The node's balancer: a process of its own that this module starts, watches, and hands
//! tables to.
//!
//! It outlives the daemon, so that the mesh goes on while the daemon is restarted; a daemon
//! that starts adopts the one that runs. One task owns everything; [`Balancer`] is its handle.
//!
//! ```text
//!            connect fails                        connection ends
//! searching ───────────────▶ start a process ──▶ connected ──────────▶ searching
//!     └────── connect succeeds (adopted) ───────────▲ │
//!                                                   └─┘ hand-over
//! ```
//!
//! This process holds duplicates of the listening sockets ([`held`]): while there is no
//! balancer, clients wait in their queues. In a hand-over, by `swarmlet lb restart` or because
//! the balancer that was adopted is of another version, a second process listens on the same
//! sockets before the first one stops; that one finishes its connections ([`retired`]).

mod found;
mod held;
pub(crate) mod link;
mod outdated;
pub(crate) mod process;
mod retired;
mod translate;
mod unit;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::BoxFuture;
use swarmlet_agent::{RoutedTable, SinkError, SinkReport, TableSink};
use swarmlet_lb::Event;
use swarmlet_lb::control::ClientError;
use swarmlet_lb::status::{PortError, Status};
use tokio::sync::{mpsc, oneshot, watch};

use super::store::write_pid;
use found::Found;
use held::Held;
pub(crate) use link::Launch;
use link::Link;
use retired::Generations;

/// Pause after a start that came to nothing. A killed balancer answers again within half a
/// second, and one that cannot start does not keep the machine busy.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// Time for the balancer to end its connections when the node leaves its cluster; the tasks
/// behind them have been stopped by then.
const STOP_GRACE: Duration = Duration::from_secs(3);

/// Time for connections of a balancer that was replaced. Whoever has a connection for longer
/// has to be able to connect anew; without an end each upgrade would leave a process behind.
const RETIRE_PATIENCE: Duration = Duration::from_secs(3600);

/// Requests that wait for the owner; there are few askers: the agent, the metrics page and the
/// command line.
const QUEUE: usize = 16;

/// A handle of the balancer.
#[derive(Clone)]
pub(crate) struct Balancer {
    requests: mpsc::Sender<Request>,
    reports: watch::Receiver<SinkReport>,
    condition: watch::Receiver<Condition>,
}

/// Whether the balancer forwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Nobody answers.
    Down,
    /// It forwards, but for these ports.
    Up(Vec<PortError>),
}

/// Process ids of a balancer and its successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Restarted {
    pub(crate) before: u32,
    pub(crate) after: u32,
}

enum Request {
    Apply(RoutedTable, oneshot::Sender<Result<(), SinkError>>),
    Generations(oneshot::Sender<Vec<Status>>),
    Restart(
        Option<Duration>,
        oneshot::Sender<Result<Restarted, SinkError>>,
    ),
    Stop(oneshot::Sender<()>),
}

impl Balancer {
    /// Starts to look for a balancer, and starts one where there is none. One that runs works
    /// by the settings from then on.
    ///
    /// `http_port` is where other nodes are asked whether they are there.
    pub(crate) fn start(launch: Launch, http_port: u16) -> Self {
        let (requests, queue) = mpsc::channel(QUEUE);
        let (reports_out, reports) = watch::channel(SinkReport::default());
        let (condition_out, condition) = watch::channel(Condition::Down);
        let owner = Owner {
            launch,
            http_port,
            table: None,
            held: Held::default(),
            retired: Generations::new(),
            reports: reports_out,
            condition: condition_out,
        };
        tokio::spawn(owner.run(queue));
        Self {
            requests,
            reports,
            condition,
        }
    }

    /// Whether it forwards, and what changes in that.
    pub(crate) fn condition(&self) -> watch::Receiver<Condition> {
        self.condition.clone()
    }

    /// What each process that runs says of itself: the one that listens first, then those that
    /// finish their connections. Empty while nobody answers.
    pub(crate) async fn generations(&self) -> Vec<Status> {
        let (answer, statuses) = oneshot::channel();
        if self
            .requests
            .send(Request::Generations(answer))
            .await
            .is_err()
        {
            return Vec::new();
        }
        statuses.await.unwrap_or_default()
    }

    /// Replaces the process by a new one; the old one has `patience` to finish its connections,
    /// or an hour.
    ///
    /// # Errors
    /// There is none, or no new one starts: then the old one goes on.
    pub(crate) async fn restart(&self, patience: Option<Duration>) -> Result<Restarted, SinkError> {
        let gone = || SinkError("the daemon is ending".to_owned());
        let (answer, restarted) = oneshot::channel();
        let request = Request::Restart(patience, answer);
        self.requests.send(request).await.map_err(|_| gone())?;
        restarted.await.map_err(|_| gone())?
    }

    /// Ends the balancer's process and this handle's owner.
    pub(crate) async fn stop(&self) {
        let (answer, stopped) = oneshot::channel();
        if self.requests.send(Request::Stop(answer)).await.is_ok() {
            // Where the owner is gone there is nothing left to stop.
            let _ = stopped.await;
        }
    }
}

impl TableSink for Balancer {
    fn apply(&self, table: RoutedTable) -> BoxFuture<'_, Result<(), SinkError>> {
        Box::pin(async move {
            let gone = || SinkError("the daemon is ending".to_owned());
            let (answer, applied) = oneshot::channel();
            let request = Request::Apply(table, answer);
            self.requests.send(request).await.map_err(|_| gone())?;
            applied.await.map_err(|_| gone())?
        })
    }

    fn reports(&self) -> watch::Receiver<SinkReport> {
        self.reports.clone()
    }
}

/// Owns the connection, and what the next process gets: the table and the sockets.
struct Owner {
    launch: Launch,
    http_port: u16,
    table: Option<Arc<swarmlet_lb::table::Table>>,
    held: Held,
    retired: Generations,
    reports: watch::Sender<SinkReport>,
    condition: watch::Sender<Condition>,
}

impl Owner {
    async fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        loop {
            let link = tokio::select! {
                link = find(&self.launch, &mut self.held, &mut self.retired) => link,
                ended = refuse_all(&mut queue) => {
                    self.stop_strays().await;
                    // The asker may be gone; the process is all the same.
                    if let Some(answer) = ended {
                        let _ = answer.send(());
                    }
                    return;
                }
            };
            if self.serve(link, &mut queue).await == Served::Stopped {
                return;
            }
            self.condition.send_replace(Condition::Down);
        }
    }

    /// Processes that were started a moment ago and have not answered yet must not stay behind.
    async fn stop_strays(&mut self) {
        if let Ok(found) = Found::look(&self.launch.layout).await {
            let others = found.superseded.into_iter().chain(found.retired);
            for link in found.current.into_iter().chain(others) {
                link.stop(STOP_GRACE).await;
            }
        }
        self.retired.stop(STOP_GRACE).await;
    }

    /// Works with one process until it is gone.
    async fn serve(&mut self, mut link: Link, queue: &mut mpsc::Receiver<Request>) -> Served {
        // The process may be new and know nothing: the table comes first.
        if let Some(table) = self.table.clone()
            && let Err(error) = self.apply(&mut link, table).await
        {
            tracing::warn!(%error, "the balancer does not take its table");
        }
        self.held.update(&link).await;
        if self.refresh(&mut link).await.is_err() {
            return Served::Lost;
        }
        let mut outdated = outdated::is_outdated(link.first());
        loop {
            // The table of a daemon that has just started is not known at once, and a successor
            // without it would serve nobody.
            if outdated && self.table.is_some() {
                outdated = false;
                if let Err(error) = self.hand_over(&mut link, RETIRE_PATIENCE).await {
                    tracing::error!(
                        error = format!("{error:#}"),
                        "the balancer of another version stays"
                    );
                }
            }
            let result = tokio::select! {
                event = link.event() => match event {
                    Ok(event) => self.heed(&mut link, &event).await,
                    Err(error) => Err(error),
                },
                () = self.retired.changed() => self.refresh(&mut link).await,
                request = queue.recv() => match request {
                    None => return Served::Stopped,
                    Some(Request::Stop(answer)) => {
                        link.stop(STOP_GRACE).await;
                        self.retired.stop(STOP_GRACE).await;
                        let _ = answer.send(());
                        return Served::Stopped;
                    }
                    Some(request) => self.answer(request, &mut link).await,
                },
            };
            match result {
                Ok(()) if link.is_leaving() => {
                    tracing::warn!(pid = link.pid(), "the balancer ends, starting another one");
                    return self.let_go(link).await;
                }
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(%error, "lost the balancer");
                    link.give_up(&error);
                    return Served::Lost;
                }
            }
        }
    }

    async fn answer(&mut self, request: Request, link: &mut Link) -> Result<(), ClientError> {
        // An asker that does not wait for its answer any more needs none.
        match request {
            Request::Generations(answer) => {
                let mut all = vec![link.status().await?];
                all.extend(self.retired.statuses().await);
                let _ = answer.send(all);
            }
            Request::Apply(table, answer) => {
                let table = Arc::new(translate::table(&table, self.http_port));
                let applied = self.apply(link, table).await;
                let result = self.refresh(link).await;
                let _ = answer.send(applied.map_err(|error| SinkError(error.to_string())));
                result?;
            }
            Request::Restart(patience, answer) => {
                let patience = patience.unwrap_or(RETIRE_PATIENCE);
                let restarted = self.hand_over(link, patience).await;
                let result = self.refresh(link).await;
                let _ = answer.send(restarted.map_err(|error| SinkError(format!("{error:#}"))));
                result?;
            }
            Request::Stop(_) => {}
        }
        Ok(())
    }

    /// Takes in what the balancer tells.
    async fn heed(&mut self, link: &mut Link, event: &Event) -> Result<(), ClientError> {
        match event {
            Event::PortErrors { .. } | Event::Missed { .. } => self.held.update(link).await,
            Event::ShuttingDown => link.note_leaving(),
            _ => {}
        }
        self.refresh(link).await
    }

    /// Hands a table over and remembers it for the next process.
    async fn apply(
        &mut self,
        link: &mut Link,
        table: Arc<swarmlet_lb::table::Table>,
    ) -> Result<(), ClientError> {
        link.set_table(&table).await?;
        self.retired.set_table(&table).await;
        // A port that left the table is closed by now, but for what is held here.
        self.held.keep_only(&table);
        self.held.update(link).await;
        self.table = Some(table);
        Ok(())
    }

    /// Puts a new process in the place of `link`'s.
    async fn hand_over(&mut self, link: &mut Link, patience: Duration) -> Result<Restarted> {
        let table = self
            .table
            .clone()
            .context("the balancer has no table yet")?;
        let before = link.pid();
        self.held.update(link).await;
        link.step_aside()
            .await
            .context("the balancer does not make room for another one")?;
        let mut next = Link::start(&self.launch).await?;
        let ready = async {
            self.held.hand_over(&next).await?;
            next.set_table(&table).await
        };
        if let Err(error) = ready.await {
            next.stop(Duration::ZERO).await;
            return Err(error).context("the new balancer does not take over, the old one goes on");
        }
        write_pid(&self.launch.layout.lb_pid(), next.pid())?;
        let after = next.pid();
        let mut old = std::mem::replace(link, next);
        tracing::info!(before, after, "another balancer has taken over");
        self.held.update(link).await;
        match old.retire(patience).await {
            Ok(()) => self.retired.add(old).await,
            Err(error) => {
                // It must not accept any more, for tables do not reach it.
                tracing::warn!(pid = before, %error, "the balancer before does not retire, ending it");
                old.kill();
            }
        }
        Ok(Restarted { before, after })
    }

    /// Goes on without a process that ends because somebody told it to.
    async fn let_go(&mut self, mut link: Link) -> Served {
        if let Err(error) = link.step_aside().await {
            // It has ended by now, mostly.
            tracing::debug!(%error, "the balancer that ends does not make room");
            return Served::Lost;
        }
        self.retired.add(link).await;
        Served::Lost
    }

    /// Publishes what the balancer says of itself now.
    async fn refresh(&mut self, link: &mut Link) -> Result<(), ClientError> {
        let summary = link.summary().await?;
        let errors = summary.port_errors.clone();
        let mut all = vec![summary];
        all.extend(self.retired.summaries());
        self.reports.send_if_modified(|report| {
            let new = translate::report(&all);
            let changed = *report != new;
            *report = new;
            changed
        });
        self.condition.send_if_modified(|condition| {
            let new = Condition::Up(errors);
            let changed = *condition != new;
            *condition = new;
            changed
        });
        Ok(())
    }
}

/// Connects to the process that runs, or starts one, until one answers.
async fn find(launch: &Launch, held: &mut Held, retired: &mut Generations) -> Link {
    let mut complained = false;
    loop {
        match adopt_or_start(launch, held, retired).await {
            Ok(link) => return link,
            Err(error) if !complained => {
                tracing::error!(error = format!("{error:#}"), "the balancer does not start");
                complained = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(RESTART_PAUSE).await;
    }
}

async fn adopt_or_start(
    launch: &Launch,
    held: &mut Held,
    retired: &mut Generations,
) -> Result<Link> {
    let found = Found::look(&launch.layout)
        .await
        .context("cannot talk to the balancer that runs")?;
    for mut link in found.retired {
        // It forwards what it has, whatever it makes of this.
        if let Err(error) = configure(&mut link, launch).await {
            tracing::warn!(pid = link.pid(), %error, "a replaced balancer does not take its settings");
        }
        retired.add(link).await;
    }
    let link = match found.current {
        Some(mut link) => {
            tracing::info!(pid = link.pid(), "adopted the balancer");
            configure(&mut link, launch)
                .await
                .context("the balancer does not take its settings")?;
            link
        }
        None => {
            let link = Link::start(launch).await?;
            if let Err(error) = held.hand_over(&link).await {
                tracing::error!(%error, "the balancer does not take the sockets of the one before");
                // Held any longer they would be in its way.
                *held = Held::default();
            }
            link
        }
    };
    for mut old in found.superseded {
        match old.retire(RETIRE_PATIENCE).await {
            Ok(()) => retired.add(old).await,
            Err(error) => {
                tracing::warn!(pid = old.pid(), %error, "a balancer of before does not retire, ending it");
                old.kill();
            }
        }
    }
    write_pid(&launch.layout.lb_pid(), link.pid())?;
    Ok(link)
}

/// Puts the daemon's settings in force in a process that was adopted. One of another program,
/// which may know other settings, keeps its own until it is replaced.
async fn configure(link: &mut Link, launch: &Launch) -> Result<(), ClientError> {
    if outdated::is_outdated(link.first()) {
        return Ok(());
    }
    link.configure(&launch.settings).await
}

/// Answers while there is no balancer; ends with a request to stop.
async fn refuse_all(queue: &mut mpsc::Receiver<Request>) -> Option<oneshot::Sender<()>> {
    let down = || SinkError("the balancer is down".to_owned());
    loop {
        // An asker that does not wait for its answer any more needs none.
        match queue.recv().await? {
            Request::Apply(_, answer) => {
                let _ = answer.send(Err(down()));
            }
            Request::Generations(answer) => {
                let _ = answer.send(Vec::new());
            }
            Request::Restart(_, answer) => {
                let _ = answer.send(Err(down()));
            }
            Request::Stop(answer) => return Some(answer),
        }
    }
}

/// How working with a process ended.
#[derive(PartialEq, Eq)]
enum Served {
    /// It is gone; there has to be another.
    Lost,
    /// It was told to end.
    Stopped,
}

#[cfg(test)]
mod tests;
