//! What nodes see comes back to all of them as what is wrong, and with whom.

use std::time::{Duration, Instant};

use swarmlet_core::model::NodeProblem;
use swarmlet_proto::v1;

use crate::agent::Agent;
use crate::harness::{Node, until};

/// The problems that an agent has been told of, as people read them.
fn told(agent: &Agent) -> Vec<String> {
    let problems = agent.seen.lock().unwrap().problems.clone();
    problems
        .into_iter()
        .map(|problem| NodeProblem::try_from(problem).unwrap().to_string())
        .collect()
}

/// Waits until every agent was told exactly this, by the beginnings of the lines.
async fn all_told(agents: &[&Agent], expected: &[&str]) {
    for agent in agents {
        until(
            &format!("{} knows {expected:?}", agent.hostname),
            async || {
                let told = told(agent);
                let right = told.len() == expected.len()
                    && told
                        .iter()
                        .zip(expected)
                        .all(|(told, begin)| told.starts_with(begin));
                right.then_some(())
            },
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_skewed_clock_is_named_within_five_seconds_also_behind_a_follower() {
    let leader = Node::first().await;
    let follower = leader.another().await;
    // The first two speak with the leader, the third with the other manager.
    let one = Agent::worker("w1", &leader, &[&leader]).await;
    let two = Agent::worker("w2", &leader, &[&leader]).await;
    let three = Agent::worker("w3", &leader, &[&follower]).await;
    let agents = [&one, &two, &three];
    for agent in agents {
        agent.is_ready(&leader).await;
    }
    all_told(&agents, &[]).await;

    three.seen.lock().unwrap().clock_ahead_ms = -7_300;
    let moment = Instant::now();
    all_told(
        &agents,
        &["the clock of w3 (127.0.0.1) is about 8 s behind the other nodes'; set it"],
    )
    .await;
    let took = moment.elapsed();
    eprintln!("a skewed clock is told to every node: {took:.3?}");
    assert!(took < Duration::from_secs(5), "{took:?}");

    three.seen.lock().unwrap().clock_ahead_ms = 0;
    all_told(&agents, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_port_between_two_workers_is_told_to_every_node_and_a_new_leader() {
    let leader = Node::first().await;
    let second = leader.another().await;
    let third = leader.another().await;
    let managers = [&leader, &second, &third];
    let one = Agent::worker("w1", &leader, &managers[1..]).await;
    let two = Agent::worker("w2", &leader, &managers[1..]).await;
    let agents = [&one, &two];
    for agent in agents {
        agent.is_ready(&leader).await;
    }
    let id_of_two = two.id();
    until("each knows the other", async || {
        let peers = one.seen.lock().unwrap().peers.clone();
        let found = peers.iter().find(|peer| {
            let id = peer.place.as_ref().map(|place| &place.node_id);
            id == Some(&id_of_two)
        })?;
        (found.probe_port == 29_999).then_some(())
    })
    .await;
    one.seen.lock().unwrap().observation = v1::Observation {
        failing: vec![v1::FailingPort {
            node_id: two.id(),
            port: v1::ProbedPort::Tasks.into(),
            found: v1::Closed::Dropped.into(),
            lasting_ms: 3_500,
        }],
        ..v1::Observation::default()
    };
    let expected = "w1 (127.0.0.1) cannot connect to w2 (127.0.0.1) on TCP 20000-29999: packets are \
                    dropped; open TCP 20000-29999 from 127.0.0.1 to 127.0.0.1";
    all_told(&agents, &[expected]).await;

    // It is in the state: a new leader needs to hear nothing to tell it.
    let since = |agent: &Agent| agent.seen.lock().unwrap().problems[0].clone();
    let before = since(&two);
    leader.kill().await;
    until("a new leader", async || {
        (second.leads() || third.leads()).then_some(())
    })
    .await;
    all_told(&agents, &[expected]).await;
    assert_eq!(since(&two), before, "it is told as the same problem");

    one.seen.lock().unwrap().observation = v1::Observation::default();
    all_told(&agents, &[]).await;
}
