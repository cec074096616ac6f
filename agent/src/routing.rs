//! Tables on their way to the balancer: from the session or the disk, as this node sees them,
//! into a [`TableSink`], and its acknowledgements back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use swarmlet_core::endpoints::{Endpoint, EndpointState, Table};
use swarmlet_core::model::{
    LbPolicy, Network, NodeId, PortProblem, Protocol, ProxyProtocol, TaskId,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cause::chain;
use crate::store::Store;
use crate::worker::{Own, WorkerHandle};

/// Takes tables: the balancer, whatever it is.
pub trait TableSink: Send + Sync {
    /// Hands over a table; returns once it is accepted. That the balancer works by it shows
    /// in [`reports`](Self::reports).
    fn apply(&self, table: RoutedTable) -> BoxFuture<'_, Result<(), SinkError>>;

    /// What the balancer says.
    fn reports(&self) -> watch::Receiver<SinkReport>;
}

/// A table that the sink does not take; it is offered again until it does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SinkError(pub String);

/// All published ports as one node reaches what is behind them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RoutedTable {
    /// The table's version.
    pub version: u64,
    /// One for each published port.
    pub listeners: Vec<RoutedListener>,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutedListener {
    /// The port that clients use.
    pub port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Name of the service behind it.
    pub service: String,
    /// How an endpoint is chosen.
    pub policy: LbPolicy,
    /// Whether the endpoints of this node come first while they are not clearly busier.
    pub prefer_local: bool,
    /// Clients from these networks must say whose connection it is.
    pub accept_proxy: Vec<Network>,
    /// Who answers.
    pub endpoints: Vec<RoutedEndpoint>,
}

/// A task behind a published port, as this node reaches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutedEndpoint {
    /// The task.
    pub task: TaskId,
    /// Its node, where that is another one than this.
    pub node: Option<NodeId>,
    /// Where to connect to.
    pub address: SocketAddr,
    /// Its share of connections relative to the others'.
    pub weight: u32,
    /// Whether it is a task of this node.
    pub local: bool,
    /// Whether and how it is told whose connection it is.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Whether it only finishes the connections that it has.
    pub draining: bool,
}

/// What a balancer says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SinkReport {
    /// The version that all of it works by; zero before the first.
    pub version: u64,
    /// Connections still open to draining endpoints.
    pub draining: BTreeMap<TaskId, u64>,
    /// Published ports that it cannot serve.
    pub port_problems: Vec<PortProblem>,
}

/// The table as `node` sees it: its own tasks by their own address, the others by their
/// node's. The engine's port proxy on the own node would accept even if nothing listened
/// behind it, and the connection could not go to another endpoint any more.
///
/// Of the own tasks only those are in it that were seen to run, at the address that they have
/// now: the managers hear of an end later than this node, and without any manager the table
/// stays as it was while containers come and go.
pub(crate) fn route(table: &Table, node: &NodeId, own: &Own) -> RoutedTable {
    let listeners = table
        .listeners
        .iter()
        .map(|listener| RoutedListener {
            port: listener.port,
            protocol: listener.protocol,
            service: listener.service_name.clone(),
            policy: listener.policy,
            prefer_local: listener.prefer_local,
            accept_proxy: listener.accept_proxy.clone(),
            endpoints: listener
                .endpoints
                .iter()
                .filter_map(|endpoint| {
                    Some(RoutedEndpoint {
                        task: endpoint.task.clone(),
                        node: Some(&endpoint.node).filter(|other| *other != node).cloned(),
                        address: address(endpoint, node, own)?,
                        weight: endpoint.weight,
                        local: endpoint.node == *node,
                        proxy_protocol: endpoint.proxy_protocol,
                        draining: endpoint.state == EndpointState::Draining,
                    })
                })
                .collect(),
        })
        .collect();
    RoutedTable {
        version: table.version.0,
        listeners,
    }
}

/// Where an endpoint is reached from here; `None` where it is one of the own that does not run.
fn address(endpoint: &Endpoint, node: &NodeId, own: &Own) -> Option<SocketAddr> {
    if endpoint.node != *node {
        return Some(endpoint.address);
    }
    let address = own.serving.get(&endpoint.task)?;
    Some(match (address, endpoint.local) {
        (Some(address), Some(local)) => SocketAddr::new(*address, local.port()),
        (Some(_) | None, _) => endpoint.address,
    })
}

/// How long the first table waits until the own containers were looked at. A balancer that
/// runs already goes on by its last one meanwhile, and a new one is not to be without any
/// because an engine hangs.
const FIRST_LOOK: Duration = Duration::from_secs(1);

/// First and longest pause between two offers of a table that the sink does not take. The
/// balancer is back half a second after it was killed; more would add to that.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Carries tables to the sink and acknowledgements to the session and the worker.
pub(crate) struct Router {
    pub(crate) node: NodeId,
    pub(crate) store: Store,
    pub(crate) sink: Arc<dyn TableSink>,
    pub(crate) worker: WorkerHandle,
}

impl Router {
    /// Runs until `stop`. The table that `tables` holds at the start comes from the disk and
    /// is not written again.
    pub(crate) async fn run(
        self,
        mut tables: watch::Receiver<Option<Arc<Table>>>,
        reports: watch::Sender<SinkReport>,
        stop: CancellationToken,
    ) {
        let mut from_sink = self.sink.reports();
        let mut own = self.worker.own();
        let mut offered = Offered::default();
        let mut pause = RETRY.0;
        tokio::select! {
            () = stop.cancelled() => return,
            looked = tokio::time::timeout(FIRST_LOOK, own.wait_for(|own| own.complete)) => {
                if looked.is_err() {
                    tracing::warn!("the node's containers are unknown yet; their endpoints are left out");
                }
            }
        }
        self.offer(&mut tables, &mut own, &mut offered).await;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = tables.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    // The balancer first: the disk may be slow.
                    self.offer(&mut tables, &mut own, &mut offered).await;
                    self.keep(&tables).await;
                }
                Ok(()) = own.changed() => self.offer(&mut tables, &mut own, &mut offered).await,
                changed = from_sink.changed() => {
                    if changed.is_err() {
                        // Without its balancer the node cannot forward; the composition root
                        // owns both and ends them together.
                        return;
                    }
                    self.report(&mut from_sink, &offered, &reports).await;
                }
                () = tokio::time::sleep(pause), if offered.pending => {
                    pause = (pause * 2).min(RETRY.1);
                    self.offer(&mut tables, &mut own, &mut offered).await;
                }
            }
            if !offered.pending {
                pause = RETRY.0;
            }
        }
    }

    async fn keep(&self, tables: &watch::Receiver<Option<Arc<Table>>>) {
        let Some(table) = tables.borrow().clone() else {
            return;
        };
        if let Err(error) = self.store.save_table(table).await {
            let reason = chain(&error);
            tracing::warn!(reason, "the table of endpoints could not be kept on disk");
        }
    }

    async fn offer(
        &self,
        tables: &mut watch::Receiver<Option<Arc<Table>>>,
        own: &mut watch::Receiver<Own>,
        offered: &mut Offered,
    ) {
        let own = own.borrow_and_update().clone();
        let Some(table) = tables.borrow_and_update().clone() else {
            // A balancer without a table sends nothing anywhere.
            self.worker.routed(own.number);
            return;
        };
        let routed = route(&table, &self.node, &own);
        if !offered.pending && offered.routed.as_ref() == Some(&routed) {
            self.worker.routed(own.number);
            return;
        }
        match self.sink.apply(routed.clone()).await {
            Ok(()) => {
                offered.accepted(&table, routed);
                self.worker.routed(own.number);
            }
            Err(error) => {
                if !offered.pending {
                    tracing::warn!(%error, version = %table.version, "the balancer did not take a table; it is offered again");
                }
                offered.pending = true;
            }
        }
    }

    async fn report(
        &self,
        from_sink: &mut watch::Receiver<SinkReport>,
        offered: &Offered,
        reports: &watch::Sender<SinkReport>,
    ) {
        let report = from_sink.borrow_and_update().clone();
        // Only for the very version that was acknowledged is it known who was in it.
        if offered.version == report.version {
            self.worker.acknowledged(offered.tasks.clone()).await;
        }
        reports.send_replace(report);
    }
}

/// The last table that the sink accepted.
#[derive(Default)]
struct Offered {
    version: u64,
    tasks: Arc<BTreeSet<TaskId>>,
    routed: Option<RoutedTable>,
    pending: bool,
}

impl Offered {
    fn accepted(&mut self, table: &Table, routed: RoutedTable) {
        self.pending = false;
        self.routed = Some(routed);
        self.version = table.version.0;
        self.tasks = Arc::new(
            table
                .listeners
                .iter()
                .flat_map(|listener| &listener.endpoints)
                .map(|endpoint| endpoint.task.clone())
                .collect(),
        );
    }
}

#[cfg(test)]
#[path = "routing_tests.rs"]
mod tests;
