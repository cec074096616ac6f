//! Collects what the sessions of this manager report and brings it to the leader, itself or
//! another one, at most every [`INTERVAL`].
//!
//! What could not be delivered is kept and merged with what comes later, so that a report is
//! lost only with its session; the agent then sends everything again. A new leader knows
//! nothing of acknowledgements, so after a change every live session's table is sent again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use swarmlet_core::model::NodeId;
use swarmlet_proto::v1;
use swarmlet_proto::v1::peer_client::PeerClient;

use crate::clock;
use crate::dialer::Dialer;
use crate::leader::intake::Intake;
use crate::news::{self, Batch, NodeNews, Seen, TableNews};
use crate::raft::{Leadership, Raft};
use crate::status;

use super::reach::Reach;

/// Pause between two deliveries. Short beside what a person notices, long enough that a
/// hundred nodes' heartbeats make ten calls a second and not a hundred.
const INTERVAL: Duration = Duration::from_millis(50);

/// Pause after a delivery failed.
const RETRY: Duration = Duration::from_millis(200);

/// How long a delivery may take: longer than a proposal, so that the leader's own answer
/// comes first.
const DEADLINE: Duration = Duration::from_secs(4);

/// Tasks of one delivery at most, so that a message stays far below 4 MiB.
const MAX_STATUSES: usize = 2000;

/// A cheap handle; the work is done by [`run`].
#[derive(Clone, Default)]
pub(crate) struct Collector {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    inner: std::sync::Mutex<Inner>,
    filled: Notify,
    reach: Reach,
}

#[derive(Default)]
struct Inner {
    waiting: Batch,
    /// What each live session said last of that which only the leader's memory knows.
    kept: BTreeMap<NodeId, Kept>,
}

#[derive(Default)]
struct Kept {
    table: Option<TableNews>,
    observation: Option<Seen>,
}

impl Kept {
    fn note(&mut self, news: &NodeNews) {
        if news.table.is_some() {
            self.table.clone_from(&news.table);
        }
        if news.observation.is_some() {
            self.observation.clone_from(&news.observation);
        }
    }
}

impl Collector {
    /// Notes that a session has begun.
    pub(crate) fn opened(&self, node: &NodeId) {
        self.lock().kept.insert(node.clone(), Kept::default());
    }

    /// Takes what a node reports; an empty report is a heartbeat.
    pub(crate) fn report(&self, node: &NodeId, news: NodeNews) {
        {
            let mut inner = self.lock();
            if news.leaving {
                // Whatever came later would be a heartbeat.
                inner.kept.remove(node);
            } else {
                inner.kept.entry(node.clone()).or_default().note(&news);
            }
            inner.waiting.entry(node.clone()).or_default().merge(news);
        }
        self.shared.filled.notify_one();
    }

    /// Forgets a node whose session has ended, but for its farewell: that is no heartbeat, which
    /// would be late.
    pub(crate) fn closed(&self, node: &NodeId) {
        let mut inner = self.lock();
        inner
            .waiting
            .retain(|other, news| other != node || news.leaving);
        inner.kept.remove(node);
    }

    /// Whether the leader can be called from here.
    pub(crate) fn reach(&self) -> &Reach {
        &self.shared.reach
    }

    /// Takes what waits, up to the bound of one delivery.
    fn take(&self) -> Batch {
        let mut inner = self.lock();
        let mut batch = Batch::new();
        let mut statuses = 0;
        while statuses < MAX_STATUSES
            && let Some((node, news)) = inner.waiting.pop_first()
        {
            statuses += news.statuses.len();
            batch.insert(node, news);
        }
        if !inner.waiting.is_empty() {
            self.shared.filled.notify_one();
        }
        batch
    }

    /// Puts back what could not be delivered, under what came meanwhile.
    fn put_back(&self, batch: Batch) {
        {
            let mut inner = self.lock();
            for (node, mut earlier) in batch {
                if !inner.kept.contains_key(&node) && !earlier.leaving {
                    continue;
                }
                if let Some(later) = inner.waiting.remove(&node) {
                    earlier.merge(later);
                }
                inner.waiting.insert(node, earlier);
            }
        }
        self.shared.filled.notify_one();
    }

    /// Makes everything wait again that only the leader's memory knows.
    fn send_again(&self) {
        {
            let mut guard = self.lock();
            let inner = &mut *guard;
            for (node, kept) in &inner.kept {
                let news = inner.waiting.entry(node.clone()).or_default();
                if news.table.is_none() {
                    news.table.clone_from(&kept.table);
                }
                if news.observation.is_none() {
                    news.observation.clone_from(&kept.observation);
                }
            }
        }
        self.shared.filled.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.shared
            .inner
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Delivers until it is cancelled.
pub(crate) async fn run(
    collector: Collector,
    raft: Raft,
    intake: Intake,
    dialer: Dialer,
    stop: CancellationToken,
) {
    let mut leadership = raft.watch_leadership();
    let work = async {
        let mut known: Option<(u64, Option<u64>)> = None;
        loop {
            tokio::select! {
                () = collector.shared.filled.notified() => {}
                changed = leadership.changed() => if changed.is_err() { return },
            }
            let now = *leadership.borrow_and_update();
            let current = (now.term, now.leader.as_ref().map(|leader| leader.raft_id));
            if known != Some(current) {
                known = Some(current);
                collector.reach().clear();
                collector.send_again();
            }
            if !deliver(&collector, &now, &intake, &dialer).await {
                sleep(RETRY).await;
            }
            sleep(INTERVAL).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
        () = collector.reach().watch() => {}
    }
}

/// One delivery; tells whether it succeeded.
async fn deliver(
    collector: &Collector,
    leadership: &Leadership,
    intake: &Intake,
    dialer: &Dialer,
) -> bool {
    let batch = collector.take();
    if batch.is_empty() {
        return true;
    }
    let sent = async {
        if leadership.is_self {
            return intake
                .accept(&batch)
                .await
                .map_err(|e| status::of_proposal(&e));
        }
        let Some(leader) = &leadership.leader else {
            return Err(status::not_leader());
        };
        collector.reach().calling(leader.address);
        let mut peer = PeerClient::new(dialer.channel(leader.address));
        let v1::ReportResponse {} = peer
            .report(news::encode(&batch, clock::now()))
            .await?
            .into_inner();
        Ok(())
    };
    let failure = match timeout(DEADLINE, sent).await {
        Ok(Ok(())) => {
            collector.reach().clear();
            return true;
        }
        Ok(Err(status)) => status.message().to_owned(),
        Err(_) => format!("no answer within {DEADLINE:?}"),
    };
    tracing::debug!(%failure, nodes = batch.len(), "reports not delivered yet");
    collector.put_back(batch);
    false
}

#[cfg(test)]
mod tests {
    use swarmlet_core::model::{TaskId, TaskState, TaskStatus, Timestamp};

    use super::*;

    fn node(id: u128) -> NodeId {
        NodeId::from_random(id)
    }

    fn table(version: u64) -> NodeNews {
        NodeNews {
            table: Some(TableNews {
                version,
                ..TableNews::default()
            }),
            ..NodeNews::default()
        }
    }

    fn status(state: TaskState) -> NodeNews {
        let status = TaskStatus {
            state,
            at: Timestamp(1),
            message: String::new(),
            error: None,
            container: None,
            ports: Vec::new(),
        };
        NodeNews {
            statuses: BTreeMap::from([(TaskId::from_random(1), status)]),
            ..NodeNews::default()
        }
    }

    #[test]
    fn what_was_not_delivered_waits_under_what_came_later() {
        let collector = Collector::default();
        collector.opened(&node(1));
        collector.report(&node(1), status(TaskState::Starting));
        collector.report(&node(1), table(5));
        let undelivered = collector.take();
        assert!(collector.take().is_empty());
        collector.report(&node(1), status(TaskState::Running));
        collector.put_back(undelivered);

        let batch = collector.take();
        let mut expected = table(5);
        expected.merge(status(TaskState::Running));
        assert_eq!(batch, Batch::from([(node(1), expected)]));
    }

    #[test]
    fn a_session_that_ended_leaves_nothing_behind() {
        let collector = Collector::default();
        collector.opened(&node(1));
        collector.report(&node(1), table(5));
        let undelivered = collector.take();
        collector.closed(&node(1));
        collector.put_back(undelivered);
        collector.send_again();
        assert!(collector.take().is_empty());
    }

    #[test]
    fn a_farewell_outlasts_its_session() {
        let collector = Collector::default();
        let leaving = || NodeNews {
            leaving: true,
            ..NodeNews::default()
        };
        collector.opened(&node(1));
        collector.report(&node(1), leaving());
        collector.closed(&node(1));
        let undelivered = collector.take();
        assert_eq!(undelivered, Batch::from([(node(1), leaving())]));
        collector.put_back(undelivered);
        assert_eq!(collector.take(), Batch::from([(node(1), leaving())]));
        assert!(collector.take().is_empty());
    }

    #[test]
    fn nothing_is_heard_of_a_node_after_its_farewell() {
        let collector = Collector::default();
        collector.opened(&node(1));
        collector.report(&node(1), table(5));
        let undelivered = collector.take();
        let leaving = NodeNews {
            leaving: true,
            ..NodeNews::default()
        };
        collector.report(&node(1), leaving.clone());
        assert_eq!(collector.take(), Batch::from([(node(1), leaving)]));
        // Its session lasts until the leader has taken note of it, and another one may lead then.
        collector.put_back(undelivered);
        collector.send_again();
        assert_eq!(collector.take(), Batch::new());
    }

    #[test]
    fn a_new_leader_hears_the_last_table_of_every_session() {
        let collector = Collector::default();
        for id in [1, 2] {
            collector.opened(&node(id));
            collector.report(&node(id), table(5));
        }
        collector.take();
        collector.report(&node(2), table(6));
        collector.take();
        collector.report(&node(2), table(7));
        collector.send_again();
        let batch = collector.take();
        assert_eq!(
            batch,
            Batch::from([(node(1), table(5)), (node(2), table(7))])
        );
    }

    #[test]
    fn one_delivery_is_bounded_and_the_rest_follows() {
        let collector = Collector::default();
        let many = |first: u128| {
            let one = status(TaskState::Running);
            let one = one.statuses.values().next().unwrap();
            let ids = first..first + 1500;
            NodeNews {
                statuses: ids
                    .map(|id| (TaskId::from_random(id), one.clone()))
                    .collect(),
                ..NodeNews::default()
            }
        };
        for id in [1, 2, 3] {
            collector.opened(&node(id));
            collector.report(&node(id), many(id * 10_000));
        }
        assert_eq!(collector.take().len(), 2);
        assert_eq!(collector.take().len(), 1);
        assert!(collector.take().is_empty());
    }
}
