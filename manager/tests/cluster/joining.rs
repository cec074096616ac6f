//! Who gets in, who stays, and who goes.

use std::time::Duration;

use tonic::Code;

use swarmlet_core::model::Role;
use swarmlet_proto::identity::new_key_and_csr;
use swarmlet_proto::v1;
use swarmlet_proto::v1::ca_client::CaClient;

use crate::agent::Agent;
use crate::harness::{Node, channel, join, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_or_rotated_token_is_refused() {
    let manager = Node::first().await;
    let old = manager.token(Role::Worker).await;
    let before = join(manager.address, &old, "").await.unwrap();

    let mut wrong = old.clone();
    wrong.secret = "0000000000000000000000000".to_owned().into();
    let refused = join(manager.address, &wrong, "").await.err().unwrap();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert_eq!(
        refused.message(),
        "invalid join token: the secret does not match (was it rotated? run `swarmlet \
         join-token worker|manager` on a manager)"
    );

    let new = manager.join_token(Role::Worker, true).await;
    assert_ne!(old, new);
    let refused = join(manager.address, &old, "").await.err().unwrap();
    assert_eq!(refused.code(), Code::Unauthenticated);
    join(manager.address, &new, "").await.unwrap();

    // Who joined with the old one stays.
    let csr = new_key_and_csr().unwrap().csr;
    let mut ca = CaClient::new(channel(&before.identity, manager.address));
    ca.renew(v1::RenewRequest {
        csr,
        ..Default::default()
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_is_slowed_down_on_a_follower_too() {
    let first = Node::first().await;
    let second = first.another().await;
    let mut wrong = first.token(Role::Worker).await;
    wrong.secret = "0000000000000000000000000".to_owned().into();
    let mut codes = Vec::new();
    for attempt in 0..14 {
        let node = if attempt % 2 == 0 { &first } else { &second };
        let refused = join(node.address, &wrong, "").await.err().unwrap();
        codes.push(refused.code());
    }
    assert_eq!(codes[..10], [Code::Unauthenticated; 10]);
    assert_eq!(codes[10..], [Code::ResourceExhausted; 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_names_an_address_that_can_be_reached() {
    let manager = Node::first().await;
    let token = manager.token(Role::Manager).await;
    for address in ["", "10.0.0.1", "0.0.0.0:2377", "10.0.0.1:0", "host:2377"] {
        let refused = join(manager.address, &token, address).await.err().unwrap();
        assert_eq!(refused.code(), Code::InvalidArgument, "{address}");
    }
    let taken = manager.address.to_string();
    let refused = join(manager.address, &token, &taken).await.err().unwrap();
    assert_eq!(refused.code(), Code::AlreadyExists);
}

#[tokio::test(flavor = "multi_thread")]
async fn managers_that_join_together_get_different_numbers() {
    let manager = Node::first().await;
    let token = manager.token(Role::Manager).await;
    let ports = 20001..20009;
    let joins = ports.map(|port| {
        let token = token.clone();
        let address = format!("127.0.0.9:{port}");
        async move {
            join(manager.address, &token, &address)
                .await
                .unwrap()
                .raft_id
        }
    });
    let mut ids: Vec<u64> = futures_util::future::join_all(joins).await;
    ids.sort_unstable();
    assert_eq!(ids, (2..10).collect::<Vec<u64>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_removed_only_when_it_is_down_and_its_stream_ends() {
    let first = Node::first().await;
    let second = first.another().await;
    let agent = Agent::worker("w1", &first, &[&second]).await;
    agent.is_ready(&first).await;

    let remove = async |id: String, force: bool| {
        let request = v1::RemoveNodeRequest { id, force };
        first.control().remove_node(request).await
    };
    let refused = remove("w1".to_owned(), false).await.unwrap_err();
    assert_eq!(
        refused.message(),
        format!("node {} is not down and can't be removed", agent.id())
    );
    let own = first.manager.identities().identity().node.to_string();
    let refused = remove(own.clone(), false).await.unwrap_err();
    assert_eq!(
        refused.message(),
        format!(
            "node {own} is a cluster manager and is a member of the raft cluster. It must be \
             demoted to worker before removal"
        )
    );

    remove("w1".to_owned(), true).await.unwrap();
    until("its session ends and none begins", async || {
        let seen = agent.seen.lock().unwrap();
        let code = seen.last_error.as_ref()?.code();
        (code == Code::PermissionDenied).then_some(())
    })
    .await;
    let mut ca = CaClient::new(channel(&agent.identity, first.address));
    let csr = new_key_and_csr().unwrap().csr;
    let refused = ca
        .renew(v1::RenewRequest {
            csr,
            ..Default::default()
        })
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_manager_stays_one_and_labels_change() {
    let manager = Node::first().await;
    let id = manager.manager.identities().identity().node.to_string();
    let worker = |spec: &mut v1::NodeSpec| spec.role = v1::Role::Worker as i32;
    let refused = manager.update_node(&id, worker).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(
        refused.message(),
        "attempting to demote the last manager of the swarm"
    );
    let label = |spec: &mut v1::NodeSpec| {
        spec.labels.insert("zone".to_owned(), "a".to_owned());
    };
    manager.update_node(&id, label).await.unwrap();
    let labels = manager
        .nodes()
        .await
        .remove(0)
        .node
        .unwrap()
        .spec
        .unwrap()
        .labels;
    assert_eq!(labels["zone"], "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_hears_what_is_wanted_of_it() {
    let manager = Node::first().await;
    let agent = Agent::worker("host2", &manager, &[&manager]).await;
    agent.is_ready(&manager).await;
    let availability = || agent.seen.lock().unwrap().spec.availability;
    assert_eq!(availability(), v1::Availability::Active as i32);
    let drain = |spec: &mut v1::NodeSpec| spec.availability = v1::Availability::Drain as i32;
    manager.update_node(&agent.id(), drain).await.unwrap();
    until("the node knows that it is drained", async || {
        (availability() == v1::Availability::Drain as i32).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn managers_leave_one_after_the_other_the_leader_too() {
    let first = Node::first().await;
    let second = first.another().await;
    let third = first.another().await;
    let mut nodes = vec![first, second, third];
    for left in [2, 1] {
        // The leader every time: the harder case.
        let leader = until("somebody leads", async || {
            nodes.iter().position(Node::leads)
        })
        .await;
        let leaving = nodes.remove(leader);
        leaving.manager.leave().await.unwrap();
        until(&format!("{left} managers are left"), async || {
            (nodes[0].manager.raft().voters().len() == left).then_some(())
        })
        .await;
        let gone = leaving.manager.identities().identity().node.to_string();
        leaving.kill().await;
        until("the others know", async || {
            let request = v1::ListNodesRequest {};
            let views = nodes[0]
                .control()
                .list_nodes(request)
                .await
                .ok()?
                .into_inner()
                .nodes;
            let view = views
                .into_iter()
                .find(|view| view.node.as_ref().unwrap().id == gone)?;
            view.manager_status.is_empty().then_some(())
        })
        .await;
    }
    let last = nodes.remove(0);
    last.create("ng", 1, 8080).await.unwrap();
    let refused = last.manager.leave().await.unwrap_err();
    assert!(refused.to_string().contains("last"), "{refused}");
    tokio::time::timeout(Duration::from_secs(5), last.kill())
        .await
        .unwrap();
}
