//! Nodes, the cluster and services as they are when nothing particular is wanted of them. The
//! benchmarks use them, too.

use std::collections::BTreeMap;

use swarmlet_core::model::{
    Availability, Cluster, ClusterId, ClusterSpec, ContainerSpec, JoinSecret, LbPolicy, Node,
    NodeDescription, NodeId, NodeSpec, NodeState, NodeStatus, Platform, Resources, Role, RootCa,
    RuntimeKind, ServiceMode, ServiceSpec, TaskSpec, Timestamp, UpdateConfig, Version,
};

/// A ready worker; the first byte of its identifier comes from its name.
pub(crate) fn node(name: &str, number: u8, cpus: u64, memory_bytes: u64) -> Node {
    Node {
        id: NodeId::from_random(u128::from(number)),
        version: Version(0),
        created_at: Timestamp(0),
        spec: NodeSpec {
            role: Role::Worker,
            availability: Availability::Active,
            labels: BTreeMap::new(),
        },
        description: NodeDescription {
            hostname: name.to_owned(),
            address: [10, 0, 0, number].into(),
            platform: Platform {
                os: "linux".to_owned(),
                arch: "amd64".to_owned(),
            },
            resources: Resources {
                nano_cpus: cpus * 1_000_000_000,
                memory_bytes,
                ..Resources::default()
            },
            generic_names: BTreeMap::new(),
            runtime: RuntimeKind::Docker,
            engine_version: "29.0".to_owned(),
            engine_labels: BTreeMap::new(),
            task_ports: (20_000, 29_999),
            probe_port: 0,
            schema: Cluster::SCHEMA,
            program_version: "0.1.0".to_owned(),
        },
        status: NodeStatus {
            state: NodeState::Ready,
            message: String::new(),
            since: Timestamp(0),
        },
        manager: None,
        port_problems: Vec::new(),
        problems: Vec::new(),
        superseded: false,
    }
}

/// A cluster without anything that is secret.
pub(crate) fn cluster() -> Cluster {
    let secret = JoinSecret {
        salt: [0; 16],
        sha256: [0; 32],
    };
    Cluster {
        id: ClusterId::from_random(1),
        version: Version(0),
        created_at: Timestamp(0),
        spec: ClusterSpec::default(),
        root_ca: RootCa {
            certificate: Vec::new(),
            key: Vec::new(),
        },
        worker_secret: secret.clone(),
        manager_secret: secret,
        schema: Cluster::SCHEMA,
        next_raft_id: 1,
        incarnation: 0,
    }
}

/// A service with one replica of `whoami`.
pub(crate) fn spec(name: &str) -> ServiceSpec {
    ServiceSpec {
        name: name.to_owned(),
        labels: BTreeMap::new(),
        mode: ServiceMode::Replicated { replicas: 1 },
        task: TaskSpec {
            containers: vec![ContainerSpec {
                image: "whoami".to_owned(),
                ..ContainerSpec::default()
            }],
            ..TaskSpec::default()
        },
        ports: Vec::new(),
        lb_policy: LbPolicy::RoundRobin,
        lb_prefer_local: false,
        drain_timeout: ServiceSpec::DEFAULT_DRAIN_TIMEOUT,
        update: UpdateConfig::default(),
        rollback: UpdateConfig::default(),
    }
}
