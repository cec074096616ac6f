//! Random nodes, and what they see.

use super::*;

pub(super) fn node_spec() -> impl Strategy<Value = NodeSpec> {
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

pub(super) fn platform() -> impl Strategy<Value = Platform> {
    (text(), text()).prop_map(|(os, arch)| Platform { os, arch })
}

pub(super) fn names() -> impl Strategy<Value = std::collections::BTreeMap<String, Vec<String>>> {
    btree_map(text(), vec(text(), 0..3), 0..3)
}

pub(super) fn description() -> impl Strategy<Value = NodeDescription> {
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
pub(super) fn socket() -> impl Strategy<Value = SocketAddr> {
    any::<(IpAddr, u16)>().prop_map(SocketAddr::from)
}

pub(super) fn manager() -> impl Strategy<Value = ManagerInfo> {
    (any::<u64>(), socket()).prop_map(|(raft_id, address)| ManagerInfo { raft_id, address })
}

pub(super) fn port_problem() -> impl Strategy<Value = PortProblem> {
    (any::<u16>(), protocol(), text()).prop_map(|(port, protocol, reason)| PortProblem {
        port,
        protocol,
        reason,
    })
}

pub(super) fn place() -> impl Strategy<Value = Place> {
    (node_id(), text(), any::<IpAddr>()).prop_map(|(node, hostname, address)| Place {
        node,
        hostname,
        address,
    })
}

pub(super) fn problem() -> impl Strategy<Value = Problem> {
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

pub(super) fn node() -> impl Strategy<Value = Node> {
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
        any::<bool>(),
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
                superseded,
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
                superseded,
            },
        )
}
