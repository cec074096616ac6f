//! Random values of every type of the model, each field of its own.

mod check;
pub(crate) mod commands;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::{Strategy, *};
use swarmlet_core::diagnosis::{DescriptorUse, DiskSpace, Failing, Observation, Peer, ProbedPort};
use swarmlet_core::endpoints::{Endpoint, EndpointState, Listener, Table};
use swarmlet_core::model::{Strategy as Order, *};
use swarmlet_core::state::State;

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

fn resources() -> impl Strategy<Value = Resources> {
    let generic = btree_map(text(), any::<u64>(), 0..3);
    (any::<[u64; 3]>(), generic).prop_map(|([nano_cpus, memory_bytes, pids], generic)| Resources {
        nano_cpus,
        memory_bytes,
        pids,
        generic,
    })
}

fn health() -> impl Strategy<Value = HealthCheck> {
    let test = prop_oneof![
        Just(HealthTest::Inherit),
        text().prop_map(HealthTest::Shell),
        Just(HealthTest::Disabled),
    ];
    let time = || option::of(duration());
    (test, time(), time(), time(), option::of(any::<u32>())).prop_map(
        |(test, interval, timeout, start_period, retries)| HealthCheck {
            test,
            interval,
            timeout,
            start_period,
            retries,
        },
    )
}

fn mount() -> impl Strategy<Value = Mount> {
    let kind = one_of(&[MountKind::Bind, MountKind::Volume, MountKind::Tmpfs]);
    (kind, text(), text(), any::<bool>()).prop_map(|(kind, source, target, read_only)| Mount {
        kind,
        source,
        target,
        read_only,
    })
}

fn container() -> impl Strategy<Value = ContainerSpec> {
    let list = || vec(text(), 0..3);
    let maybe = || option::of(text());
    let first = (text(), list(), list(), list(), labels(), maybe(), maybe());
    let second = (
        maybe(),
        vec(mount(), 0..2),
        maybe(),
        duration(),
        option::of(health()),
        option::of(text().prop_map(RegistryAuth)),
        option::of(check::check()),
        check::unhealthy_action(),
    );
    (first, second).prop_map(|(first, second)| {
        let (image, entrypoint, args, env, labels, hostname, user) = first;
        let (workdir, mounts, stop_signal, stop_grace_period, health, ..) = second;
        let (.., registry_auth, check, unhealthy_action) = second;
        ContainerSpec {
            image,
            entrypoint,
            args,
            env,
            labels,
            hostname,
            user,
            workdir,
            mounts,
            stop_signal,
            stop_grace_period,
            health,
            registry_auth,
            check,
            unhealthy_action,
        }
    })
}

fn restart_policy() -> impl Strategy<Value = RestartPolicy> {
    let conditions = [
        RestartCondition::Any,
        RestartCondition::OnFailure,
        RestartCondition::None,
    ];
    (one_of(&conditions), duration(), any::<u32>(), duration()).prop_map(
        |(condition, delay, max_attempts, window)| RestartPolicy {
            condition,
            delay,
            max_attempts,
            window,
        },
    )
}

fn placement() -> impl Strategy<Value = Placement> {
    let op = one_of(&[ConstraintOp::Equal, ConstraintOp::NotEqual]);
    let constraint =
        (text(), op, text()).prop_map(|(key, op, value)| Constraint { key, op, value });
    let preferences = ["node.labels.zone", "engine.labels.rack", "node.hostname"];
    let preference =
        one_of(&preferences).prop_map(|attribute| Preference::spread(attribute).unwrap());
    (
        vec(constraint, 0..3),
        vec(preference, 0..3),
        any::<u32>(),
        vec(platform(), 0..3),
        one_of(&[Order::Spread, Order::Binpack]),
    )
        .prop_map(
            |(constraints, preferences, max_replicas, platforms, strategy)| Placement {
                constraints,
                preferences,
                max_replicas,
                platforms,
                strategy,
            },
        )
}

fn log_driver() -> impl Strategy<Value = LogDriver> {
    (text(), labels()).prop_map(|(name, options)| LogDriver { name, options })
}

fn task_spec() -> impl Strategy<Value = TaskSpec> {
    (
        vec(container(), 0..3),
        resources(),
        resources(),
        restart_policy(),
        placement(),
        any::<u64>(),
        option::of(log_driver()),
    )
        .prop_map(
            |(containers, limits, reservations, restart, placement, force_update, log_driver)| {
                TaskSpec {
                    containers,
                    resources: ResourceRequirements {
                        limits,
                        reservations,
                    },
                    restart,
                    placement,
                    force_update,
                    log_driver,
                }
            },
        )
}

fn service_spec() -> impl Strategy<Value = ServiceSpec> {
    (
        text(),
        labels(),
        service_mode(),
        task_spec(),
        vec(port_spec(), 0..3),
        duration(),
        (update_config(), update_config()),
        (lb_policy(), any::<bool>()),
    )
        .prop_map(
            |(name, labels, mode, task, ports, drain_timeout, updates, lb)| ServiceSpec {
                name,
                labels,
                mode,
                task,
                ports,
                lb_policy: lb.0,
                lb_prefer_local: lb.1,
                drain_timeout,
                update: updates.0,
                rollback: updates.1,
            },
        )
}

fn service_mode() -> impl Strategy<Value = ServiceMode> {
    prop_oneof![
        any::<u32>().prop_map(|replicas| ServiceMode::Replicated { replicas }),
        Just(ServiceMode::Global {}),
        any::<(u32, u32)>().prop_map(|(max_concurrent, total_completions)| {
            ServiceMode::ReplicatedJob {
                max_concurrent,
                total_completions,
            }
        }),
        Just(ServiceMode::GlobalJob {}),
    ]
}

fn update_config() -> impl Strategy<Value = UpdateConfig> {
    let actions = [
        FailureAction::Pause,
        FailureAction::Continue,
        FailureAction::Rollback,
    ];
    let order = one_of(&[UpdateOrder::StopFirst, UpdateOrder::StartFirst]);
    let durations = (duration(), duration(), duration());
    let percent = || option::of(any::<u32>());
    (
        (any::<u32>(), 0..=1_000_000u32),
        durations,
        one_of(&actions),
        order,
        percent(),
        percent(),
    )
        .prop_map(
            |(
                (parallelism, ratio),
                (delay, monitor, deadline),
                failure_action,
                order,
                min,
                max,
            )| {
                UpdateConfig {
                    parallelism,
                    delay,
                    monitor,
                    max_failure_ratio: FailureRatio::from_millionths(ratio).unwrap(),
                    failure_action,
                    order,
                    min_healthy_percent: min,
                    max_percent: max,
                    progress_deadline: deadline,
                }
            },
        )
}

fn update_state() -> impl Strategy<Value = UpdateState> {
    one_of(&[
        UpdateState::Updating,
        UpdateState::Paused,
        UpdateState::Completed,
        UpdateState::RollbackStarted,
        UpdateState::RollbackPaused,
        UpdateState::RollbackCompleted,
    ])
}

fn update_status() -> impl Strategy<Value = UpdateStatus> {
    (
        update_state(),
        timestamp(),
        option::of(timestamp()),
        text(),
        any::<u32>(),
        any::<u32>(),
        option::of(task_id()),
    )
        .prop_map(
            |(state, started_at, completed_at, message, slots, failures, failed_task)| {
                UpdateStatus {
                    state,
                    started_at,
                    completed_at,
                    message,
                    slots,
                    failures,
                    failed_task,
                }
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

fn node_spec() -> impl Strategy<Value = NodeSpec> {
    let availability = one_of(&[
        Availability::Active,
        Availability::Pause,
        Availability::Drain,
    ]);
    (role(), availability, labels()).prop_map(|(role, availability, labels)| NodeSpec {
        role,
        availability,
        labels,
    })
}

fn platform() -> impl Strategy<Value = Platform> {
    (text(), text()).prop_map(|(os, arch)| Platform { os, arch })
}

fn names() -> impl Strategy<Value = std::collections::BTreeMap<String, Vec<String>>> {
    btree_map(text(), vec(text(), 0..3), 0..3)
}

fn description() -> impl Strategy<Value = NodeDescription> {
    let runtime = one_of(&[RuntimeKind::Docker, RuntimeKind::Process]);
    (
        text(),
        any::<IpAddr>(),
        platform(),
        (resources(), names()),
        runtime,
        text(),
        labels(),
        any::<(u16, u16)>(),
        any::<u32>(),
        (text(), any::<u16>()),
    )
        .prop_map(
            |(
                hostname,
                address,
                platform,
                (resources, generic_names),
                runtime,
                engine_version,
                engine_labels,
                task_ports,
                schema,
                (program_version, probe_port),
            )| NodeDescription {
                hostname,
                address,
                platform,
                resources,
                generic_names,
                runtime,
                engine_version,
                engine_labels,
                task_ports,
                probe_port,
                schema,
                program_version,
            },
        )
}

/// The text of an IPv6 address carries no flow label, so that there is none here either.
fn socket() -> impl Strategy<Value = SocketAddr> {
    any::<(IpAddr, u16)>().prop_map(SocketAddr::from)
}

fn manager() -> impl Strategy<Value = ManagerInfo> {
    (any::<u64>(), socket()).prop_map(|(raft_id, address)| ManagerInfo { raft_id, address })
}

fn port_problem() -> impl Strategy<Value = PortProblem> {
    (any::<u16>(), protocol(), text()).prop_map(|(port, protocol, reason)| PortProblem {
        port,
        protocol,
        reason,
    })
}

fn place() -> impl Strategy<Value = Place> {
    (node_id(), text(), any::<IpAddr>()).prop_map(|(node, hostname, address)| Place {
        node,
        hostname,
        address,
    })
}

fn problem() -> impl Strategy<Value = Problem> {
    let found = one_of(&[Closed::Dropped, Closed::Refused, Closed::Unreachable]);
    let user = one_of(&[DiskUser::State, DiskUser::Engine]);
    let kind = prop_oneof![
        (place(), vec(any::<(u16, u16)>(), 0..3), found)
            .prop_map(|(to, ports, found)| ProblemKind::Closed { to, ports, found }),
        (vec(place(), 0..3), any::<u16>())
            .prop_map(|(managers, port)| ProblemKind::CutOff { managers, port }),
        any::<i64>().prop_map(|ahead_ms| ProblemKind::Clock { ahead_ms }),
        (user, text(), any::<u64>(), any::<u64>()).prop_map(
            |(user, path, free_bytes, total_bytes)| ProblemKind::Disk {
                user,
                path,
                free_bytes,
                total_bytes,
            }
        ),
        text().prop_map(|reason| ProblemKind::Engine { reason }),
        (text(), any::<u64>(), any::<u64>()).prop_map(|(process, open, limit)| {
            ProblemKind::Descriptors {
                process,
                open,
                limit,
            }
        }),
    ];
    (timestamp(), kind).prop_map(|(since, kind)| Problem { since, kind })
}

pub(crate) fn peer() -> impl Strategy<Value = Peer> {
    (place(), any::<u16>(), option::of(socket())).prop_map(|(place, probe_port, manager)| Peer {
        place,
        probe_port,
        manager,
    })
}

pub(crate) fn observation() -> impl Strategy<Value = Observation> {
    let port = one_of(&[ProbedPort::Tasks, ProbedPort::Cluster]);
    let found = one_of(&[Closed::Dropped, Closed::Refused, Closed::Unreachable]);
    let user = one_of(&[DiskUser::State, DiskUser::Engine]);
    let failing =
        (node_id(), port, found, any::<u64>()).prop_map(|(node, port, found, ms)| Failing {
            node,
            port,
            found,
            lasting: Duration::from_millis(ms),
        });
    let disk = (user, text(), any::<u64>(), any::<u64>()).prop_map(
        |(user, path, free_bytes, total_bytes)| DiskSpace {
            user,
            path,
            free_bytes,
            total_bytes,
        },
    );
    let used =
        (text(), any::<u64>(), any::<u64>()).prop_map(|(process, open, limit)| DescriptorUse {
            process,
            open,
            limit,
        });
    (
        vec(failing, 0..3),
        vec(disk, 0..3),
        vec(used, 0..3),
        option::of(text()),
    )
        .prop_map(|(failing, disks, descriptors, engine)| Observation {
            failing,
            disks,
            descriptors,
            engine,
        })
}

fn node() -> impl Strategy<Value = Node> {
    let status =
        (node_state(), text(), timestamp()).prop_map(|(state, message, since)| NodeStatus {
            state,
            message,
            since,
        });
    (
        node_id(),
        version(),
        timestamp(),
        node_spec(),
        description(),
        status,
        option::of(manager()),
        vec(port_problem(), 0..3),
        vec(problem(), 0..3),
    )
        .prop_map(
            |(
                id,
                version,
                created_at,
                spec,
                description,
                status,
                manager,
                port_problems,
                problems,
            )| Node {
                id,
                version,
                created_at,
                spec,
                description,
                status,
                manager,
                port_problems,
                problems,
            },
        )
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
