//! The node's balancer: a process of its own that this module starts, watches, and hands
//! tables to.
//!
//! It outlives the daemon, so that the mesh goes on while the daemon is restarted; a daemon
//! that starts adopts the one that runs. One task owns everything; [`Balancer`] is its handle.
//!
//! ```text
//!            connect fails                        connection ends
//! searching ───────────────▶ start a process ──▶ connected ──────────▶ searching
//!     └────── connect succeeds (adopted) ───────────▲
//! ```

mod link;
pub(crate) mod process;
mod translate;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use swarmlet_agent::{RoutedTable, SinkError, SinkReport, TableSink};
use swarmlet_lb::status::{PortError, Status};
use tokio::sync::{mpsc, oneshot, watch};

use super::store::Layout;
use link::Link;

/// Pause after a start that came to nothing. A killed balancer answers again within half a
/// second, and one that cannot start does not keep the machine busy.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// Time for the balancer to end its connections when the node leaves its cluster; the tasks
/// behind them have been stopped by then.
const STOP_GRACE: Duration = Duration::from_secs(3);

/// Requests that wait for the owner; there are two askers, the agent and the metrics page.
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

enum Request {
    Apply(RoutedTable, oneshot::Sender<Result<(), SinkError>>),
    Status(oneshot::Sender<Option<Status>>),
    Stop(oneshot::Sender<()>),
}

impl Balancer {
    /// Starts to look for a balancer, and starts one where there is none.
    pub(crate) fn start(layout: Layout, ingress: Vec<IpAddr>) -> Self {
        let (requests, queue) = mpsc::channel(QUEUE);
        let (reports_out, reports) = watch::channel(SinkReport::default());
        let (condition_out, condition) = watch::channel(Condition::Down);
        let owner = Owner {
            layout,
            ingress,
            table: None,
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

    /// Its counters; `None` while nobody answers.
    pub(crate) async fn status(&self) -> Option<Status> {
        let (answer, status) = oneshot::channel();
        self.requests.send(Request::Status(answer)).await.ok()?;
        status.await.ok()?
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

/// Owns the connection, and the table that the next process gets.
struct Owner {
    layout: Layout,
    ingress: Vec<IpAddr>,
    table: Option<Arc<swarmlet_lb::table::Table>>,
    reports: watch::Sender<SinkReport>,
    condition: watch::Sender<Condition>,
}

impl Owner {
    async fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        loop {
            let link = tokio::select! {
                link = self.find() => link,
                ended = self.refuse_all(&mut queue) => {
                    self.stop_stray().await;
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

    /// Connects to the process that runs, or starts one, until one answers.
    async fn find(&self) -> Link {
        let mut complained = false;
        loop {
            match Link::adopt_or_start(&self.layout, &self.ingress).await {
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

    /// Answers while there is no balancer; ends with a request to stop.
    async fn refuse_all(&self, queue: &mut mpsc::Receiver<Request>) -> Option<oneshot::Sender<()>> {
        loop {
            // An asker that does not wait for its answer any more needs none.
            match queue.recv().await? {
                Request::Apply(_, answer) => {
                    let _ = answer.send(Err(SinkError("the balancer is down".to_owned())));
                }
                Request::Status(answer) => {
                    let _ = answer.send(None);
                }
                Request::Stop(answer) => return Some(answer),
            }
        }
    }

    /// A process that was started a moment ago and has not answered yet must not stay behind.
    async fn stop_stray(&self) {
        if let Ok(link) = Link::adopt(&self.layout).await {
            link.stop(STOP_GRACE).await;
        }
    }

    /// Works with one process until it is gone.
    async fn serve(&mut self, mut link: Link, queue: &mut mpsc::Receiver<Request>) -> Served {
        // The process may be new and know nothing: the table comes first.
        if let Some(table) = self.table.clone()
            && let Err(error) = self.apply(&mut link, table).await
        {
            tracing::warn!(%error, "the balancer does not take its table");
        }
        if self.refresh(&mut link).await.is_err() {
            return Served::Lost;
        }
        loop {
            let result = tokio::select! {
                event = link.event() => match event {
                    Ok(()) => self.refresh(&mut link).await,
                    Err(error) => Err(error),
                },
                request = queue.recv() => match request {
                    None => return Served::Stopped,
                    Some(Request::Stop(answer)) => {
                        link.stop(STOP_GRACE).await;
                        let _ = answer.send(());
                        return Served::Stopped;
                    }
                    Some(Request::Status(answer)) => match link.status().await {
                        Ok(status) => {
                            let _ = answer.send(Some(status));
                            Ok(())
                        }
                        Err(error) => Err(error),
                    },
                    Some(Request::Apply(table, answer)) => {
                        let table = Arc::new(translate::table(&table));
                        let applied = self.apply(&mut link, table).await;
                        let result = self.refresh(&mut link).await;
                        let _ = answer.send(applied.map_err(|error| SinkError(error.to_string())));
                        result
                    }
                },
            };
            if let Err(error) = result {
                tracing::warn!(%error, "lost the balancer");
                link.give_up(&error);
                return Served::Lost;
            }
        }
    }

    /// Hands a table over and remembers it for the next process.
    async fn apply(
        &mut self,
        link: &mut Link,
        table: Arc<swarmlet_lb::table::Table>,
    ) -> Result<(), swarmlet_lb::control::ClientError> {
        link.set_table(&table).await?;
        self.table = Some(table);
        Ok(())
    }

    /// Publishes what the balancer says of itself now.
    async fn refresh(&self, link: &mut Link) -> Result<(), swarmlet_lb::control::ClientError> {
        let status = link.status().await?;
        let errors = translate::port_errors(&status);
        self.reports.send_if_modified(|report| {
            let new = translate::report(&status);
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
