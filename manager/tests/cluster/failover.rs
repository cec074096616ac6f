//! Several managers: followers, a lost leader, a lost quorum, a restart.

use std::time::{Duration, Instant};

use tonic::Code;

use swarmlet_proto::v1;
use swarmlet_proto::v1::control_client::ControlClient;

use crate::agent::{Agent, watch_for};
use crate::harness::{Node, channel, until};

const NO_LEADER: &str = "The swarm does not have a leader. It's possible that too few managers \
    are online. Make sure more than half of the managers are online.";

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_answers_as_the_leader_does() {
    let first = Node::first().await;
    let second = first.another().await;
    let agent = Agent::worker("w1", &second, &[&second]).await;
    second.create("ng", 2, 8080).await.unwrap();
    first.runs(2).await;
    assert_eq!(first.running().await, second.running().await);
    assert_eq!(
        second.create("ng", 1, 8081).await.unwrap_err().code(),
        Code::AlreadyExists
    );
    until(
        "the follower's agent knows the endpoints and the managers",
        async || {
            let managers = agent.seen.lock().unwrap().managers.len();
            (agent.endpoints(8080).len() == 2 && managers == 2).then_some(())
        },
    )
    .await;

    // Over the network the caller must be a manager, on the follower as well.
    let own = first.manager.identities().identity();
    let mut control = ControlClient::new(channel(&own, second.address));
    let nodes = control
        .list_nodes(v1::ListNodesRequest {})
        .await
        .unwrap()
        .into_inner()
        .nodes;
    let mut roles: Vec<String> = nodes.into_iter().map(|view| view.manager_status).collect();
    roles.sort();
    assert_eq!(roles, ["", "leader", "reachable"]);
    let mut control = ControlClient::new(channel(&agent.identity, second.address));
    let refused = control
        .list_nodes(v1::ListNodesRequest {})
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_leader_restarts_nothing() {
    let first = Node::first().await;
    let second = first.another().await;
    let third = first.another().await;
    let all = [&first, &second, &third];
    // One agent with each manager; that of the first loses its session with it.
    let agents = [
        Agent::worker("w1", &first, &[&first, &second]).await,
        Agent::worker("w2", &first, &[&second, &third]).await,
        Agent::worker("w3", &first, &[&third, &second]).await,
    ];
    for agent in &agents {
        agent.is_ready(&first).await;
    }
    first.create("ng", 6, 8080).await.unwrap();
    let before = first.runs(6).await;
    assert!(all.iter().filter(|node| node.leads()).count() == 1 && first.leads());

    let killed = Instant::now();
    first.kill().await;
    until("writes are accepted again", async || {
        second.create("after", 0, 8081).await.ok()
    })
    .await;
    println!(
        "writes accepted again {:?} after the leader was killed",
        killed.elapsed()
    );
    // Longer than it takes to call a silent node down.
    watch_for(Duration::from_secs(9), || {
        for agent in &agents {
            let seen = agent.seen.lock().unwrap();
            assert_eq!(seen.stopped, Vec::<String>::new(), "{}", agent.hostname);
        }
    })
    .await;
    assert_eq!(third.running().await, before);
    let ready = v1::NodeState::Ready as i32;
    for view in second.nodes().await {
        let node = view.node.unwrap();
        let worker = view.manager_status.is_empty();
        assert!(
            !worker || node.status.unwrap().state == ready,
            "{}",
            node.id
        );
    }

    // And the new leader goes on where the old one was stopped.
    second.scale("ng", 2).await;
    let after = second.runs(2).await;
    assert!(after.iter().all(|id| before.contains(id)));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_the_reason_comes_in_time() {
    const STALE: &str = "x-swarmlet-stale";
    let first = Node::first().await;
    let second = first.another().await;
    let agent = Agent::worker("w1", &first, &[&first]).await;
    agent.is_ready(&first).await;
    second.kill().await;
    until("the loss is noticed", async || {
        (!first.leads()).then_some(())
    })
    .await;
    let asked = Instant::now();
    let refused = first.create("ng", 1, 8080).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::Unavailable, NO_LEADER)
    );
    assert!(
        asked.elapsed() < Duration::from_secs(4),
        "{:?}",
        asked.elapsed()
    );
    // Reads are answered, and say what they are.
    let mut control = first.control();
    let read = control.list_nodes(v1::ListNodesRequest {}).await.unwrap();
    assert!(read.metadata().contains_key(STALE), "{read:?}");
    assert_eq!(read.into_inner().nodes.len(), 3);
    until("the agent knows that it is on its own", async || {
        let seen = agent.seen.lock().unwrap();
        let error = seen.last_error.as_ref()?;
        (error.message() == "the managers have no leader").then_some(())
    })
    .await;

    let second = second.restart().await;
    until("writes are accepted again", async || {
        first.create("ng", 1, 8080).await.ok()
    })
    .await;
    assert!(second.service("ng").await.is_some());
    let read = control.list_nodes(v1::ListNodesRequest {}).await.unwrap();
    assert!(!read.metadata().contains_key(STALE), "{read:?}");
}

/// A manager that comes back knows nothing of the latest tasks until it has caught up; an
/// agent that turns to it at once must not be told to stop them.
#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_lags_stops_no_task() {
    let first = Node::first().await;
    let second = first.another().await;
    let third = first.another().await;
    let agent = Agent::worker("w1", &first, &[&first]).await;
    agent.is_ready(&first).await;
    third.kill().await;
    first.create("ng", 4, 8080).await.unwrap();
    let before = first.runs(4).await;
    let third = third.restart().await;
    let agent = agent.turn_to(&[&third]);
    until("the agent has a session with the third", async || {
        (agent.seen.lock().unwrap().sessions >= 2).then_some(())
    })
    .await;
    watch_for(Duration::from_millis(500), || {
        assert_eq!(agent.seen.lock().unwrap().stopped, Vec::<String>::new());
    })
    .await;
    assert_eq!(second.running().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_cluster_stops_no_task() {
    let manager = Node::first().await;
    let agent = Agent::worker("w1", &manager, &[&manager]).await;
    manager.create("ng", 4, 8080).await.unwrap();
    let before = manager.runs(4).await;
    manager.kill().await;
    let manager = manager.restart().await;
    until("the agent is back", async || {
        (agent.seen.lock().unwrap().sessions >= 2).then_some(())
    })
    .await;
    watch_for(Duration::from_secs(1), || {
        assert_eq!(agent.seen.lock().unwrap().stopped, Vec::<String>::new());
    })
    .await;
    assert_eq!(manager.runs(4).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_node_is_replaced_and_a_dead_manager_removed() {
    let first = Node::first().await;
    let lost = Agent::worker("w1", &first, &[&first]).await;
    let kept = [
        Agent::worker("w2", &first, &[&first]).await,
        Agent::worker("w3", &first, &[&first]).await,
        Agent::worker("w4", &first, &[&first]).await,
    ];
    for agent in kept.iter().chain([&lost]) {
        agent.is_ready(&first).await;
    }
    first.create("ng", 8, 8080).await.unwrap();
    first.runs(8).await;
    assert!(!lost.seen.lock().unwrap().started.is_empty());
    lost.kill();
    until("its endpoints are out of every table", async || {
        let own: Vec<String> = lost.seen.lock().unwrap().started.clone();
        let without = |agent: &Agent| {
            agent
                .endpoints(8080)
                .iter()
                .all(|(id, _)| !own.contains(id))
        };
        kept.iter().all(without).then_some(())
    })
    .await;
    until("eight tasks run elsewhere", async || {
        let started: usize = kept
            .iter()
            .map(|a| a.seen.lock().unwrap().started.len())
            .sum();
        (started >= 8).then_some(())
    })
    .await;
    let down = v1::NodeState::Down as i32;
    until("the node is down, and can be removed", async || {
        let nodes = first.nodes().await;
        let node = nodes
            .into_iter()
            .filter_map(|view| view.node)
            .find(|n| n.id == lost.id());
        (node?.status?.state == down).then_some(())
    })
    .await;
    let request = v1::RemoveNodeRequest {
        id: lost.id(),
        force: false,
    };
    first.control().remove_node(request).await.unwrap();

    let second = first.another().await;
    let third = first.another().await;
    second.kill().await;
    let id = second.manager.identities().identity().node.to_string();
    let request = v1::RemoveNodeRequest {
        id: id.clone(),
        force: true,
    };
    until("the dead manager is removed", async || {
        first.control().remove_node(request.clone()).await.ok()
    })
    .await;
    assert_eq!(first.manager.raft().voters().len(), 2);
    assert!(
        third
            .nodes()
            .await
            .iter()
            .all(|view| view.node.as_ref().unwrap().id != id)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_five_managers_two_may_be_lost() {
    let first = Node::first().await;
    let mut others = Vec::new();
    for _ in 0..4 {
        others.push(first.another().await);
    }
    others[3].create("before", 0, 8080).await.unwrap();
    first.kill().await;
    others[0].kill().await;
    until("writes are accepted again", async || {
        others[1].create("after", 0, 8081).await.ok()
    })
    .await;
    // With a third one the majority is gone.
    others[1].kill().await;
    let refused = others[3].create("never", 0, 8082).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
}
