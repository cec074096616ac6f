use std::time::Duration;

use swarmlet_core::model::{NodeId, NodeState};
use swarmlet_core::recovery::RecoveryError;

use super::*;
use crate::raft::durable;
use crate::raft::tests::cluster::{Cluster, PATIENCE, address};
use crate::raft::tests::commands;
use crate::raft::{ProposeError, RaftConfig, state_hash};

fn survivor(id: u64) -> Survivor {
    Survivor {
        node: commands::manager_id(id),
        address: address(id),
        now: crate::clock::now(),
    }
}

/// Three managers that have nodes 1 to `last`.
async fn agreed(snapshot_every: u64, last: u64) -> Cluster {
    let cluster = Cluster::of(3, snapshot_every).await;
    cluster.name_managers(3).await;
    for number in 1..=last {
        cluster.add(number).await;
    }
    cluster.agree(last).await;
    cluster
}

/// The same; 2 and 3 are dead, and 1 does not run.
async fn lost_majority(last: u64, snapshot_every: u64) -> Cluster {
    let mut cluster = agreed(snapshot_every, last).await;
    for id in [2, 3, 1] {
        cluster.kill(id).await;
    }
    cluster
}

async fn rewrite(cluster: &Cluster, id: u64) -> Result<State, RaftError> {
    let (dir, survivor) = (cluster.dir_of(id), survivor(id));
    tokio::task::spawn_blocking(move || go_on_alone(&dir, id, &survivor))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_leads_alone_with_everything_that_it_knew_and_others_join_again() {
    // With and without a snapshot before.
    for snapshot_every in [10, 10_000] {
        let mut cluster = lost_majority(30, snapshot_every).await;
        let rewritten = rewrite(&cluster, 1).await.unwrap();
        cluster.start(1).await.unwrap();
        assert_eq!(cluster.leader_of(&[1]).await, 1);
        let raft = cluster.raft(1).clone();
        assert_eq!(raft.voters(), [(1, address(1))].into());
        let state = raft.linearizable().await.unwrap();
        assert_eq!(state_hash(&state), state_hash(&rewritten));
        assert!((1..=30).all(|number| commands::has(&state, number)));
        assert_eq!(raft.incarnation(), state.cluster().unwrap().incarnation);
        cluster.add(31).await;

        let incarnation = raft.incarnation();
        cluster.start_in(4, incarnation).await.unwrap();
        raft.add_voter(4, address(4)).await.unwrap();
        cluster.add(32).await;
        cluster.agree(32).await;
        // And it all is there after another start.
        cluster.kill(1).await;
        cluster.kill(4).await;
        cluster.start(1).await.unwrap();
        cluster.start(4).await.unwrap();
        cluster.add(33).await;
        cluster.agree(33).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_it_does_not_know_to_be_committed_count() {
    let mut cluster = agreed(10_000, 1).await;
    let leader = cluster.leader().await;
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    let others: Vec<_> = others.into_iter().map(address).collect();
    cluster.network.cut(&[address(leader)], &others);
    // The leader has written this one down, and nobody else has.
    let refused = cluster.raft(leader).propose(vec![commands::add(2)]).await;
    assert!(refused.is_err(), "{refused:?}");
    for id in 1..=3 {
        cluster.kill(id).await;
    }
    let state = rewrite(&cluster, leader).await.unwrap();
    assert!(commands::has(&state, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_in_the_middle_leaves_the_old_or_the_new() {
    let mut cluster = lost_majority(12, 5).await;
    let dir = cluster.dir_of(1);
    let snapshot = dir.join("snapshot");
    let old = std::fs::read(&snapshot).unwrap();

    // Half of the new one, under its other name.
    std::fs::write(durable::new_name(&snapshot), &old[..old.len() / 2]).unwrap();
    cluster.start(1).await.unwrap();
    assert_eq!(cluster.raft(1).survey().await.voters, 3, "as it was");
    assert_eq!(cluster.raft(1).incarnation(), 0);
    cluster.kill(1).await;

    // All of it, but the log as it was; the same again, by one who does not know.
    let first = rewrite(&cluster, 1).await.unwrap();
    let second = rewrite(&cluster, 1).await.unwrap();
    assert!(second.version() > first.version());
    cluster.start(1).await.unwrap();
    cluster.leader_of(&[1]).await;
    let state = cluster.raft(1).linearizable().await.unwrap();
    assert_eq!(state_hash(&state), state_hash(&second));
    cluster.add(13).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_gone_on_with_stays_as_it_is() {
    let mut cluster = lost_majority(3, 10_000).await;
    let stranger = Survivor {
        node: NodeId::from_random(u128::MAX),
        ..survivor(1)
    };
    let refused = go_on_alone(&cluster.dir_of(1), 1, &stranger);
    assert!(
        matches!(refused, Err(RaftError::Recovery(RecoveryError::NoManager))),
        "{refused:?}"
    );
    let missing = go_on_alone(&cluster.dir_of(9), 9, &survivor(9));
    assert!(matches!(missing, Err(RaftError::Missing { .. })));
    cluster.start(1).await.unwrap();
    let locked = rewrite(&cluster, 1).await;
    assert!(
        matches!(locked, Err(RaftError::Locked { .. })),
        "{locked:?}"
    );
    cluster.start(2).await.unwrap();
    cluster.add(4).await;
    assert_eq!(cluster.raft(1).incarnation(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_majority_that_was_left_behind_comes_back_and_leads_nobody() {
    let mut cluster = lost_majority(5, 10_000).await;
    rewrite(&cluster, 1).await.unwrap();
    cluster.start(1).await.unwrap();
    cluster.leader_of(&[1]).await;
    cluster.add(6).await;
    let before = cluster.raft(1).voters();

    cluster.start(2).await.unwrap();
    cluster.start(3).await.unwrap();
    let incarnation = cluster.raft(1).incarnation();
    for id in [2, 3] {
        let raft = cluster.raft(id).clone();
        let ended = async {
            while raft.superseded().is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ended).await.unwrap();
        let superseded = raft.superseded().unwrap();
        assert_eq!(superseded.incarnation, incarnation);
        let mut leadership = raft.watch_leadership();
        let nobody = leadership.wait_for(|now| now.leader.is_none());
        tokio::time::timeout(PATIENCE, nobody)
            .await
            .unwrap()
            .unwrap();
        let refused = tokio::time::timeout(PATIENCE, async {
            loop {
                match raft.propose(vec![commands::add(60)]).await {
                    Err(ProposeError::Stopped) => return,
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                    Ok(done) => panic!("{done:?}"),
                }
            }
        });
        refused.await.unwrap();
    }
    // The one that goes on has noticed nothing.
    assert_eq!(cluster.raft(1).voters(), before);
    assert!(cluster.raft(1).superseded().is_none());
    cluster.add(7).await;
    assert!(!commands::has(&cluster.raft(1).state(), 60));
    // It stays so without anybody who could tell it.
    for id in [1, 2, 3] {
        cluster.kill(id).await;
    }
    cluster.start(2).await.unwrap();
    assert!(cluster.raft(2).superseded().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_majority_behind_a_cut_ends_when_the_cut_does() {
    let mut cluster = agreed(10_000, 1).await;
    cluster
        .network
        .cut(&[address(1)], &[address(2), address(3)]);
    // They go on without 1, and it without them.
    let old = cluster.leader_of(&[2, 3]).await;
    let raft = cluster.raft(old).clone();
    raft.propose(vec![commands::add(2)]).await.unwrap();
    cluster.kill(1).await;
    rewrite(&cluster, 1).await.unwrap();
    cluster.start(1).await.unwrap();
    cluster.leader_of(&[1]).await;
    let alone = cluster.raft(1).clone();
    alone.propose(vec![commands::add(3)]).await.unwrap();
    assert!(raft.superseded().is_none());
    raft.propose(vec![commands::add(4)]).await.unwrap();

    cluster.network.heal();
    let ended = async {
        while [2, 3]
            .iter()
            .any(|id| cluster.raft(*id).superseded().is_none())
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.unwrap();
    alone.propose(vec![commands::add(5)]).await.unwrap();
    let state = alone.linearizable().await.unwrap();
    assert!(
        [1, 3, 5]
            .iter()
            .all(|number| commands::has(&state, *number))
    );
    assert!([2, 4].iter().all(|number| !commands::has(&state, *number)));
    assert_eq!(
        state.node(&commands::manager_id(2)).unwrap().status.state,
        NodeState::Down
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_survey_counts_who_is_there() {
    let mut cluster = Cluster::of(3, 10_000).await;
    let all = cluster.raft(1).survey().await;
    assert_eq!((all.voters, all.needed, all.present), (3, 2, 3));
    assert!(all.has_quorum && !all.superseded);
    cluster.kill(2).await;
    cluster.kill(3).await;
    let alone = cluster.raft(1).survey().await;
    assert_eq!((alone.voters, alone.needed, alone.present), (3, 2, 1));
    assert!(!alone.has_quorum);
}

#[tokio::test]
async fn a_config_says_which_incarnation_was_joined() {
    let dir = tempfile::tempdir().unwrap();
    let config = RaftConfig {
        incarnation: 5,
        ..RaftConfig::new(1, dir.path().join("raft"))
    };
    let network = crate::raft::tests::network::Network::default();
    let raft = crate::raft::Raft::open(config, network.dialer(address(1)))
        .await
        .unwrap();
    assert_eq!(raft.incarnation(), 5);
    raft.shutdown().await;
}
