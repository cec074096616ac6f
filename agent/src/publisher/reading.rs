//! Reads the logs of several tasks at a time, in the order of time.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, FuturesUnordered, StreamExt};
use swarmlet_core::logs::{Merge, Next, Patience};
use swarmlet_core::model::TaskId;
use tokio::time::{Instant, sleep_until};

use super::Wanted;
use super::outbox::{Closed, Outbox};
use crate::runtime::log::LogLine;
use crate::runtime::{Runtime, RuntimeError, Scope};

/// How long a log that is read to its end may say nothing. Engines read from files; one that
/// takes longer than this for the next line hangs, and its reader is told before he gives up
/// himself.
const STALL: Duration = Duration::from_secs(8);

/// How long the lines of other tasks wait for a followed one that has just spoken: it may be
/// about to say something earlier. Nobody who reads along notices it.
const LULL: Duration = Duration::from_millis(100);

/// How long they wait for the first line of a followed one, behind which its history comes.
const FIRST: Duration = Duration::from_millis(500);

type Lines = BoxStream<'static, Result<LogLine, RuntimeError>>;

/// The next line of a task, and the rest of its lines.
type Heard = (u64, Option<Result<LogLine, RuntimeError>>, Lines);

/// Reads all of them, until they are over or nobody takes lines any more.
pub(super) async fn read(
    runtime: &dyn Runtime,
    scope: &Scope,
    wanted: Vec<Wanted>,
    outbox: &mut Outbox,
) -> Result<(), Closed> {
    let follows = wanted.iter().any(|wanted| wanted.query.follow);
    let mut reading = Reading {
        began: Instant::now(),
        merge: Merge::new(if follows {
            Patience::Follows(LULL)
        } else {
            Patience::Stalls(STALL)
        }),
        tasks: BTreeMap::new(),
        heads: BTreeMap::new(),
        pending: FuturesUnordered::new(),
    };
    for (id, wanted) in (0..).zip(wanted) {
        let lines = runtime.logs(scope, &wanted.task, wanted.query);
        reading.add(id, wanted.task, lines, follows);
    }
    reading.run(outbox).await
}

struct Reading {
    began: Instant,
    merge: Merge,
    tasks: BTreeMap<u64, TaskId>,
    heads: BTreeMap<u64, (LogLine, Lines)>,
    pending: FuturesUnordered<BoxFuture<'static, Heard>>,
}

impl Reading {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn add(&mut self, id: u64, task: TaskId, lines: Lines, follows: bool) {
        let now = self.now();
        self.merge.add(id, now, now + STALL);
        if follows {
            // One that has never written anything is no failure.
            self.merge.opened(id, now + FIRST.saturating_sub(LULL));
        }
        self.tasks.insert(id, task);
        self.listen(id, lines);
    }

    fn listen(&mut self, id: u64, lines: Lines) {
        let heard = lines.into_future();
        let heard = heard.map(move |(line, lines)| (id, line, lines));
        self.pending.push(heard.boxed());
    }

    async fn run(&mut self, outbox: &mut Outbox) -> Result<(), Closed> {
        loop {
            // Whatever is there already counts before time does: this may have waited for the
            // manager for long.
            while let Some(Some(heard)) = self.pending.next().now_or_never() {
                self.hear(heard, outbox).await?;
            }
            match self.merge.next(self.now()) {
                Next::Take(id) => self.take(id, outbox).await?,
                Next::GiveUp(id) => {
                    let error = "the container runtime does not answer".to_owned();
                    self.end(id, Some(error), outbox).await?;
                }
                Next::WaitUntil(until) => {
                    outbox.flush().await?;
                    tokio::select! {
                        Some(heard) = self.pending.next() => self.hear(heard, outbox).await?,
                        () = sleep_until(self.began + until) => {}
                    }
                }
                Next::Wait => {
                    outbox.flush().await?;
                    if let Some(heard) = self.pending.next().await {
                        self.hear(heard, outbox).await?;
                    }
                }
                Next::Nothing => return outbox.flush().await,
            }
        }
    }

    async fn take(&mut self, id: u64, outbox: &mut Outbox) -> Result<(), Closed> {
        let (Some((line, lines)), Some(task)) = (self.heads.remove(&id), self.tasks.get(&id))
        else {
            self.merge.remove(id);
            return Ok(());
        };
        let unfinished = !line.data.ends_with(b"\n");
        outbox.line(task, line).await?;
        self.merge.taken(id, self.now(), unfinished);
        self.listen(id, lines);
        Ok(())
    }

    async fn hear(&mut self, heard: Heard, outbox: &mut Outbox) -> Result<(), Closed> {
        let (id, line, lines) = heard;
        match line {
            // One that was given up may still speak.
            _ if !self.tasks.contains_key(&id) => Ok(()),
            Some(Ok(line)) => {
                self.merge.head(id, line.at_ns);
                self.heads.insert(id, (line, lines));
                Ok(())
            }
            Some(Err(error)) => self.end(id, Some(error.to_string()), outbox).await,
            None => self.end(id, None, outbox).await,
        }
    }

    async fn end(
        &mut self,
        id: u64,
        error: Option<String>,
        outbox: &mut Outbox,
    ) -> Result<(), Closed> {
        self.merge.remove(id);
        match self.tasks.remove(&id) {
            Some(task) => outbox.end(&task, error).await,
            None => Ok(()),
        }
    }
}
