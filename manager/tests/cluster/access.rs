//! Callers that must not get through, over real connections.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use swarmlet_core::model::Role;
use swarmlet_proto::identity::{Identity, new_key_and_csr};
use swarmlet_proto::transport;
use swarmlet_proto::v1;
use swarmlet_proto::v1::agent_message::Kind as Say;
use swarmlet_proto::v1::ca_client::CaClient;
use swarmlet_proto::v1::control_client::ControlClient;
use swarmlet_proto::v1::dispatcher_client::DispatcherClient;
use swarmlet_proto::v1::peer_client::PeerClient;
use swarmlet_proto::v1::raft_client::RaftClient;

use crate::agent::Agent;
use crate::harness::{Node, channel, description, join, until};

/// Has a node report that a task has failed, and waits until the report has been read.
pub(crate) async fn report_failure(
    identity: &Identity,
    address: SocketAddr,
    task: &str,
    error: &str,
) {
    let (say, outbound) = mpsc::channel(8);
    let failed = v1::TaskStatus {
        state: v1::TaskState::Failed as i32,
        at_ms: 1,
        error: Some(error.to_owned()),
        ..v1::TaskStatus::default()
    };
    let report = v1::TaskReport {
        task_id: task.to_owned(),
        status: Some(failed),
    };
    let hello = v1::Hello {
        description: Some((&description("rogue")).into()),
    };
    let statuses = Say::Statuses(v1::StatusBatch {
        reports: vec![report],
    });
    let tell = async |kind| {
        let message = v1::AgentMessage { kind: Some(kind) };
        say.send(message).await.unwrap();
    };
    tell(Say::Hello(hello.clone())).await;
    tell(statuses).await;
    let mut client = DispatcherClient::new(channel(identity, address));
    let session = client.session(ReceiverStream::new(outbound)).await.unwrap();
    let mut inbound = session.into_inner();
    // Longer than reports wait before they go to the leader; what waits ends with its session.
    tokio::time::sleep(Duration::from_millis(500)).await;
    // A second hello ends the session: what came before it has been read then.
    tell(Say::Hello(hello)).await;
    let end = loop {
        match inbound.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the session ended without a reason"),
            Err(status) => break status,
        }
    };
    assert_eq!(end.message(), "a second hello in one session");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_may_neither_command_nor_vote() {
    let manager = Node::first().await;
    let token = manager.token(Role::Worker).await;
    let worker = join(manager.address, &token, "").await.unwrap().identity;
    let channel = || channel(&worker, manager.address);
    let mut raft = RaftClient::new(channel());
    let mut peer = PeerClient::new(channel());
    let mut control = ControlClient::new(channel());
    let refusals = [
        raft.append(v1::RaftMessage::default()).await.unwrap_err(),
        raft.vote(v1::RaftMessage::default()).await.unwrap_err(),
        raft.snapshot(v1::RaftMessage::default()).await.unwrap_err(),
        peer.report(v1::ReportRequest::default()).await.unwrap_err(),
        peer.add_voter(v1::AddVoterRequest::default())
            .await
            .unwrap_err(),
        control
            .list_nodes(v1::ListNodesRequest {})
            .await
            .unwrap_err(),
    ];
    for refusal in refusals {
        assert_eq!(refusal.code(), Code::PermissionDenied, "{refusal}");
        assert!(
            refusal
                .message()
                .ends_with("is a worker, and this call is for managers")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_one_may_only_join() {
    let manager = Node::first().await;
    let digest = manager.token(Role::Worker).await.ca_digest;
    let channel = transport::pinned_channel(manager.address, digest)
        .await
        .unwrap();
    let mut control = ControlClient::new(channel.clone());
    let refused = control
        .list_nodes(v1::ListNodesRequest {})
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let csr = new_key_and_csr().unwrap().csr;
    let refused = CaClient::new(channel)
        .renew(v1::RenewRequest {
            csr,
            ..Default::default()
        })
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_of_another_cluster_does_not_even_connect() {
    let (manager, other) = (Node::first().await, Node::first().await);
    let foreign = other.manager.identities().identity();
    let mut control = ControlClient::new(channel(&foreign, manager.address));
    let refused = control
        .list_nodes(v1::ListNodesRequest {})
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
}

/// Asks for a certificate in another manager's name, as if a follower passed that on.
async fn renew_for(
    victim: &Identity,
    caller: &Identity,
    address: SocketAddr,
    forwarded: bool,
) -> Result<Identity, tonic::Status> {
    let new = new_key_and_csr().unwrap();
    let mut request = tonic::Request::new(v1::RenewRequest {
        csr: new.csr,
        ..Default::default()
    });
    let headers = request.metadata_mut();
    if forwarded {
        headers.insert("x-swarmlet-forwarded", "1".parse().unwrap());
    }
    headers.insert("x-swarmlet-node", victim.node.as_str().parse().unwrap());
    headers.insert("x-swarmlet-role", "manager".parse().unwrap());
    headers.insert("x-swarmlet-source", "10.9.9.9".parse().unwrap());
    let mut ca = CaClient::new(channel(caller, address));
    let answer = ca.renew(request).await?.into_inner();
    Ok(Identity::new(answer.certificate, new.key, answer.root).unwrap())
}

/// Headers are the forwarding managers' to write: a caller that writes them itself renews its
/// own certificate and no other.
#[tokio::test(flavor = "multi_thread")]
async fn forged_headers_change_nothing() {
    let first = Node::first().await;
    let second = first.another().await;
    let token = first.token(Role::Worker).await;
    let worker = join(first.address, &token, "").await.unwrap().identity;
    let victim = first.manager.identities().identity();
    for node in [&first, &second] {
        for forwarded in [false, true] {
            let renewed = renew_for(&victim, &worker, node.address, forwarded);
            let renewed = renewed.await.unwrap();
            assert_eq!((&renewed.node, renewed.role), (&worker.node, Role::Worker));
        }
    }
}

/// A certificate says for months that its node is a manager. What counts is the state.
#[tokio::test(flavor = "multi_thread")]
async fn who_was_a_manager_passes_nothing_on_any_more() {
    let first = Node::first().await;
    let second = first.another().await;
    let token = first.token(Role::Manager).await;
    let earlier = join(first.address, &token, "127.0.0.1:1").await.unwrap();
    let earlier = earlier.identity;
    let victim = first.manager.identities().identity();
    let passed_on = renew_for(&victim, &earlier, first.address, true).await;
    assert_eq!(passed_on.unwrap().node, victim.node, "managers may do this");

    first.demote(&earlier.node).await;
    let refused = renew_for(&victim, &earlier, first.address, true).await;
    let refused = refused.expect_err("a certificate of another node");
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    let refused = renew_for(&victim, &earlier, second.address, true).await;
    assert!(refused.is_err(), "it does not lead");
    // What is its own it still gets.
    for node in [&first, &second] {
        let renewed = renew_for(&victim, &earlier, node.address, false);
        let renewed = renewed.await.unwrap();
        assert_eq!((&renewed.node, renewed.role), (&earlier.node, Role::Worker));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_session_takes_the_place_of_the_earlier() {
    let manager = Node::first().await;
    let first = Agent::worker("w1", &manager, &[&manager]).await;
    until("the first session runs", async || {
        (first.seen.lock().unwrap().sessions == 1).then_some(())
    })
    .await;
    let second = Agent::start("w1", first.identity.clone(), &[&manager]);
    until("the first session was ended", async || {
        let seen = first.seen.lock().unwrap();
        let status = seen.last_error.as_ref()?;
        assert_eq!(status.code(), Code::Aborted, "{status}");
        Some(())
    })
    .await;
    drop(first);
    until("the second goes on", async || {
        (second.seen.lock().unwrap().sessions > 0).then_some(())
    })
    .await;
}
