//! The one owner of the table and the listeners.
//!
//! One task takes one command after the other: a table is compared with what is
//! there, and only the differences are carried out. Ports that cannot be bound
//! are tried again from here, too.

mod published;

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use self::published::Published;
use crate::{
    engine::Crew,
    event::Event,
    port::Endpoint,
    shared::Shared,
    status::{Ack, PortError, RemovedEndpoint, Status},
    table::{self, Listener, Table, TableError},
};

/// Commands that may wait. Each sender waits for its answer, so that this is
/// more than the number of control connections ever needs.
const QUEUE: usize = 64;

/// Why a table is not in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ApplyError {
    #[error("table {offered} is older than table {current}, which is in force")]
    Old { offered: u64, current: u64 },
    #[error("table {version} is not valid: {error}")]
    Invalid { version: u64, error: TableError },
    #[error("the balancer is shutting down and takes no more tables")]
    ShuttingDown,
}

/// Speaks to the balancer's task; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Handle(mpsc::Sender<Command>);

/// The balancer's task is gone, which happens only while the process ends.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the balancer has ended")]
pub(crate) struct Ended;

#[derive(Debug)]
enum Command {
    SetTable(Table, oneshot::Sender<Result<Ack, ApplyError>>),
    Status(oneshot::Sender<Status>),
    StopListening(oneshot::Sender<()>),
}

impl Handle {
    /// Puts a table in force. Once this returns, each connection not yet begun
    /// is chosen by it.
    pub(crate) async fn set_table(&self, table: Table) -> Result<Result<Ack, ApplyError>, Ended> {
        self.ask(|reply| Command::SetTable(table, reply)).await
    }

    pub(crate) async fn status(&self) -> Result<Status, Ended> {
        self.ask(Command::Status).await
    }

    /// Closes every listening socket for good; connections go on.
    pub(crate) async fn stop_listening(&self) -> Result<(), Ended> {
        self.ask(Command::StopListening).await
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Ended> {
        let (reply, answer) = oneshot::channel();
        self.0.send(command(reply)).await.map_err(|_| Ended)?;
        answer.await.map_err(|_| Ended)
    }
}

/// Starts the balancer's task, with an empty table. It ends when the last
/// handle is dropped.
pub(crate) fn spawn(shared: Arc<Shared>, crew: Arc<Crew>, ingress: Vec<IpAddr>) -> Handle {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let balancer = Balancer {
        shared,
        crew,
        ingress,
        version: 0,
        published: BTreeMap::new(),
        removed: Vec::new(),
        told_errors: Vec::new(),
        retry_at: Instant::now(),
        shutting_down: false,
        started_at_ms: now_ms(),
    };
    tokio::spawn(balancer.run(receiver));
    Handle(sender)
}

struct Balancer {
    shared: Arc<Shared>,
    crew: Arc<Crew>,
    ingress: Vec<IpAddr>,
    version: u64,
    published: BTreeMap<u16, Published>,
    /// Endpoints in no table that had connections when they were last looked at.
    removed: Vec<Arc<Endpoint>>,
    /// What subscribers know of the ports that are not bound.
    told_errors: Vec<PortError>,
    /// When ports that are not bound are tried again.
    retry_at: Instant,
    shutting_down: bool,
    started_at_ms: u64,
}

impl Balancer {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        loop {
            let command = tokio::select! {
                command = commands.recv() => command,
                () = sleep_until(self.retry_at), if !self.told_errors.is_empty() => {
                    self.retry_failed().await;
                    continue;
                }
            };
            match command {
                None => return,
                // A client that has gone meanwhile needs no answer, here and below.
                Some(Command::SetTable(table, reply)) => {
                    let _ = reply.send(self.set_table(table).await);
                }
                Some(Command::Status(reply)) => {
                    let _ = reply.send(self.status());
                }
                Some(Command::StopListening(reply)) => {
                    self.stop_listening().await;
                    let _ = reply.send(());
                }
            }
        }
    }

    async fn set_table(&mut self, table: Table) -> Result<Ack, ApplyError> {
        if self.shutting_down {
            return Err(ApplyError::ShuttingDown);
        }
        if table.version < self.version {
            return Err(ApplyError::Old {
                offered: table.version,
                current: self.version,
            });
        }
        table.validate().map_err(|error| ApplyError::Invalid {
            version: table.version,
            error,
        })?;
        self.removed.retain(|endpoint| endpoint.active() > 0);
        self.close_unlisted(&table);
        for listener in &table.listeners {
            self.update(listener);
        }
        self.version = table.version;
        self.bind_new();
        self.publish().await;
        tracing::info!(
            version = self.version,
            ports = self.published.len(),
            unbound = self.told_errors.len(),
            "table in force"
        );
        Ok(Ack {
            version: self.version,
            port_errors: self.told_errors.clone(),
        })
    }

    fn close_unlisted(&mut self, table: &Table) {
        let listed: HashSet<u16> = table.listeners.iter().map(|one| one.port).collect();
        let published = self.published.keys().copied();
        let gone: Vec<u16> = published.filter(|port| !listed.contains(port)).collect();
        for port in gone {
            let Some(published) = self.published.remove(&port) else {
                continue;
            };
            // Choices end first, for a connection may be between its accept
            // and its choice.
            let endpoints = published.port().clear();
            self.removed
                .extend(endpoints.into_iter().filter(|e| e.active() > 0));
        }
    }

    fn update(&mut self, listener: &Listener) {
        let shared = &self.shared;
        let removed = &mut self.removed;
        let published = self
            .published
            .entry(listener.port)
            .or_insert_with(|| Published::new(listener.port, Arc::clone(shared)));
        published.set_service(&listener.service);
        let dropped = published.port().update(listener, |listed| {
            find_removed(removed, listener.port, listed).unwrap_or_else(|| {
                Arc::new(Endpoint::new(
                    shared.next_key(),
                    listener.port,
                    listed.id.clone(),
                    listed.address,
                ))
            })
        });
        removed.extend(dropped.into_iter().filter(|endpoint| endpoint.active() > 0));
    }

    /// Binds what is new in the table. What failed before waits for its turn,
    /// lest frequent tables become frequent retries.
    fn bind_new(&mut self) {
        for published in self.published.values_mut() {
            published.bind_new(&self.ingress);
        }
        if self.told_errors.is_empty() {
            self.retry_at = Instant::now() + self.shared.timeouts.bind_retry;
        }
        self.tell_errors();
    }

    async fn retry_failed(&mut self) {
        for published in self.published.values_mut() {
            published.retry_failed();
        }
        self.retry_at = Instant::now() + self.shared.timeouts.bind_retry;
        self.publish().await;
        self.tell_errors();
    }

    /// Has every engine listen on what is bound, and on nothing else. Once this
    /// returns, sockets that are bound no longer are closed, and no engine has a
    /// choice made before the present table still to act on.
    async fn publish(&self) {
        let published = self.published.values();
        self.crew
            .publish(published.flat_map(Published::listening).collect())
            .await;
    }

    /// Tells which ports are not bound, if that has changed.
    fn tell_errors(&mut self) {
        let errors: Vec<PortError> = self
            .published
            .values()
            .filter_map(Published::error)
            .collect();
        if errors != self.told_errors {
            for error in &errors {
                tracing::warn!(port = error.port, reason = error.reason, "port not bound");
            }
            self.told_errors.clone_from(&errors);
            self.shared.events.publish(Event::PortErrors { errors });
        }
    }

    async fn stop_listening(&mut self) {
        self.shutting_down = true;
        // No more retries: nothing is to be bound any more.
        self.told_errors.clear();
        for published in self.published.values_mut() {
            published.stop_listening();
        }
        self.publish().await;
    }

    fn status(&mut self) -> Status {
        self.removed.retain(|endpoint| endpoint.active() > 0);
        Status {
            table_version: self.version,
            pid: std::process::id(),
            started_at_ms: self.started_at_ms,
            shutting_down: self.shutting_down,
            listeners: self.published.values().map(Published::status).collect(),
            removed: self
                .removed
                .iter()
                .map(|endpoint| RemovedEndpoint {
                    port: endpoint.port,
                    id: endpoint.id.clone(),
                    address: endpoint.address,
                    active: endpoint.active(),
                })
                .collect(),
        }
    }
}

/// An endpoint that comes back while connections of its earlier listing live
/// is the same one: its counters go on.
fn find_removed(
    removed: &mut Vec<Arc<Endpoint>>,
    port: u16,
    listed: &table::Endpoint,
) -> Option<Arc<Endpoint>> {
    let found = removed.iter().position(|endpoint| {
        endpoint.port == port && endpoint.id == listed.id && endpoint.address == listed.address
    })?;
    Some(removed.swap_remove(found))
}

fn now_ms() -> u64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}
