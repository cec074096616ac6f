use std::fs;
use std::path::Path;

use swarmlet_core::model::{
    Availability, ClusterId, ManagerInfo, Node, NodeDescription, NodeId, NodeSpec, NodeState,
    NodeStatus, Platform, Resources, Role, RuntimeKind, Timestamp, Version,
};
use swarmlet_core::state::State;
use swarmlet_proto::expelled;
use swarmlet_proto::identity::PeerIdentity;
use tonic::Status;

use crate::raft::Superseded;

use super::{Callers, RAFT, RULES, Refusal, View, callers, check};

const WORKER: u128 = 1;
const MANAGER: u128 = 2;
const DEMOTED: u128 = 3;
const REMOVED: u128 = 4;
const LEAVING: u128 = 5;
const LEFT_BEHIND: u128 = 6;
const INCARNATION: u64 = 77;

fn own_cluster() -> ClusterId {
    ClusterId::from_random(100)
}

/// Every `Service/Method` of the .proto files, in the order of the files.
fn every_rpc() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/proto/swarmlet/v1");
    let mut rpcs = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        let mut service = "";
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("service") => service = words.next().unwrap(),
                Some("rpc") => {
                    let method = words.next().unwrap().split('(').next().unwrap();
                    rpcs.push(format!("/swarmlet.v1.{service}/{method}"));
                }
                _ => {}
            }
        }
    }
    rpcs.sort();
    rpcs
}

/// A node that is ready, on this machine.
pub(crate) fn node(id: u128, role: Role) -> Node {
    Node {
        id: NodeId::from_random(id),
        version: Version(1),
        created_at: Timestamp(0),
        spec: NodeSpec {
            role,
            availability: Availability::Active,
            labels: Default::default(),
        },
        description: NodeDescription {
            hostname: format!("n{id}"),
            address: [127, 0, 0, 1].into(),
            platform: Platform {
                os: "linux".to_owned(),
                arch: "amd64".to_owned(),
            },
            resources: Resources::default(),
            generic_names: Default::default(),
            runtime: RuntimeKind::Process,
            engine_version: String::new(),
            engine_labels: Default::default(),
            task_ports: (20000, 29999),
            probe_port: 0,
            schema: 1,
            program_version: String::new(),
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

fn state() -> State {
    let nodes = vec![
        node(WORKER, Role::Worker),
        node(MANAGER, Role::Manager),
        node(DEMOTED, Role::Worker),
        Node {
            manager: Some(ManagerInfo {
                raft_id: 5,
                address: ([127, 0, 0, 5], 2377).into(),
            }),
            ..node(LEAVING, Role::Worker)
        },
        Node {
            superseded: true,
            ..node(LEFT_BEHIND, Role::Worker)
        },
    ];
    State::restore(Version(9), None, nodes, Vec::new(), Vec::new())
}

const NOW: Timestamp = Timestamp(1_000_000);

fn peer(id: u128, role: Role) -> PeerIdentity {
    PeerIdentity {
        node: NodeId::from_random(id),
        cluster: own_cluster(),
        role,
        not_after: Timestamp(u64::MAX),
    }
}

fn decide(path: &str, peer: Option<&PeerIdentity>, follows: bool) -> Result<(), Refusal> {
    decide_of(path, peer, follows, None)
}

fn decide_of(
    path: &str,
    peer: Option<&PeerIdentity>,
    follows: bool,
    superseded: Option<Superseded>,
) -> Result<(), Refusal> {
    let (state, cluster) = (state(), own_cluster());
    let view = View {
        cluster: &cluster,
        state: &state,
        now: NOW,
        follows_known_leader: follows,
        superseded,
        incarnation: INCARNATION,
    };
    check(path, peer, view)
}

#[test]
fn every_rpc_has_a_rule_and_every_rule_an_rpc() {
    let served: Vec<String> = every_rpc()
        .into_iter()
        .filter(|path| !path.starts_with("/swarmlet.v1.Local"))
        .collect();
    let mut rules: Vec<String> = RULES.iter().map(|(path, _)| (*path).to_owned()).collect();
    rules.sort();
    assert_eq!(served, rules);
    assert!(
        served.len() >= 20,
        "the .proto files were not read: {served:?}"
    );
}

#[test]
fn the_local_service_is_nobodys_over_the_network() {
    let local: Vec<String> = every_rpc()
        .into_iter()
        .filter(|path| path.starts_with("/swarmlet.v1.Local/"))
        .collect();
    assert_eq!(local.len(), 6, "{local:?}");
    for path in local {
        assert_eq!(callers(&path), None);
        assert_eq!(
            decide(&path, Some(&peer(MANAGER, Role::Manager)), true),
            Err(Refusal::NoRule(path))
        );
    }
}

/// Every RPC by every identity: the whole table, spelled out by kind of RPC.
#[test]
fn every_rpc_by_every_identity() {
    let foreign = PeerIdentity {
        cluster: ClusterId::from_random(200),
        ..peer(MANAGER, Role::Manager)
    };
    // In this order: no certificate, another cluster's, worker, manager, a worker that was a
    // manager when its certificate was signed, a removed worker, a removed manager, one that
    // is to be a worker and still votes, a manager that was left behind.
    let identities = [
        None,
        Some(foreign),
        Some(peer(WORKER, Role::Worker)),
        Some(peer(MANAGER, Role::Manager)),
        Some(peer(DEMOTED, Role::Manager)),
        Some(peer(REMOVED, Role::Worker)),
        Some(peer(REMOVED, Role::Manager)),
        Some(peer(LEAVING, Role::Manager)),
        Some(peer(LEFT_BEHIND, Role::Manager)),
    ];
    for path in every_rpc() {
        let allowed: Vec<bool> = identities
            .iter()
            .map(|peer| decide(&path, peer.as_ref(), true).is_ok())
            .collect();
        let expected = match path.as_str() {
            "/swarmlet.v1.Ca/Check" | "/swarmlet.v1.Ca/Join" => [true; 9],
            "/swarmlet.v1.Ca/Renew"
            | "/swarmlet.v1.Dispatcher/Session"
            | "/swarmlet.v1.Logs/PublishLogs" => {
                [false, false, true, true, true, false, false, true, false]
            }
            path if path.starts_with("/swarmlet.v1.Local") => [false; 9],
            path if path.starts_with(RAFT) => {
                [false, false, false, true, false, false, false, true, false]
            }
            _ => [false, false, false, true, false, false, false, false, false],
        };
        assert_eq!(allowed, expected, "{path}");
    }
}

#[test]
fn a_path_without_a_rule_is_refused_to_everybody() {
    for path in ["/swarmlet.v1.Raft/Append2", "/swarmlet.v1.Raft/", "/", ""] {
        let refusal = decide(path, Some(&peer(MANAGER, Role::Manager)), false);
        assert_eq!(refusal, Err(Refusal::NoRule(path.to_owned())));
    }
}

#[test]
fn a_replica_that_lags_listens_to_unknown_managers_in_raft_alone() {
    let newcomer = peer(REMOVED, Role::Manager);
    for (path, rule) in RULES {
        let allowed = decide(path, Some(&newcomer), false).is_ok();
        let expected = path.starts_with("/swarmlet.v1.Raft/") || rule == Callers::Anybody;
        assert_eq!(allowed, expected, "{path}");
        // Never a worker, known or not.
        if rule == Callers::Managers {
            assert!(decide(path, Some(&peer(REMOVED, Role::Worker)), false).is_err());
            assert!(decide(path, Some(&peer(WORKER, Role::Worker)), false).is_err());
        }
    }
}

#[test]
fn refusals_say_who_and_why() {
    let refusal = |peer: PeerIdentity| {
        decide("/swarmlet.v1.Control/ListNodes", Some(&peer), true)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        refusal(peer(WORKER, Role::Worker)),
        "node 0000000000000000000000001 is a worker, and this call is for managers"
    );
    assert_eq!(
        refusal(peer(REMOVED, Role::Manager)),
        "node 0000000000000000000000004 is not part of the swarm any more: it was removed. Run \
         `swarmlet leave --force` on it, then `swarmlet join`"
    );
    assert_eq!(
        refusal(peer(LEFT_BEHIND, Role::Manager)),
        "node 0000000000000000000000006 was a manager when the swarm went on without it (`swarmlet \
         init --force-new-cluster`). Run `swarmlet leave --force` on it, then `swarmlet join`"
    );
    let lagging = decide(
        "/swarmlet.v1.Control/ListNodes",
        Some(&peer(REMOVED, Role::Manager)),
        false,
    );
    assert_eq!(
        lagging.unwrap_err().to_string(),
        "node 0000000000000000000000004 is not part of the cluster: it was removed, or joined a \
         moment ago"
    );
    assert_eq!(
        decide("/swarmlet.v1.Control/ListNodes", None, true)
            .unwrap_err()
            .to_string(),
        "this call needs a certificate of the cluster"
    );
}

#[test]
fn a_refusal_tells_a_node_that_it_is_none_any_more_and_a_manager_that_it_was_left_behind() {
    let status = |id, role, follows| {
        let refused = decide("/swarmlet.v1.Raft/Vote", Some(&peer(id, role)), follows);
        Status::from(refused.unwrap_err())
    };
    for id in [REMOVED, LEFT_BEHIND] {
        let status = status(id, Role::Manager, true);
        assert!(expelled::is_expelled(&status), "{id}");
        assert_eq!(expelled::superseded_by(&status), Some(INCARNATION), "{id}");
    }
    let worker = status(WORKER, Role::Worker, true);
    assert!(!expelled::is_expelled(&worker));
    // Even a replica that knows of no leader knows who was left behind.
    let behind = status(LEFT_BEHIND, Role::Manager, false);
    assert!(expelled::is_expelled(&behind));
}

#[test]
fn a_manager_that_was_left_behind_serves_nobody() {
    let superseded = Superseded {
        incarnation: INCARNATION,
        by: ([10, 0, 0, 1], 2377).into(),
    };
    for (path, _) in RULES {
        let manager = peer(MANAGER, Role::Manager);
        let refused = decide_of(path, Some(&manager), true, Some(superseded));
        let status = Status::from(refused.unwrap_err());
        // It is no word on the caller, who may be one of those that went on.
        assert!(!expelled::is_expelled(&status), "{path}");
        assert_eq!(
            expelled::superseded_by(&status),
            Some(INCARNATION),
            "{path}"
        );
    }
}

/// An expired certificate is good for another one, and among managers for the leader who signs it.
#[test]
fn every_rpc_with_a_certificate_that_has_ended() {
    let expired = |id, role| PeerIdentity {
        not_after: Timestamp(NOW.0 - 1),
        ..peer(id, role)
    };
    for path in every_rpc() {
        for follows in [true, false] {
            let allowed = |id, role| decide(&path, Some(&expired(id, role)), follows).is_ok();
            let open = callers(&path) == Some(Callers::Anybody);
            let renews = path == "/swarmlet.v1.Ca/Renew";
            let raft = path.starts_with("/swarmlet.v1.Raft/");
            assert_eq!(allowed(WORKER, Role::Worker), open || renews, "{path}");
            // The state knows the second one as a voter.
            assert_eq!(allowed(MANAGER, Role::Manager), open || renews, "{path}");
            let votes = allowed(LEAVING, Role::Manager);
            assert_eq!(votes, open || renews || raft, "{path}");
            assert_eq!(allowed(REMOVED, Role::Manager), open, "{path}");
            assert_eq!(allowed(LEFT_BEHIND, Role::Manager), open, "{path}");
        }
    }
    let session = "/swarmlet.v1.Dispatcher/Session";
    let last = PeerIdentity {
        not_after: NOW,
        ..peer(WORKER, Role::Worker)
    };
    assert_eq!(decide(session, Some(&last), true), Ok(()));
    let told = decide(session, Some(&expired(REMOVED, Role::Worker)), true);
    assert!(matches!(told, Err(Refusal::RemovedNode { .. })), "{told:?}");
}
