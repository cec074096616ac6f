//! One manager alone.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::cluster::{Cluster, PATIENCE, address};
use super::commands::{add, add_large, has, init};
use crate::raft::{MembersError, ProposeError, Raft, RaftConfig, RaftError, state_hash};

#[tokio::test(flavor = "multi_thread")]
async fn it_resumes_with_its_state() {
    let mut cluster = Cluster::of(1, 20).await;
    for number in 1..=50 {
        cluster.add(number).await;
    }
    let before = state_hash(&cluster.raft(1).state());
    cluster.kill(1).await;

    let began = Instant::now();
    cluster.start(1).await.unwrap();
    assert_eq!(
        state_hash(&cluster.raft(1).state()),
        before,
        "snapshot and committed entries, before any election"
    );
    cluster.leader().await;
    let state = cluster.raft(1).linearizable().await.unwrap();
    assert!(has(&state, 50));
    cluster.add(51).await;
    println!("restart to the next write: {:?}", began.elapsed());
    let again = cluster.raft(1).bootstrap(address(1)).await;
    assert!(matches!(again, Err(RaftError::AlreadyBootstrapped)));
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_proposals_share_entries() {
    let cluster = Cluster::of(1, 10_000).await;
    let raft = cluster.raft(1);
    let began = Instant::now();
    let proposals = (1..=200).map(|number| raft.propose(vec![add(number), add(number)]));
    let answers: Vec<_> = join_all(proposals)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let elapsed = began.elapsed();

    let mut versions: Vec<_> = answers.iter().map(|answer| answer.version).collect();
    versions.sort_unstable();
    versions.dedup();
    println!("200 proposals in {} entries, {elapsed:?}", versions.len());
    assert!(versions.len() <= 20, "{} entries", versions.len());
    for (answer, number) in answers.iter().zip(1..) {
        let [first, second] = answer.results.as_slice() else {
            panic!("{:?}", answer.results);
        };
        // Each caller gets its own results: the first adds its node, the second is refused.
        let events = first.as_ref().unwrap();
        let id = super::commands::id(number);
        assert!(format!("{events:?}").contains(id.as_str()), "{events:?}");
        assert!(second.is_err());
        let state = raft.state();
        let node = state.node(&id).unwrap();
        assert_eq!(node.version, answer.version);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proposal_larger_than_an_entry_is_refused() {
    let cluster = Cluster::of(1, 10_000).await;
    let raft = cluster.raft(1);
    let refused = raft.propose(vec![add_large(1, 2 << 20)]).await;
    assert!(matches!(refused, Err(ProposeError::TooLarge { .. })));
    // One that fills more than a batch goes alone.
    let (one, two) = tokio::join!(
        raft.propose(vec![add_large(2, 1 << 20)]),
        raft.propose(vec![add_large(3, 1 << 20)]),
    );
    assert_ne!(one.unwrap().version, two.unwrap().version);
    assert!(!has(&raft.state(), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_manager_stays() {
    let cluster = Cluster::of(1, 10_000).await;
    let refused = cluster.raft(1).remove_voter(1).await;
    assert_eq!(refused, Err(MembersError::LastVoter(1)));
    assert_eq!(cluster.raft(1).voters(), [(1, address(1))].into());
    assert_eq!(cluster.raft(1).reachable(), [1].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_that_fails_ends_the_replica() {
    let mut cluster = Cluster::of(1, 5).await;
    // The next snapshot has nowhere to go.
    std::fs::create_dir(cluster.dir_of(1).join("snapshot.new")).unwrap();
    let raft = cluster.raft(1).clone();
    let mut refused = None;
    for number in 1..=50 {
        if let Err(error) = raft.propose(vec![add(number)]).await {
            refused = Some(error);
            break;
        }
    }
    let failed = tokio::time::timeout(PATIENCE, raft.failed()).await.unwrap();
    assert!(failed.to_string().contains("snapshot"), "{failed}");
    assert!(
        matches!(
            refused,
            None | Some(ProposeError::Storage(_) | ProposeError::Stopped)
        ),
        "{refused:?}"
    );
    let after = raft.propose(vec![add(60)]).await;
    assert!(matches!(after, Err(ProposeError::Storage(_))), "{after:?}");
    // Once there is room again, everything that was acknowledged is there.
    let before = state_hash(&raft.state());
    cluster.kill(1).await;
    std::fs::remove_dir(cluster.dir_of(1).join("snapshot.new")).unwrap();
    cluster.start(1).await.unwrap();
    cluster.leader().await;
    let state = cluster.raft(1).linearizable().await.unwrap();
    assert_eq!(state_hash(&state), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_shutdown_everything_is_refused() {
    let mut cluster = Cluster::of(1, 10_000).await;
    let raft = cluster.raft(1).clone();
    cluster.kill(1).await;
    let refused = raft.propose(vec![init()]).await;
    assert_eq!(refused, Err(ProposeError::Stopped));
    assert_eq!(raft.linearizable().await.err(), Some(ProposeError::Stopped));
    let failed = tokio::time::timeout(Duration::from_millis(50), raft.failed()).await;
    assert!(failed.is_err(), "a shutdown is no failure");
}

#[tokio::test]
async fn timings_that_contradict_each_other_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = RaftConfig {
        heartbeat: Duration::from_millis(500),
        ..RaftConfig::new(1, dir.path().join("raft"))
    };
    let network = super::network::Network::default();
    let refused = Raft::open(config, network.dialer(address(1))).await;
    assert!(matches!(refused, Err(RaftError::Timings(_))), "{refused:?}");
}
