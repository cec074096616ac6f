//! Random values of every type of the model, each field of its own.

mod check;
pub(crate) mod commands;
mod node;
mod spec;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::{Strategy, *};
use swarmlet_core::diagnosis::{DescriptorUse, DiskSpace, Failing, Observation, Peer, ProbedPort};
use swarmlet_core::endpoints::{Endpoint, EndpointState, Listener, Table};
use swarmlet_core::model::{Strategy as Order, *};
use swarmlet_core::state::State;

use node::*;
pub(crate) use node::{observation, peer};
use spec::*;

type Labels = std::collections::BTreeMap<String, String>;

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,6}"
}

fn labels() -> impl Strategy<Value = Labels> {
    btree_map(text(), text(), 0..3)
}

fn version() -> impl Strategy<Value = Version> {
    any::<u64>().prop_map(Version)
}

fn timestamp() -> impl Strategy<Value = Timestamp> {
    any::<u64>().prop_map(Timestamp)
}

/// Every duration that nanoseconds in 64 bits can hold.
fn duration() -> impl Strategy<Value = Duration> {
    any::<u64>().prop_map(Duration::from_nanos)
}

fn node_id() -> impl Strategy<Value = NodeId> {
    any::<u128>().prop_map(NodeId::from_random)
}

fn service_id() -> impl Strategy<Value = ServiceId> {
    any::<u128>().prop_map(ServiceId::from_random)
}

fn task_id() -> impl Strategy<Value = TaskId> {
    any::<u128>().prop_map(TaskId::from_random)
}

fn one_of<T: Clone + std::fmt::Debug + 'static>(values: &[T]) -> impl Strategy<Value = T> + use<T> {
    prop::sample::select(values.to_vec())
}

fn role() -> impl Strategy<Value = Role> {
    one_of(&[Role::Worker, Role::Manager])
}

fn task_state() -> impl Strategy<Value = TaskState> {
    one_of(&TaskState::ALL)
}

fn node_state() -> impl Strategy<Value = NodeState> {
    one_of(&[NodeState::Ready, NodeState::Unknown, NodeState::Down])
}

fn protocol() -> impl Strategy<Value = Protocol> {
    one_of(&[Protocol::Tcp, Protocol::Udp])
}

fn port_mode() -> impl Strategy<Value = PortMode> {
    one_of(&[PortMode::Ingress, PortMode::Host])
}

fn proxy_protocol() -> impl Strategy<Value = Option<ProxyProtocol>> {
    option::of(one_of(&[ProxyProtocol::V1, ProxyProtocol::V2]))
}

fn networks() -> impl Strategy<Value = Vec<Network>> {
    let network = one_of(&["10.0.0.0/8", "192.0.2.1/32", "::/0", "2001:db8::/33"]);
    vec(network.prop_map(|text| text.parse().unwrap()), 0..3)
}

fn lb_policy() -> impl Strategy<Value = LbPolicy> {
    one_of(&[
        LbPolicy::RoundRobin,
        LbPolicy::LeastConn,
        LbPolicy::SourceHash,
    ])
}

fn port_spec() -> impl Strategy<Value = PortSpec> {
    let ports = (any::<u16>(), any::<u16>());
    (ports, protocol(), port_mode(), proxy_protocol(), networks()).prop_map(
        |((target, published), protocol, mode, proxy_protocol, accept_proxy)| PortSpec {
            target,
            published,
            protocol,
            mode,
            proxy_protocol,
            accept_proxy,
        },
    )
}

fn rebalance() -> impl Strategy<Value = Rebalance> {
    (timestamp(), any::<u32>()).prop_map(|(started_at, moves_left)| Rebalance {
        started_at,
        moves_left,
    })
}

fn service() -> impl Strategy<Value = Service> {
    (
        service_id(),
        version(),
        timestamp(),
        timestamp(),
        service_spec(),
        version(),
        option::of(service_spec()),
        option::of(update_status()),
        (option::of(rebalance()), any::<bool>()),
    )
        .prop_map(
            |(
                id,
                version,
                created_at,
                updated_at,
                spec,
                spec_version,
                previous_spec,
                update_status,
                (rebalance, removing),
            )| Service {
                id,
                version,
                created_at,
                updated_at,
                spec,
                spec_version,
                previous_spec: previous_spec.map(Box::new),
                update_status,
                rebalance,
                removing,
            },
        )
}

fn task_status() -> impl Strategy<Value = TaskStatus> {
    let container = (
        text(),
        any::<u32>(),
        option::of(any::<i32>()),
        option::of(any::<IpAddr>()),
        any::<bool>(),
    )
        .prop_map(|(id, pid, exit_code, address, ejected)| ContainerStatus {
            id,
            pid,
            exit_code,
            address,
            ejected,
        });
    let port = (any::<u16>(), any::<u16>(), protocol(), port_mode()).prop_map(
        |(target, host, protocol, mode)| TaskPort {
            target,
            host,
            protocol,
            mode,
        },
    );
    (
        task_state(),
        timestamp(),
        text(),
        option::of(text()),
        option::of(container),
        vec(port, 0..3),
    )
        .prop_map(|(state, at, message, error, container, ports)| TaskStatus {
            state,
            at,
            message,
            error,
            container,
            ports,
        })
}

fn task() -> impl Strategy<Value = Task> {
    let restart = (any::<u32>(), any::<u32>(), timestamp(), timestamp()).prop_map(
        |(failures, attempts, window_start, not_before)| RestartHistory {
            failures,
            attempts,
            window_start,
            not_before,
        },
    );
    let draining =
        (timestamp(), version()).prop_map(|(since, version)| Draining { since, version });
    let first = (
        task_id(),
        version(),
        service_id(),
        text(),
        (any::<u32>(), option::of(node_id())),
        (option::of(node_id()), names()),
        task_spec(),
    );
    let second = (
        vec(port_spec(), 0..3),
        version(),
        timestamp(),
        task_state(),
        task_status(),
        restart,
        (any::<bool>(), option::of(draining)),
    );
    (first, second).prop_map(|(first, second)| {
        let (id, version, service, service_name, (slot, home), (node, generic_names), spec) = first;
        let (ports, spec_version, created_at, desired, status, restart, (moving, draining)) =
            second;
        Task {
            id,
            version,
            service,
            service_name,
            slot,
            home,
            node,
            generic_names,
            spec,
            ports,
            spec_version,
            created_at,
            desired,
            status,
            restart,
            moving,
            draining,
        }
    })
}

fn cluster_spec() -> impl Strategy<Value = ClusterSpec> {
    (any::<u32>(), duration(), duration()).prop_map(
        |(task_history_limit, node_unknown_after, node_replace_delay)| ClusterSpec {
            task_history_limit,
            node_unknown_after,
            node_replace_delay,
        },
    )
}

fn join_secret() -> impl Strategy<Value = JoinSecret> {
    any::<([u8; 16], [u8; 32])>().prop_map(|(salt, sha256)| JoinSecret { salt, sha256 })
}

fn cluster() -> impl Strategy<Value = Cluster> {
    let root = (vec(any::<u8>(), 1..9), vec(any::<u8>(), 1..9))
        .prop_map(|(certificate, key)| RootCa { certificate, key });
    (
        any::<u128>(),
        version(),
        timestamp(),
        cluster_spec(),
        root,
        join_secret(),
        join_secret(),
        any::<u32>(),
        any::<u64>(),
        any::<u64>(),
    )
        .prop_map(
            |(
                id,
                version,
                created_at,
                spec,
                root_ca,
                worker_secret,
                manager_secret,
                schema,
                next_raft_id,
                incarnation,
            )| Cluster {
                id: ClusterId::from_random(id),
                version,
                created_at,
                spec,
                root_ca,
                worker_secret,
                manager_secret,
                schema,
                next_raft_id,
                incarnation,
            },
        )
}

/// The parts of a state, in no order.
pub(crate) type Parts = (Version, Option<Cluster>, Vec<Node>, Vec<Service>, Vec<Task>);

pub(crate) fn parts() -> impl Strategy<Value = Parts> {
    (
        version(),
        option::of(cluster()),
        vec(node(), 0..3),
        vec(service(), 0..3),
        vec(task(), 0..3),
    )
}

pub(crate) fn restore((version, cluster, nodes, services, tasks): Parts) -> State {
    State::restore(version, cluster, nodes, services, tasks)
}

pub(crate) fn table() -> impl Strategy<Value = Table> {
    let state = one_of(&[EndpointState::Ready, EndpointState::Draining]);
    let endpoint = (
        task_id(),
        node_id(),
        socket(),
        option::of(socket()),
        any::<u32>(),
        state,
        proxy_protocol(),
    )
        .prop_map(
            |(task, node, address, local, weight, state, proxy)| Endpoint {
                task,
                node,
                address,
                local,
                weight,
                proxy_protocol: proxy,
                state,
            },
        );
    let listener = (
        any::<u16>(),
        protocol(),
        service_id(),
        text(),
        (lb_policy(), any::<bool>(), networks()),
        vec(endpoint, 0..3),
    )
        .prop_map(
            |(port, protocol, service, service_name, lb, endpoints)| Listener {
                port,
                protocol,
                service,
                service_name,
                policy: lb.0,
                prefer_local: lb.1,
                accept_proxy: lb.2,
                endpoints,
            },
        );
    (version(), vec(listener, 0..3)).prop_map(|(version, listeners)| Table { version, listeners })
}
