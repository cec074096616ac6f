//! Managers come and go.

use std::time::Duration;

use super::cluster::{Cluster, PATIENCE, address};
use super::commands::add;
use crate::raft::{MembersError, ProposeError};

#[tokio::test(flavor = "multi_thread")]
async fn voters_are_added_and_removed() {
    let mut cluster = Cluster::of(3, 10_000).await;
    cluster.add(1).await;
    let leader = cluster.leader().await;
    let raft = cluster.raft(leader).clone();
    assert_eq!(raft.voters(), (1..=3).map(|id| (id, address(id))).collect());
    // Once more is fine; another's number or address is not.
    raft.add_voter(2, address(2)).await.unwrap();
    for (id, at) in [(2, address(9)), (9, address(2))] {
        let refused = raft.add_voter(id, at).await;
        assert_eq!(
            refused,
            Err(MembersError::Taken {
                raft_id: 2,
                address: address(2)
            })
        );
    }
    // The leader goes as well, and the others elect.
    raft.remove_voter(leader).await.unwrap();
    cluster.kill(leader).await;
    cluster.add(2).await;
    cluster.agree(2).await;
    let next = cluster.leader().await;
    let voters = cluster.raft(next).voters();
    assert!(!voters.contains_key(&leader), "{voters:?}");
    cluster.raft(next).remove_voter(leader).await.unwrap();

    // A new one takes the place, under a number of its own.
    cluster.start(4).await.unwrap();
    cluster.raft(next).add_voter(4, address(4)).await.unwrap();
    cluster.add(3).await;
    cluster.agree(3).await;
    let refused = cluster.raft(4).remove_voter(next).await;
    assert!(
        matches!(
            refused,
            Err(MembersError::Propose(ProposeError::NotLeader { .. }))
        ),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_lose_the_quorum_is_refused() {
    let mut cluster = Cluster::of(3, 10_000).await;
    let leader = cluster.leader().await;
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    cluster.kill(others[0]).await;
    let gone = async {
        while cluster.raft(leader).reachable().contains(&others[0]) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();

    let refused = cluster.raft(leader).remove_voter(others[1]).await;
    assert_eq!(
        refused,
        Err(MembersError::LossOfQuorum {
            voters: 2,
            needed: 2,
            reachable: 1
        })
    );
    // The dead one may go: two of two remain.
    cluster.raft(leader).remove_voter(others[0]).await.unwrap();
    cluster
        .raft(leader)
        .propose(vec![add(1)])
        .await
        .unwrap_or_else(|error| panic!("{error}"));
}
