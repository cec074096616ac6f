//! Commands for tests: node number N is added, and then it is there or it is not.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use swarmlet_core::command::{Command, Proposal};
use swarmlet_core::model::{
    Availability, Cluster, ClusterId, ClusterSpec, JoinSecret, ManagerInfo, Node, NodeDescription,
    NodeId, NodeSpec, NodeState, NodeStatus, Platform, Resources, Role, RootCa, RuntimeKind,
    Timestamp, Version,
};
use swarmlet_core::state::State;

use crate::raft::types::Payload;

pub(in crate::raft) fn init() -> Command {
    let secret = JoinSecret {
        salt: [1; 16],
        sha256: [2; 32],
    };
    Command::InitCluster {
        cluster: Box::new(Cluster {
            id: ClusterId::from_random(1),
            version: Version(0),
            created_at: Timestamp(0),
            spec: ClusterSpec::default(),
            root_ca: RootCa {
                certificate: b"certificate".to_vec(),
                key: b"a very secret root key".to_vec(),
            },
            worker_secret: secret.clone(),
            manager_secret: secret,
            schema: Cluster::SCHEMA,
            next_raft_id: 1,
            incarnation: 0,
        }),
        node: Box::new(node(0)),
    }
}

/// Adds node `number`.
pub(in crate::raft) fn add(number: u64) -> Command {
    Command::AddNode {
        node: Box::new(node(number)),
    }
}

/// Adds node `number` with a description of about `size` bytes.
pub(in crate::raft) fn add_large(number: u64, size: usize) -> Command {
    let mut node = node(number);
    node.description.engine_version = "x".repeat(size);
    Command::AddNode {
        node: Box::new(node),
    }
}

/// Adds the node of manager `raft_id`.
pub(in crate::raft) fn add_manager(raft_id: u64, address: SocketAddr) -> Command {
    let mut node = node(0);
    node.id = manager_id(raft_id);
    node.spec.role = Role::Manager;
    node.manager = Some(ManagerInfo { raft_id, address });
    Command::AddNode {
        node: Box::new(node),
    }
}

/// The node that [`add_manager`] adds.
pub(in crate::raft) fn manager_id(raft_id: u64) -> NodeId {
    id(1000 + raft_id)
}

/// Whether node `number` was added.
pub(in crate::raft) fn has(state: &State, number: u64) -> bool {
    state.node(&id(number)).is_some()
}

/// An encoded log entry that adds node `number`.
pub(in crate::raft) fn payload(number: u64) -> Payload {
    let command = if number == 0 { init() } else { add(number) };
    let proposal = Proposal {
        at: Timestamp(number),
        commands: vec![command],
    };
    Payload(swarmlet_proto::encode_proposal(&proposal))
}

pub(in crate::raft) fn id(number: u64) -> NodeId {
    NodeId::from_random(u128::from(number))
}

fn node(number: u64) -> Node {
    Node {
        id: id(number),
        version: Version(0),
        created_at: Timestamp(0),
        spec: NodeSpec {
            role: Role::Worker,
            availability: Availability::Active,
            labels: BTreeMap::new(),
        },
        description: NodeDescription {
            hostname: format!("node-{number}"),
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            platform: Platform {
                os: "linux".into(),
                arch: "amd64".into(),
            },
            resources: Resources::default(),
            generic_names: Default::default(),
            runtime: RuntimeKind::Process,
            engine_version: String::new(),
            engine_labels: BTreeMap::new(),
            task_ports: (20_000, 29_999),
            probe_port: 0,
            schema: Cluster::SCHEMA,
            program_version: "0".into(),
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
