//! Balancers that were replaced and finish the connections that they have.
//!
//! Each has a task of its own, so that one that hangs holds up nothing. They get every table,
//! too: a connection that such a process has accepted may still have to choose, and what it
//! says of draining endpoints counts as much as what its successor says.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use swarmlet_lb::control::ClientError;
use swarmlet_lb::status::{Status, Summary};
use swarmlet_lb::table::Table;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::link::Link;

/// Time to take a table or to answer. One that needs longer does not count: an acknowledgement must not
/// wait for it for ever, and its connections go on by the table before.
const TABLE_DEADLINE: Duration = Duration::from_secs(1);

/// Most of them at once: enough for connections that live through a day of upgrades, few
/// enough that they do not use up the machine. The oldest has to end for one more.
const MOST: usize = 32;

/// Orders that wait; the owner waits for each answer.
const QUEUE: usize = 4;

enum Order {
    Table(Arc<Table>, oneshot::Sender<()>),
    Status(oneshot::Sender<Status>),
    Stop(Duration, oneshot::Sender<()>),
}

struct Retired {
    pid: u32,
    orders: mpsc::Sender<Order>,
    summary: watch::Receiver<Summary>,
}

/// All of them, oldest first.
pub(super) struct Generations {
    list: Vec<Retired>,
    changed: Arc<Notify>,
}

impl Generations {
    pub(super) fn new() -> Self {
        Self {
            list: Vec::new(),
            changed: Arc::new(Notify::new()),
        }
    }

    /// Waits until one of them says something new, or has ended.
    pub(super) fn changed(&self) -> impl Future<Output = ()> + use<> {
        let changed = self.changed.clone();
        async move { changed.notified().await }
    }

    /// Takes over a balancer that was told to retire, unless it is here already.
    pub(super) async fn add(&mut self, link: Link) {
        self.forget_ended();
        let pid = link.pid();
        if self.list.iter().any(|known| known.pid == pid) {
            return;
        }
        if self.list.len() >= MOST {
            let oldest = self.list.remove(0);
            tracing::warn!("too many balancers finish their connections, ending the oldest");
            stop(&oldest, Duration::ZERO).await;
        }
        let (orders, queue) = mpsc::channel(QUEUE);
        let (summary_out, summary) = watch::channel(Summary::default());
        self.list.push(Retired {
            pid,
            orders,
            summary,
        });
        tokio::spawn(attend(link, queue, summary_out, self.changed.clone()));
    }

    /// Hands a table to all of them.
    pub(super) async fn set_table(&mut self, table: &Arc<Table>) {
        self.forget_ended();
        let answers = self.list.iter().map(|retired| async {
            let (answer, done) = oneshot::channel();
            let order = Order::Table(table.clone(), answer);
            let taken = async {
                // One that has ended needs no table.
                if retired.orders.send(order).await.is_ok() {
                    let _ = done.await;
                }
            };
            if tokio::time::timeout(TABLE_DEADLINE, taken).await.is_err() {
                tracing::warn!(
                    pid = retired.pid,
                    "a replaced balancer does not take a table in time"
                );
            }
        });
        join_all(answers).await;
    }

    /// What each of those that still run said last.
    pub(super) fn summaries(&mut self) -> Vec<Summary> {
        self.forget_ended();
        let all = self.list.iter();
        all.map(|retired| retired.summary.borrow().clone())
            .collect()
    }

    /// Asks those that still run, newest first.
    pub(super) async fn statuses(&mut self) -> Vec<Status> {
        self.forget_ended();
        let answers = self.list.iter().rev().map(|retired| async {
            let (answer, status) = oneshot::channel();
            retired.orders.send(Order::Status(answer)).await.ok()?;
            tokio::time::timeout(TABLE_DEADLINE, status)
                .await
                .ok()?
                .ok()
        });
        join_all(answers).await.into_iter().flatten().collect()
    }

    /// Ends all of them.
    pub(super) async fn stop(&mut self, grace: Duration) {
        let all = std::mem::take(&mut self.list);
        join_all(all.iter().map(|retired| stop(retired, grace))).await;
    }

    fn forget_ended(&mut self) {
        self.list.retain(|retired| !retired.orders.is_closed());
    }
}

async fn stop(retired: &Retired, grace: Duration) {
    let (answer, stopped) = oneshot::channel();
    let order = Order::Stop(grace, answer);
    // One that has ended has nothing left to stop.
    if retired.orders.send(order).await.is_ok() {
        let _ = stopped.await;
    }
}

/// How often the counters of a balancer that tells nothing are looked at. What matters to
/// others, drained endpoints and the end, it tells by itself.
const LOOK: Duration = Duration::from_secs(1);

/// Follows one of them to its end.
async fn attend(
    mut link: Link,
    mut queue: mpsc::Receiver<Order>,
    summary: watch::Sender<Summary>,
    changed: Arc<Notify>,
) {
    let pid = link.pid();
    match serve(&mut link, &mut queue, &summary, &changed).await {
        Ok(Asked::Stop(grace, answer)) => {
            link.stop(grace).await;
            // The asker may have gone.
            let _ = answer.send(());
        }
        // The daemon ends, and the process goes on.
        Ok(Asked::Nothing) => return,
        Err(ClientError::Closed | ClientError::Io(_)) => {
            tracing::info!(pid, "a replaced balancer has ended");
        }
        Err(error) => {
            tracing::warn!(pid, %error, "a replaced balancer cannot be talked to, ending it");
            link.kill();
        }
    }
    // Whoever is told must find it gone.
    drop(queue);
    changed.notify_one();
}

enum Asked {
    Stop(Duration, oneshot::Sender<()>),
    Nothing,
}

async fn serve(
    link: &mut Link,
    queue: &mut mpsc::Receiver<Order>,
    summary: &watch::Sender<Summary>,
    changed: &Notify,
) -> Result<Asked, ClientError> {
    summary.send_replace(link.summary().await?);
    changed.notify_one();
    loop {
        let mut answer = None;
        tokio::select! {
            event = link.event() => {
                event?;
            }
            () = tokio::time::sleep(LOOK) => {}
            order = queue.recv() => match order {
                None => return Ok(Asked::Nothing),
                Some(Order::Stop(grace, answer)) => return Ok(Asked::Stop(grace, answer)),
                Some(Order::Status(status)) => {
                    // An asker that does not wait any more needs none.
                    let _ = status.send(link.status().await?);
                }
                Some(Order::Table(table, taken)) => {
                    link.set_table(&table).await?;
                    answer = Some(taken);
                }
            },
        }
        summary.send_replace(link.summary().await?);
        changed.notify_one();
        if let Some(taken) = answer {
            // Nobody waits any more where it took too long.
            let _ = taken.send(());
        }
    }
}
