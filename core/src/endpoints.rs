//! Who answers on a published port: the table that every balancer works by.
//!
//! It is derived from the tasks and stored nowhere, so it can never disagree with them. Its
//! version is the Raft index of the state that it was derived from.

use std::net::SocketAddr;

use crate::model::{
    LbPolicy, Network, Node, NodeId, NodeState, PortMode, PortSpec, Protocol, ProxyProtocol,
    Service, ServiceId, Task, TaskId, TaskPort, TaskState, Version,
};
use crate::state::State;

/// Weight of every endpoint for now: all tasks of a service are alike.
const WEIGHT: u32 = 1;

/// All published ports of the cluster with their endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// Index of the state that it was derived from.
    pub version: Version,
    /// One for each published port, by port.
    pub listeners: Vec<Listener>,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The port that clients use.
    pub port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
    /// The service behind it.
    pub service: ServiceId,
    /// Its name.
    pub service_name: String,
    /// How an endpoint is chosen.
    pub policy: LbPolicy,
    /// Whether a node's own tasks come first while they are not clearly busier.
    pub prefer_local: bool,
    /// Clients from these networks must say whose connection it is.
    pub accept_proxy: Vec<Network>,
    /// The tasks behind it, by task.
    pub endpoints: Vec<Endpoint>,
}

/// A task behind a published port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The task.
    pub task: TaskId,
    /// Its node.
    pub node: NodeId,
    /// The node's address and the task's port there: the way from other nodes.
    pub address: SocketAddr,
    /// The container's own address and port: the way on its own node, where there is one.
    /// There the engine's port proxy would accept even if nothing listened behind it.
    pub local: Option<SocketAddr>,
    /// Its share of connections relative to the others'.
    pub weight: u32,
    /// Whether and how it is told whose connection it is.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Whether it gets new connections.
    pub state: EndpointState,
}

/// Whether an endpoint gets new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointState {
    /// It does.
    Ready,
    /// It finishes those it has.
    Draining,
}

/// The table that follows from the tasks.
///
/// An endpoint is a task that runs, has been healthy where there is a check, is not yet told
/// to stop, and whose node is ready. A service that is being removed has no listener any more,
/// so that its port is free at once.
#[must_use]
pub fn derive(state: &State) -> Table {
    let mut listeners: Vec<Listener> = state
        .services()
        .filter(|service| !service.removing)
        .flat_map(|service| ingress(&service.spec.ports).map(|port| listener(state, service, port)))
        .collect();
    listeners.sort_by_key(|listener| (listener.port, listener.protocol));
    Table {
        version: state.version(),
        listeners,
    }
}

/// Whether balancers may have connections to a task: it must be drained before it is stopped.
/// The tasks of a service that is being removed count, although its listeners are gone.
#[must_use]
pub fn is_routable(state: &State, task: &Task) -> bool {
    let published = |port: &TaskPort| port.mode == PortMode::Ingress;
    node_of(state, task).is_some() && task.status.ports.iter().any(published)
}

fn listener(state: &State, service: &Service, port: &PortSpec) -> Listener {
    let mut endpoints: Vec<Endpoint> = state
        .tasks_of(&service.id)
        .filter_map(|task| endpoint(state, task, port))
        .collect();
    endpoints.sort_by(|a, b| a.task.cmp(&b.task));
    Listener {
        port: port.published,
        protocol: port.protocol,
        service: service.id.clone(),
        service_name: service.spec.name.clone(),
        policy: service.spec.lb_policy,
        prefer_local: service.spec.lb_prefer_local,
        accept_proxy: port.accept_proxy.clone(),
        endpoints,
    }
}

fn endpoint(state: &State, task: &Task, port: &PortSpec) -> Option<Endpoint> {
    let node = node_of(state, task)?;
    let host = task.status.ports.iter().find(|found| {
        found.target == port.target
            && found.protocol == port.protocol
            && found.mode == PortMode::Ingress
    })?;
    let container = task.status.container.as_ref();
    Some(Endpoint {
        task: task.id.clone(),
        node: node.id.clone(),
        address: SocketAddr::new(node.description.address, host.host),
        local: container
            .and_then(|container| container.address)
            .map(|address| SocketAddr::new(address, port.target)),
        weight: WEIGHT,
        proxy_protocol: proxy_protocol(task, port),
        // One whose checks fail keeps the connections that it has: they may well be served.
        state: match task.draining {
            None if task.is_healthy() => EndpointState::Ready,
            _ => EndpointState::Draining,
        },
    })
}

/// What a task expects of the port: what was asked for when it was made. One that was made
/// before the port was published expects what it does of others that lead to the same place.
fn proxy_protocol(task: &Task, port: &PortSpec) -> Option<ProxyProtocol> {
    let alike = || {
        task.ports.iter().filter(|own| {
            own.target == port.target && own.protocol == port.protocol && own.mode == port.mode
        })
    };
    alike()
        .find(|own| own.published == port.published)
        .or_else(|| alike().next())?
        .proxy_protocol
}

/// The node of a task that takes connections, or `None` if it takes none.
fn node_of<'a>(state: &'a State, task: &Task) -> Option<&'a Node> {
    let running = task.status.state == TaskState::Running && task.desired <= TaskState::Running;
    let node = state.node(task.node.as_ref()?)?;
    (running && node.status.state == NodeState::Ready).then_some(node)
}

fn ingress(ports: &[PortSpec]) -> impl Iterator<Item = &PortSpec> {
    ports.iter().filter(|port| port.mode == PortMode::Ingress)
}

#[cfg(test)]
mod tests;
