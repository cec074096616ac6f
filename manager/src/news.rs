//! What nodes report, on its way from their sessions to the leader.
//!
//! Everything here is "the latest": a later report of the same thing replaces an earlier one,
//! so that what waits for a leader stays as large as the cluster however long it waits.

use std::collections::BTreeMap;
use std::mem;
use std::time::Instant;

use prost::Message;
use tonic::Status;

use swarmlet_core::diagnosis::Observation;
use swarmlet_core::model::{
    InvalidId, NodeDescription, NodeId, PortProblem, TaskId, TaskStatus, Timestamp, cut,
};
use swarmlet_proto::convert::Malformed;
use swarmlet_proto::v1;

use crate::request::CA_LIMIT_BYTES;

/// Ports of one task, and ports that a node may complain about. Nobody publishes so many, and they
/// fit into one log entry with their reasons.
const MAX_PORTS: usize = 4096;

/// Failing ports and the like that count of one node: it has two with each other node, and
/// the first few of them say all.
const MAX_OBSERVED: usize = 100;

/// The largest description of a node: as large as the request to join that it first came with.
const MAX_DESCRIPTION_BYTES: usize = CA_LIMIT_BYTES;

/// Everything new of one node; its presence is a heartbeat.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NodeNews {
    /// What the node says of itself, at the start of a session.
    pub(crate) description: Option<NodeDescription>,
    /// The latest status of each task that it reported on.
    pub(crate) statuses: BTreeMap<TaskId, TaskStatus>,
    /// How far its balancer has come.
    pub(crate) table: Option<TableNews>,
    /// What it sees of itself and of the others.
    pub(crate) observation: Option<Seen>,
    /// By how many milliseconds its clock is ahead: of the manager that heard it, and at the
    /// leader of the leader's own.
    pub(crate) clock_ahead_ms: Option<i64>,
    /// It leaves the swarm: the last that is heard of it.
    pub(crate) leaving: bool,
}

/// What a node sees, and when it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    told: Observation,
    at: Instant,
}

impl Seen {
    /// As it was told a moment ago.
    pub(crate) fn now(told: Observation) -> Self {
        Self {
            told,
            at: Instant::now(),
        }
    }

    /// What it comes to by now.
    pub(crate) fn by(&self, now: Instant) -> Observation {
        self.told.after(now.saturating_duration_since(self.at))
    }
}

/// How far a node's balancer has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TableNews {
    /// The version that every worker of it works by.
    pub(crate) version: u64,
    /// Connections still open, by draining task.
    pub(crate) draining: BTreeMap<TaskId, u64>,
    /// Published ports that it cannot serve.
    pub(crate) port_problems: Vec<PortProblem>,
}

/// News of several nodes.
pub(crate) type Batch = BTreeMap<NodeId, NodeNews>;

impl NodeNews {
    /// Takes in what came later.
    pub(crate) fn merge(&mut self, later: Self) {
        if later.description.is_some() {
            self.description = later.description;
        }
        self.statuses.extend(later.statuses);
        if later.table.is_some() {
            self.table = later.table;
        }
        if later.observation.is_some() {
            self.observation = later.observation;
        }
        if later.clock_ahead_ms.is_some() {
            self.clock_ahead_ms = later.clock_ahead_ms;
        }
        self.leaving = later.leaving;
    }
}

/// Reads a status batch; at the end of a session's wire. Whatever a node writes, its reports fit
/// into a log entry: others wait behind them.
pub(crate) fn statuses(batch: v1::StatusBatch) -> Result<BTreeMap<TaskId, TaskStatus>, Malformed> {
    let mut statuses = BTreeMap::new();
    for report in batch.reports {
        let mut status: TaskStatus = report.status.unwrap_or_default().try_into()?;
        status.message = cut(status.message, TaskStatus::MAX_TEXT_BYTES);
        status.error = status
            .error
            .map(|error| cut(error, TaskStatus::MAX_TEXT_BYTES));
        if let Some(container) = &mut status.container {
            container.id = cut(mem::take(&mut container.id), TaskStatus::MAX_TEXT_BYTES);
        }
        status.ports.truncate(MAX_PORTS);
        statuses.insert(task_id(&report.task_id)?, status);
    }
    Ok(statuses)
}

/// Reads what a node says of itself.
pub(crate) fn description(description: v1::NodeDescription) -> Result<NodeDescription, Status> {
    let bytes = description.encoded_len();
    if bytes > MAX_DESCRIPTION_BYTES {
        return Err(Status::invalid_argument(format!(
            "the node's description has {bytes} bytes, and at most {MAX_DESCRIPTION_BYTES} are taken"
        )));
    }
    Ok(description.try_into()?)
}

/// Reads what a node sees, as much of it as counts.
pub(crate) fn observation(observation: v1::Observation) -> Result<Observation, Malformed> {
    let mut seen = Observation::try_from(observation)?;
    seen.failing.truncate(MAX_OBSERVED);
    seen.disks.truncate(MAX_OBSERVED);
    seen.descriptors.truncate(MAX_OBSERVED);
    let short = |text: &mut String| *text = cut(mem::take(text), TaskStatus::MAX_TEXT_BYTES);
    seen.disks.iter_mut().for_each(|disk| short(&mut disk.path));
    seen.descriptors
        .iter_mut()
        .for_each(|used| short(&mut used.process));
    seen.engine.iter_mut().for_each(short);
    Ok(seen)
}

impl TryFrom<v1::TableReport> for TableNews {
    type Error = Malformed;

    fn try_from(report: v1::TableReport) -> Result<Self, Malformed> {
        let mut draining = BTreeMap::new();
        for endpoint in report.draining {
            draining.insert(task_id(&endpoint.task_id)?, endpoint.active);
        }
        let problems = report.port_problems.into_iter().take(MAX_PORTS);
        let problem = |problem: v1::PortProblem| -> Result<PortProblem, Malformed> {
            let mut problem = PortProblem::try_from(problem)?;
            problem.reason = cut(problem.reason, PortProblem::MAX_REASON_BYTES);
            Ok(problem)
        };
        Ok(Self {
            version: report.version,
            draining,
            port_problems: problems.map(problem).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&TableNews> for v1::TableReport {
    fn from(news: &TableNews) -> Self {
        let draining = news
            .draining
            .iter()
            .map(|(task, active)| v1::DrainingEndpoint {
                task_id: task.to_string(),
                active: *active,
            });
        Self {
            version: news.version,
            draining: draining.collect(),
            port_problems: news.port_problems.iter().map(Into::into).collect(),
        }
    }
}

/// Encodes a batch for another manager, which is sent at this moment by this manager's clock.
pub(crate) fn encode(batch: &Batch, now: Timestamp) -> v1::ReportRequest {
    let nodes = batch.iter().map(|(node, news)| {
        let reports = news.statuses.iter().map(|(task, status)| v1::TaskReport {
            task_id: task.to_string(),
            status: Some(status.into()),
        });
        let statuses = v1::StatusBatch {
            reports: reports.collect(),
        };
        v1::NodeReport {
            node_id: node.to_string(),
            description: news
                .description
                .as_ref()
                .map(|description| v1::NodeDescription::from(description).encode_to_vec())
                .unwrap_or_default(),
            statuses: if statuses.reports.is_empty() {
                Vec::new()
            } else {
                vec![statuses.encode_to_vec()]
            },
            table: news
                .table
                .as_ref()
                .map(|table| v1::TableReport::from(table).encode_to_vec())
                .unwrap_or_default(),
            observation: news
                .observation
                .as_ref()
                .map(|seen| v1::Observation::from(&seen.by(Instant::now())).encode_to_vec()),
            clock_ahead_ms: news.clock_ahead_ms,
            leaving: news.leaving,
        }
    });
    v1::ReportRequest {
        nodes: nodes.collect(),
        sent_at_ms: now.0,
    }
}

/// Reads a batch of another manager, which has arrived at this moment by this manager's clock.
pub(crate) fn decode(request: v1::ReportRequest, now: Timestamp) -> Result<Batch, Malformed> {
    let sender_ahead = ahead_ms(request.sent_at_ms, now);
    let mut batch = Batch::new();
    for report in request.nodes {
        let mut news = NodeNews {
            leaving: report.leaving,
            ..NodeNews::default()
        };
        if !report.description.is_empty() {
            news.description =
                Some(message::<v1::NodeDescription>(&report.description)?.try_into()?);
        }
        for bytes in &report.statuses {
            news.statuses.extend(statuses(message(bytes)?)?);
        }
        if !report.table.is_empty() {
            news.table = Some(message::<v1::TableReport>(&report.table)?.try_into()?);
        }
        // Nothing wrong is no bytes at all, and news all the same.
        if let Some(bytes) = &report.observation {
            let seen = message::<v1::Observation>(bytes)?;
            news.observation = Some(Seen::now(seen.try_into()?));
        }
        // What the sender measured was against its own clock.
        news.clock_ahead_ms = report
            .clock_ahead_ms
            .zip(sender_ahead)
            .map(|(ahead, sender)| ahead.saturating_add(sender));
        let node = NodeId::parse(&report.node_id).map_err(|error| malformed("node_id", &error))?;
        batch.insert(node, news);
    }
    Ok(batch)
}

/// By how many milliseconds a clock is ahead that showed `sent_at_ms` when a message left; the
/// message's way makes it look behind by as long as it took. `None` where it was not told.
pub(crate) fn ahead_ms(sent_at_ms: u64, now: Timestamp) -> Option<i64> {
    let (sent, now) = (i64::try_from(sent_at_ms).ok()?, i64::try_from(now.0).ok()?);
    (sent != 0).then(|| sent.saturating_sub(now))
}

fn message<M: Message + Default>(bytes: &[u8]) -> Result<M, Malformed> {
    M::decode(bytes).map_err(|source| Malformed::Bytes {
        what: "report",
        source,
    })
}

fn task_id(text: &str) -> Result<TaskId, Malformed> {
    TaskId::parse(text).map_err(|error| malformed("task_id", &error))
}

fn malformed(field: &str, reason: &InvalidId) -> Malformed {
    Malformed::Field {
        field: field.to_owned(),
        reason: reason.to_string(),
    }
}

#[cfg(test)]
#[path = "news_tests.rs"]
mod tests;
