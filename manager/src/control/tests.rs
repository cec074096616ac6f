use std::collections::BTreeMap;

use swarmlet_core::model::{
    ContainerSpec, LbPolicy, ManagerInfo, Node, NodeId, NodeState, RegistryAuth, Role, Service,
    ServiceId, ServiceMode, ServiceSpec, TaskSpec, Timestamp, UpdateConfig, Version,
};
use swarmlet_core::state::State;

use crate::access;

use super::{nodes, resolve, services};

fn node(id: u128, hostname: &str, state: NodeState, raft_id: Option<u64>) -> Node {
    let role = match raft_id {
        Some(_) => Role::Manager,
        None => Role::Worker,
    };
    let mut node = access::tests::node(id, role);
    node.description.hostname = hostname.to_owned();
    node.status.state = state;
    node.manager = raft_id.map(|raft_id| ManagerInfo {
        raft_id,
        address: ([127, 0, 0, 1], 2377).into(),
    });
    node
}

#[test]
fn nodes_are_found_by_id_then_name_then_start_of_the_id() {
    let full = NodeId::from_random(1).to_string();
    let nodes = vec![
        node(1, "a", NodeState::Ready, None),
        // A name that is the start of the other's identifier.
        node(2, "00", NodeState::Ready, None),
        node(3, "twin", NodeState::Ready, None),
        node(4, "twin", NodeState::Ready, None),
        node(u128::MAX, "far", NodeState::Ready, None),
    ];
    let state = State::restore(Version(1), None, nodes, Vec::new(), Vec::new());
    let check = |text: &str, expected: Result<&str, &str>| {
        let found = resolve::node(&state, text);
        let found = found
            .as_ref()
            .map(|node| node.description.hostname.as_str());
        assert_eq!(found.map_err(|status| status.message()), expected, "{text}");
    };
    check(&full, Ok("a"));
    check("a", Ok("a"));
    check("00", Ok("00"));
    check("f5lxx", Ok("far"));
    check("nobody", Err("no such node: nobody"));
    check("", Err("no such node: "));
    check(
        "twin",
        Err("node twin is ambiguous (2 matches found): name it by its ID"),
    );
    check(
        "000",
        Err("node 000 is ambiguous (4 matches found): name it by its ID"),
    );
}

#[test]
fn only_nodes_that_are_gone_are_removed_without_force() {
    use nodes::Removal::{Asked, Forced};
    let voters = BTreeMap::from([(1, ([127, 0, 0, 1], 2377).into())]);
    let check = |state, raft_id, how, expected: bool| {
        let allowed = nodes::may_remove(&node(1, "a", state, raft_id), &voters, how);
        assert_eq!(allowed.is_ok(), expected, "{state} {raft_id:?} {how:?}");
    };
    check(NodeState::Ready, None, Asked, false);
    check(NodeState::Unknown, None, Asked, false);
    check(NodeState::Down, None, Asked, true);
    check(NodeState::Down, Some(1), Asked, false);
    // It has left the voters.
    check(NodeState::Down, Some(2), Asked, true);
    check(NodeState::Ready, Some(1), Forced, true);
}

fn spec(image: &str, auth: Option<&str>) -> ServiceSpec {
    ServiceSpec {
        name: "ng".to_owned(),
        labels: BTreeMap::new(),
        mode: ServiceMode::Replicated { replicas: 1 },
        task: TaskSpec {
            containers: vec![ContainerSpec {
                image: image.to_owned(),
                registry_auth: auth.map(|auth| RegistryAuth(auth.to_owned())),
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

#[test]
fn credentials_stay_with_their_registry() {
    let check = |old: &str, new: &str, given: Option<&str>, expected: Option<&str>| {
        let mut updated = spec(new, given);
        services::keep_credentials(&spec(old, Some("old")), &mut updated);
        let auth = updated.task.containers[0].registry_auth.as_ref();
        assert_eq!(auth.map(|auth| auth.0.as_str()), expected, "{old} → {new}");
    };
    check("r.example.com/a:1", "r.example.com/a:2", None, Some("old"));
    check("r.example.com/a", "r.example.com/b", None, Some("old"));
    check(
        "r.example.com/a",
        "r.example.com/a",
        Some("new"),
        Some("new"),
    );
    check("r.example.com/a", "s.example.com/a", None, None);
    check("docker.io/library/a:1", "a:2", None, Some("old"));
    check("r.example.com/a", "r.example.com:5000/a", None, None);
    check("localhost/a", "a", None, None);
    // Both Docker Hub's.
    check("team/a", "nginx", None, Some("old"));
}

#[test]
fn no_credentials_are_shown() {
    let service = Service {
        id: ServiceId::from_random(1),
        version: Version(1),
        created_at: Timestamp(0),
        updated_at: Timestamp(0),
        spec: spec("r.example.com/a:2", Some("new")),
        spec_version: Version(1),
        previous_spec: Some(Box::new(spec("r.example.com/a:1", Some("old")))),
        update_status: None,
        rebalance: None,
        removing: false,
    };
    let shown = services::shown(&service);
    let text = format!("{shown:?}");
    assert!(text.contains("r.example.com/a:1"), "{text}");
    for spec in [shown.spec.unwrap(), shown.previous_spec.unwrap()] {
        for container in spec.task.unwrap().containers {
            assert_eq!(container.registry_auth, None);
        }
    }
}
