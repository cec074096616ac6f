//! Objects for tests of screens.

use std::collections::BTreeMap;
use std::time::Duration;

use swarmlet_core::model::{
    Availability, ContainerSpec, LbPolicy, ManagerInfo, Node, NodeDescription, NodeId, NodeSpec,
    NodeState, NodeStatus, Platform, PortMode, PortSpec, Protocol, Resources, RestartHistory, Role,
    RuntimeKind, Service, ServiceId, ServiceMode, ServiceSpec, Task, TaskId, TaskSpec, TaskState,
    TaskStatus, Timestamp, UpdateConfig, Version,
};

/// The time of all samples, in milliseconds.
pub(crate) const NOW: Timestamp = Timestamp(1_000_000);

pub(crate) fn node(number: u128, hostname: &str, role: Role) -> Node {
    let address = format!("10.99.0.{number}");
    let manager = (role == Role::Manager).then(|| ManagerInfo {
        raft_id: 1,
        address: format!("{address}:2377").parse().unwrap(),
    });
    Node {
        id: NodeId::from_random(number << 100),
        version: Version(1),
        created_at: Timestamp(0),
        spec: NodeSpec {
            role,
            availability: Availability::Active,
            labels: BTreeMap::new(),
        },
        description: NodeDescription {
            hostname: hostname.to_owned(),
            address: address.parse().unwrap(),
            platform: Platform {
                os: "linux".to_owned(),
                arch: "amd64".to_owned(),
            },
            resources: Resources {
                nano_cpus: 2_000_000_000,
                memory_bytes: 4 << 30,
                ..Resources::default()
            },
            generic_names: BTreeMap::new(),
            runtime: RuntimeKind::Docker,
            engine_version: "20.10.24".to_owned(),
            engine_labels: BTreeMap::new(),
            task_ports: (20000, 29999),
            probe_port: 0,
            schema: 1,
            program_version: "0.1.0".to_owned(),
        },
        status: NodeStatus {
            state: NodeState::Ready,
            message: String::new(),
            since: Timestamp(0),
        },
        manager,
        port_problems: Vec::new(),
        problems: Vec::new(),
        superseded: false,
    }
}

pub(crate) fn service(number: u128, name: &str, replicas: u32) -> Service {
    Service {
        id: ServiceId::from_random(number << 100),
        version: Version(1),
        created_at: Timestamp(0),
        updated_at: Timestamp(0),
        spec: ServiceSpec {
            name: name.to_owned(),
            labels: BTreeMap::new(),
            mode: ServiceMode::Replicated { replicas },
            task: TaskSpec {
                containers: vec![ContainerSpec {
                    image: "whoami".to_owned(),
                    ..ContainerSpec::default()
                }],
                ..TaskSpec::default()
            },
            ports: vec![PortSpec {
                target: 80,
                published: 8080,
                protocol: Protocol::Tcp,
                mode: PortMode::Ingress,
                proxy_protocol: None,
                accept_proxy: Vec::new(),
            }],
            lb_policy: LbPolicy::RoundRobin,
            lb_prefer_local: false,
            drain_timeout: Duration::from_secs(10),
            update: UpdateConfig::default(),
            rollback: UpdateConfig::default(),
        },
        spec_version: Version(1),
        previous_spec: None,
        update_status: None,
        rebalance: None,
        removing: false,
    }
}

pub(crate) fn task(service: &Service, number: u128, slot: u32, state: TaskState) -> Task {
    Task {
        id: TaskId::from_random(number << 100),
        version: Version(1),
        service: service.id.clone(),
        service_name: service.spec.name.clone(),
        slot,
        home: None,
        node: None,
        generic_names: BTreeMap::new(),
        spec: service.spec.task.clone(),
        ports: service.spec.ports.clone(),
        spec_version: Version(1),
        created_at: Timestamp(u64::try_from(number).unwrap()),
        desired: TaskState::Running,
        status: TaskStatus {
            state,
            at: Timestamp(NOW.0 - 6000),
            message: String::new(),
            error: None,
            container: None,
            ports: Vec::new(),
        },
        restart: RestartHistory::default(),
        moving: false,
        draining: None,
    }
}
