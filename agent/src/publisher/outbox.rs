//! Lines on their way to a manager, several to a message.

use swarmlet_core::model::TaskId;
use swarmlet_proto::v1;
use swarmlet_proto::v1::publish_logs_request::Kind;
use tokio::sync::mpsc;

use crate::runtime::log::{LogLine, LogStream};

/// A message is sent before it has more bytes than this, or one line.
const MAX_BYTES: usize = 64 << 10;

/// What a line costs beside its text.
const LINE_BYTES: usize = 64;

/// Nobody takes messages any more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Closed;

/// Collects lines and sends them; waits where the manager takes none.
pub(super) struct Outbox {
    sender: mpsc::Sender<v1::PublishLogsRequest>,
    lines: Vec<v1::LogLine>,
    bytes: usize,
}

impl Outbox {
    pub(super) fn new(sender: mpsc::Sender<v1::PublishLogsRequest>) -> Self {
        Self {
            sender,
            lines: Vec::new(),
            bytes: 0,
        }
    }

    /// Says whose request this answers.
    pub(super) async fn ticket(&mut self, ticket: String) -> Result<(), Closed> {
        self.send(Kind::Ticket(ticket)).await
    }

    /// Adds a line.
    pub(super) async fn line(&mut self, task: &TaskId, line: LogLine) -> Result<(), Closed> {
        let bytes = line.data.len() + line.details.len() + LINE_BYTES;
        if self.bytes + bytes > MAX_BYTES {
            self.flush().await?;
        }
        self.bytes += bytes;
        self.lines.push(v1::LogLine {
            task_id: task.to_string(),
            at_ns: line.at_ns,
            stream: match line.stream {
                LogStream::Stdout => v1::LogStream::Stdout.into(),
                LogStream::Stderr => v1::LogStream::Stderr.into(),
            },
            data: line.data,
            details: line.details,
        });
        Ok(())
    }

    /// Says that a task's log is over.
    pub(super) async fn end(&mut self, task: &TaskId, error: Option<String>) -> Result<(), Closed> {
        self.flush().await?;
        self.send(Kind::End(v1::TaskLogEnd {
            task_id: task.to_string(),
            error,
        }))
        .await
    }

    /// Sends what has been collected.
    pub(super) async fn flush(&mut self) -> Result<(), Closed> {
        if self.lines.is_empty() {
            return Ok(());
        }
        self.bytes = 0;
        let lines = std::mem::take(&mut self.lines);
        self.send(Kind::Lines(v1::LogLines { lines })).await
    }

    async fn send(&self, kind: Kind) -> Result<(), Closed> {
        let message = v1::PublishLogsRequest { kind: Some(kind) };
        self.sender.send(message).await.map_err(|_| Closed)
    }
}
