//! Lines on their way to the reader's command line, several to a message.

use std::collections::BTreeSet;

use swarmlet_proto::v1;
use swarmlet_proto::v1::read_logs_response::Kind;
use tokio::sync::mpsc;
use tonic::Status;

/// A message is sent before it has more bytes than this, or one line.
const MAX_BYTES: usize = 64 << 10;

/// What a line costs beside its text.
const LINE_BYTES: usize = 64;

/// Nobody reads any more.
#[derive(Debug)]
pub(super) struct Gone;

/// Collects lines and warnings and sends them; waits where nobody takes them.
pub(super) struct Outbox {
    sender: mpsc::Sender<Result<v1::ReadLogsResponse, Status>>,
    /// Messages in front of the lines.
    first: Vec<Kind>,
    lines: Vec<v1::LogLine>,
    bytes: usize,
    /// Tasks whose lines the reader knows how to show.
    known: BTreeSet<String>,
    /// Whether something was missing.
    warned: bool,
}

impl Outbox {
    pub(super) fn new(sender: mpsc::Sender<Result<v1::ReadLogsResponse, Status>>) -> Self {
        Self {
            sender,
            first: Vec::new(),
            lines: Vec::new(),
            bytes: 0,
            known: BTreeSet::new(),
            warned: false,
        }
    }

    /// Returns once nobody reads any more.
    pub(super) async fn closed(&self) {
        self.sender.closed().await;
    }

    /// Says how many tasks there are.
    pub(super) fn header(&mut self, replicas: u64) {
        self.first.push(Kind::Header(v1::LogHeader { replicas }));
    }

    /// Says that something is missing.
    pub(super) fn warn(&mut self, text: String) {
        self.warned = true;
        self.first.push(Kind::Warning(text));
    }

    /// Whether something was said to be missing.
    pub(super) fn has_warned(&self) -> bool {
        self.warned
    }

    /// Adds a line of a task.
    pub(super) async fn line(
        &mut self,
        source: &v1::LogSource,
        line: v1::LogLine,
    ) -> Result<(), Gone> {
        if !self.known.contains(&source.task_id) {
            self.flush().await?;
            self.first.push(Kind::Source(source.clone()));
            self.known.insert(source.task_id.clone());
        }
        let bytes = line.data.len() + line.details.len() + LINE_BYTES;
        if self.bytes + bytes > MAX_BYTES {
            self.flush().await?;
        }
        self.bytes += bytes;
        self.lines.push(line);
        Ok(())
    }

    /// Sends what has been collected; tells whether there was something.
    pub(super) async fn flush(&mut self) -> Result<bool, Gone> {
        let something = !(self.first.is_empty() && self.lines.is_empty());
        for kind in std::mem::take(&mut self.first) {
            self.send(Ok(kind)).await?;
        }
        if !self.lines.is_empty() {
            self.bytes = 0;
            let lines = std::mem::take(&mut self.lines);
            self.send(Ok(Kind::Lines(v1::LogLines { lines }))).await?;
        }
        Ok(something)
    }

    /// Ends with an error.
    pub(super) async fn fail(&mut self, status: Status) -> Result<(), Gone> {
        self.flush().await?;
        self.send(Err(status)).await
    }

    async fn send(&self, kind: Result<Kind, Status>) -> Result<(), Gone> {
        let message = kind.map(|kind| v1::ReadLogsResponse { kind: Some(kind) });
        self.sender.send(message).await.map_err(|_| Gone)
    }
}
