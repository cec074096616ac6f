//! The one owner of the table and the listeners.
//!
//! One task takes one command after the other: a table is compared with what is
//! there, and only the differences are carried out. Ports that cannot be bound
//! are tried again from here, too.

mod published;

use std::{
    collections::{BTreeMap, HashSet},
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    sync::Arc,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use self::published::Published;
use crate::{
    clock::now_ms,
    engine::Crew,
    event::Event,
    host::Hosts,
    port::Endpoint,
    settings::Settings,
    shared::Shared,
    status::{Ack, PortError, ProgramFile, RemovedEndpoint, Status, Summary},
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
}

/// Listening sockets of an earlier balancer, by the address that they listen on.
pub(crate) type Inherited = BTreeMap<SocketAddr, OwnedFd>;

/// One of the sockets that this balancer listens on.
#[derive(Debug)]
pub(crate) struct OpenSocket {
    /// Grows with each that is opened.
    pub(crate) id: u32,
    pub(crate) address: SocketAddr,
    pub(crate) socket: Arc<OwnedFd>,
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
    Summary(oneshot::Sender<Summary>),
    Sockets(u32, oneshot::Sender<Vec<OpenSocket>>),
    Inherit(Inherited, oneshot::Sender<()>),
    Configure(Settings, oneshot::Sender<()>),
    StopListening(oneshot::Sender<()>),
    HostChanged(String),
}

/// Tells the balancer's task something, without keeping it alive.
#[derive(Debug, Clone)]
pub(crate) struct WeakHandle(mpsc::WeakSender<Command>);

impl WeakHandle {
    /// A host is lost or back.
    pub(crate) async fn host_changed(&self, id: &str) {
        if let Some(balancer) = self.0.upgrade() {
            // It ends only with the process.
            let _ = balancer.send(Command::HostChanged(id.to_owned())).await;
        }
    }
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

    pub(crate) async fn summary(&self) -> Result<Summary, Ended> {
        self.ask(Command::Summary).await
    }

    /// The sockets that were opened after this one, oldest first; 0 for all.
    pub(crate) async fn sockets(&self, after: u32) -> Result<Vec<OpenSocket>, Ended> {
        self.ask(|reply| Command::Sockets(after, reply)).await
    }

    /// Offers sockets to the next table; those it does not name are closed.
    pub(crate) async fn inherit(&self, sockets: Inherited) -> Result<(), Ended> {
        self.ask(|reply| Command::Inherit(sockets, reply)).await
    }

    /// Puts settings in force for what happens from now on.
    pub(crate) async fn configure(&self, settings: Settings) -> Result<(), Ended> {
        self.ask(|reply| Command::Configure(settings, reply)).await
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
        inherited: Inherited::new(),
        hosts: Hosts::default(),
        weak: WeakHandle(sender.downgrade()),
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
    /// Waiting for the first table.
    inherited: Inherited,
    hosts: Hosts,
    /// For those who ask the hosts.
    weak: WeakHandle,
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
                Some(Command::Summary(reply)) => {
                    let _ = reply.send(self.summary());
                }
                Some(Command::Sockets(after, reply)) => {
                    let _ = reply.send(self.sockets(after));
                }
                Some(Command::HostChanged(id)) => self.note_host(&id),
                Some(Command::Inherit(sockets, reply)) => {
                    self.inherited.extend(sockets);
                    let _ = reply.send(());
                }
                Some(Command::Configure(settings, reply)) => {
                    self.shared.configure(&settings);
                    tracing::info!(?settings, "settings in force");
                    let _ = reply.send(());
                }
                Some(Command::StopListening(reply)) => {
                    self.stop_listening().await;
                    let _ = reply.send(());
                }
            }
        }
    }

    async fn set_table(&mut self, table: Table) -> Result<Ack, ApplyError> {
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
        let begun = Instant::now();
        self.removed.retain(|endpoint| endpoint.active() > 0);
        self.hosts.take_over(&table, &self.shared, &self.weak);
        self.close_unlisted(&table);
        for listener in &table.listeners {
            self.update(listener);
        }
        self.version = table.version;
        // One that ends still hears which endpoints drain: connections that it
        // has accepted may yet have to choose, and drained ones are to be told.
        if !self.shutting_down {
            self.bind_new();
        }
        self.publish().await;
        tracing::info!(
            version = self.version,
            ports = self.published.len(),
            unbound = self.told_errors.len(),
            took_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX),
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
        let hosts = &self.hosts;
        let published = self
            .published
            .entry(listener.port)
            .or_insert_with(|| Published::new(listener.port, Arc::clone(shared)));
        // Hosts are looked up anew all the same, for there may be others now.
        if !published.is_news(listener) {
            published
                .port()
                .set_hosts(|id| hosts.get(id).cloned(), listener);
            return;
        }
        let dropped = published.port().update(listener, |listed| {
            find_removed(removed, listener.port, listed).unwrap_or_else(|| {
                let key = shared.next_key();
                let events = shared.events.clone();
                Arc::new(Endpoint::new(key, listener.port, listed, events))
            })
        });
        published
            .port()
            .set_hosts(|id| hosts.get(id).cloned(), listener);
        removed.extend(dropped.into_iter().filter(|endpoint| endpoint.active() > 0));
    }

    fn note_host(&self, id: &str) {
        if let Some(host) = self.hosts.get(id) {
            for published in self.published.values() {
                published.port().note_host(host);
            }
        }
    }

    /// Binds what is new in the table. What failed before waits for its turn,
    /// lest frequent tables become frequent retries.
    fn bind_new(&mut self) {
        for published in self.published.values_mut() {
            published.bind_new(&self.ingress, &mut self.inherited);
        }
        self.inherited.clear();
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
        self.inherited.clear();
        self.publish().await;
        self.shared.events.publish(Event::ShuttingDown);
    }

    fn sockets(&self, after: u32) -> Vec<OpenSocket> {
        let published = self.published.values();
        let mut sockets: Vec<_> = published
            .flat_map(Published::sockets)
            .filter(|(_, listening)| listening.id > after)
            .map(|(address, listening)| OpenSocket {
                id: listening.id,
                address,
                socket: Arc::clone(&listening.socket),
            })
            .collect();
        sockets.sort_unstable_by_key(|socket| socket.id);
        sockets
    }

    fn summary(&mut self) -> Summary {
        let removed = self.removed_in_use();
        let published = self.published.values();
        let draining = published.flat_map(|published| published.port().draining());
        Summary {
            table_version: self.version,
            port_errors: self.told_errors.clone(),
            leaving: draining.chain(removed).collect(),
        }
    }

    fn removed_in_use(&mut self) -> Vec<RemovedEndpoint> {
        self.removed.retain(|endpoint| endpoint.active() > 0);
        self.removed.iter().map(|one| one.to_removed()).collect()
    }

    fn status(&mut self) -> Status {
        let removed = self.removed_in_use();
        Status {
            table_version: self.version,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            program_file: ProgramFile::own(),
            pid: std::process::id(),
            started_at_ms: self.started_at_ms,
            shutting_down: self.shutting_down,
            buffered: self.shared.budget.held() as u64,
            access_log_dropped: self.shared.access_log_dropped(),
            settings: self.shared.in_force(),
            listeners: self.published.values().map(Published::status).collect(),
            removed,
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
