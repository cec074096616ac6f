//! Who cannot win does not stand: cuts between two managers unseat nobody whom a quorum hears.

use std::time::{Duration, Instant};

use super::cluster::{Cluster, address};
use super::commands::add;

/// By how much the term may grow because of a fault.
const TERMS: u64 = 2;

/// How long a fault lasts: a follower that stood at each of its timeouts would have raised the
/// term by five at least.
const LASTING: Duration = Duration::from_secs(4);

/// Writes by whoever leads for as long as it lasts; the longest time that one took.
async fn write_for(cluster: &Cluster, lasting: Duration, number: &mut u64) -> Duration {
    let began = Instant::now();
    let mut slowest = Duration::ZERO;
    while began.elapsed() < lasting {
        let asked = Instant::now();
        *number += 1;
        cluster.add(*number).await;
        slowest = slowest.max(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    slowest
}

async fn term(cluster: &Cluster) -> u64 {
    let leader = cluster.leader().await;
    cluster.raft(leader).watch_leadership().borrow().term
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_was_cut_off_comes_back_without_an_election() {
    let cluster = Cluster::of(3, 10_000).await;
    let leader = cluster.leader().await;
    let away = (1..=3).find(|id| *id != leader).unwrap();
    let others: Vec<_> = (1..=3).filter(|id| *id != away).map(address).collect();
    let before = term(&cluster).await;
    cluster.network.cut(&[address(away)], &others);
    let mut number = 0;
    let began = Instant::now();
    while began.elapsed() < LASTING {
        number += 1;
        let written = cluster.raft(leader).propose(vec![add(number)]).await;
        assert!(written.is_ok(), "two of three go on: {written:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let alone = *cluster.raft(away).watch_leadership().borrow();
    assert_eq!(
        alone.leader, None,
        "it still takes {alone:?} for the leader"
    );
    let alone = alone.term;
    cluster.network.heal();
    let slowest = write_for(&cluster, Duration::from_secs(3), &mut number).await;
    cluster.agree(number).await;
    let after = term(&cluster).await;
    println!("slowest write after the cut {slowest:?}, terms {before} to {after}, alone {alone}");
    assert!(
        alone <= before + TERMS,
        "terms {before} to {alone} while it was alone"
    );
    assert!(after <= before + TERMS, "terms {before} to {after}");
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");
}

/// The two may be cut one way or both, while a third hears them both.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_between_two_of_three_is_no_storm() {
    for (name, ways) in [
        ("leader to follower", &[(true, false)][..]),
        ("follower to leader", &[(false, true)]),
        ("both ways", &[(true, false), (false, true)]),
    ] {
        let cluster = Cluster::of(3, 10_000).await;
        let leader = cluster.leader().await;
        let follower = (1..=3).find(|id| *id != leader).unwrap();
        let before = term(&cluster).await;
        let end = |is_leader| address(if is_leader { leader } else { follower });
        for (from, to) in ways {
            cluster.network.cut_one_way(end(*from), end(*to));
        }
        let mut number = 0;
        let cut = write_for(&cluster, LASTING, &mut number).await;
        let during = term(&cluster).await;
        cluster.network.heal();
        let healed = write_for(&cluster, Duration::from_secs(2), &mut number).await;
        cluster.agree(number).await;
        let after = term(&cluster).await;
        println!(
            "{name}: slowest write {cut:?} while it is cut and {healed:?} afterwards, \
             terms {before}, {during}, {after}"
        );
        assert!(
            during <= before + TERMS,
            "{name}: terms {before} to {during}"
        );
        assert!(after <= before + TERMS, "{name}: terms {before} to {after}");
        assert!(cut.max(healed) < Duration::from_secs(3), "{name}");
    }
}

/// A leader whose way out is cut one way hears the others and is not heard.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_not_heard_is_replaced_once() {
    let cluster = Cluster::of(3, 10_000).await;
    let old = cluster.leader().await;
    let before = term(&cluster).await;
    let rest: Vec<u64> = (1..=3).filter(|id| *id != old).collect();
    for id in &rest {
        cluster.network.cut_one_way(address(old), address(*id));
    }
    let began = Instant::now();
    let new = cluster.leader_of(&rest).await;
    println!("another leader after {:?}", began.elapsed());
    assert!(rest.contains(&new));
    let mut number = 0;
    write_for(&cluster, LASTING, &mut number).await;
    cluster.network.heal();
    write_for(&cluster, Duration::from_secs(2), &mut number).await;
    cluster.agree(number).await;
    let after = term(&cluster).await;
    println!("terms {before} to {after}");
    assert!(
        (before + 1..=before + TERMS).contains(&after),
        "terms {before} to {after}"
    );
}
