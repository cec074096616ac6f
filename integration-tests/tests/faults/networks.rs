//! Networks are cut, one way or both, and lose packets.

use std::{
    env,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use swarmlet_integration_tests::{
    measured::{at_most, noted, within},
    wait_until,
};

use crate::{
    cluster::{Cluster, LATER, check_refused},
    history::{History, all_ready, replicas_agree},
    probe::{load, no_errors, nothing_restarted},
    quorum::{NO_LEADER, STALE},
};

/// By how much a fault may raise the term.
const TERMS: u64 = 2;

/// After which the cluster takes writes again, whatever is cut.
const WRITES_BACK: Duration = Duration::from_secs(3);

/// How long a manager may look for a leader before it reads what it has.
const STALE_READ: Duration = Duration::from_secs(2);

/// After which everything is as it was, once a fault has ended.
const RECOVERY: Duration = Duration::from_secs(30);

/// Which packets between two hosts are lost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Way {
    There,
    Back,
    Both,
}

pub(crate) fn cut(cluster: &Cluster, (one, other): (usize, usize), way: Way) -> Result<()> {
    let (one, other) = (&cluster.hosts[one], &cluster.hosts[other]);
    if way != Way::Back {
        other.drop_from(one.address())?;
    }
    if way != Way::There {
        one.drop_from(other.address())?;
    }
    Ok(())
}

/// Ends all faults; how many packets they had dropped.
pub(crate) fn heal(cluster: &Cluster) -> Result<u64> {
    let dropped = cluster.hosts.iter().map(|host| host.dropped().unwrap_or(0));
    let dropped = dropped.sum();
    for host in cluster.hosts.iter() {
        host.accept_all()?;
    }
    Ok(dropped)
}

/// Three managers with a service of six tasks, which every host answers for.
pub(crate) fn start() -> Cluster {
    let cluster = Cluster::serving(3, 6).unwrap();
    cluster.all_answer(80).unwrap();
    cluster
}

/// As many tasks run as there should be, one to a slot and one container to each.
pub(crate) fn check_tasks(cluster: &Cluster, expected: usize) -> Result<()> {
    let tasks = cluster.tasks(&cluster.hosts[0], "ng")?;
    let mut slots: Vec<_> = tasks
        .iter()
        .filter(|task| task.is("Running"))
        .map(|task| task.name.clone())
        .collect();
    slots.sort();
    slots.dedup();
    let running = tasks.iter().filter(|task| task.is("Running")).count();
    let containers = cluster.names()?.len();
    ensure!(
        slots.len() == expected && running == expected && containers == expected,
        "{} slots, {running} tasks, {containers} containers of {expected}",
        slots.len()
    );
    Ok(())
}

/// Waits until everything is as it should be, and says how long that took.
pub(crate) fn recovered(cluster: &Cluster, healed: Instant, tasks: usize) {
    all_ready(cluster).unwrap();
    wait_until(LATER, "the tasks that there should be", || {
        check_tasks(cluster, tasks).map(Some)
    })
    .unwrap();
    within("everything is as it should be", healed.elapsed(), RECOVERY);
}

#[test]
fn a_cut_between_any_two_managers_is_no_election_storm() {
    let cluster = start();
    let before = cluster.started().unwrap();
    let running = load(&cluster, 80, 2).unwrap();
    let history = History::new("w");
    let mut round = 0;
    for pair in [(0, 1), (0, 2), (1, 2)] {
        for way in [Way::There, Way::Back, Way::Both] {
            round += 1;
            let third = &cluster.hosts[3 - pair.0 - pair.1];
            let leader = cluster.leader(third).unwrap();
            let term = replicas_agree(&cluster).unwrap();
            eprintln!("round {round}: {pair:?} {way:?}, {leader} leads in term {term}");
            cut(&cluster, pair, way).unwrap();
            let moment = Instant::now();
            let back = history.back(third, moment).unwrap();
            within(&format!("round {round}: writes back"), back, WRITES_BACK);
            // Longer than the time after which a silent node is given up.
            let lasting = Duration::from_secs(if way == Way::Both { 9 } else { 3 });
            thread::sleep(lasting.saturating_sub(moment.elapsed()));
            let dropped = heal(&cluster).unwrap();
            assert!(dropped > 0, "nothing was cut: {pair:?} {way:?}");
            let back = history.back(third, Instant::now()).unwrap();
            within(
                &format!("round {round}: writes back after the cut"),
                back,
                WRITES_BACK,
            );
            all_ready(&cluster).unwrap();
            let now = replicas_agree(&cluster).unwrap();
            at_most(
                &format!("round {round}: growth of the term"),
                now - term,
                TERMS,
            );
        }
    }
    let report = running.stop().unwrap();
    // Two clients, and in each round a request of each may be on the way over the cut.
    no_errors("managers cut off from each other", &report, 2 * round);
    history.check(&cluster.hosts[0]).unwrap();
    nothing_restarted(&cluster, &before);
}

#[test]
fn a_minority_of_managers_acknowledges_nothing_and_says_why() {
    let cluster = start();
    for leads in [true, false] {
        let leader = cluster.leader(&cluster.hosts[0]).unwrap();
        let alone = if leads { leader } else { (leader + 1) % 3 };
        let [minority, one, other] = [0, 1, 2].map(|step| (alone + step) % 3);
        let term = replicas_agree(&cluster).unwrap();
        let (few, many) = (History::new("few"), History::new("many"));
        cut(&cluster, (minority, one), Way::Both).unwrap();
        cut(&cluster, (minority, other), Way::Both).unwrap();
        let moment = Instant::now();
        thread::scope(|scope| {
            scope.spawn(|| {
                let back = many.back(&cluster.hosts[one], moment).unwrap();
                eprintln!("the majority writes after {back:.3?}");
            });
            while moment.elapsed() < Duration::from_secs(6) {
                let refused = few.write(&cluster.hosts[minority]).unwrap();
                check_refused(&refused, 1, NO_LEADER);
                let bound = Duration::from_secs(2);
                within("a write on the minority is refused", refused.took, bound);
            }
        });
        let moment = Instant::now();
        let read = cluster.hosts[minority]
            .swarmlet(&["service", "ls"])
            .unwrap();
        let took = moment.elapsed();
        within(
            "a read on the minority says that it may be stale",
            took,
            STALE_READ,
        );
        assert_eq!((read.code, &*read.stderr), (Some(0), STALE), "{read:?}");
        assert!(read.stdout.contains(" ng "), "{read:?}");
        at_most(
            "writes that a minority acknowledged",
            few.counts().0 as u64,
            0,
        );
        let back = many.back(&cluster.hosts[other], Instant::now()).unwrap();
        within("a write on the majority", back, WRITES_BACK);
        assert!(heal(&cluster).unwrap() > 0, "nothing was cut");
        let healed = Instant::now();
        recovered(&cluster, healed, 6);
        many.check(&cluster.hosts[minority]).unwrap();
        let now = replicas_agree(&cluster).unwrap();
        at_most("growth of the term", now - term, TERMS);
        remove_writes(&cluster);
    }
}

/// Removes the services that the histories have made, so that the next one starts anew.
fn remove_writes(cluster: &Cluster) {
    let listed = cluster.swarmlet(&["service", "ls", "--quiet"]).unwrap();
    let own = cluster.swarmlet(&["service", "inspect", "ng"]).unwrap();
    let all: Vec<&str> = listed.lines().filter(|id| !own.contains(*id)).collect();
    if !all.is_empty() {
        cluster
            .swarmlet(&[&["service", "rm"], &all[..]].concat())
            .unwrap();
    }
}

#[test]
fn links_cut_one_by_one_and_healed_at_random_lose_nothing() {
    let seed = env::var("SEED").map_or_else(
        |_| u64::from(std::process::id()),
        |seed| seed.parse().unwrap(),
    );
    eprintln!("SEED={seed}");
    let mut random = Random(seed);
    let cluster = start();
    let term = replicas_agree(&cluster).unwrap();
    let history = History::new("w");
    let stop = AtomicBool::new(false);
    let hosts: Vec<_> = cluster.hosts.iter().collect();
    let running = load(&cluster, 80, 1).unwrap();
    let (mut dropped, mut cuts) = (0, 0);
    thread::scope(|scope| {
        scope.spawn(|| history.go_on(&hosts, &stop));
        for step in 0..12 {
            let pair = [(0, 1), (0, 2), (1, 2)][random.below(3)];
            let way = [Way::There, Way::Back, Way::Both][random.below(3)];
            if random.below(3) == 0 {
                dropped += heal(&cluster).unwrap();
                eprintln!("step {step}: all healed");
            } else {
                cut(&cluster, pair, way).unwrap();
                cuts += 1;
                eprintln!("step {step}: {pair:?} {way:?} cut");
            }
            thread::sleep(Duration::from_millis(1000 + 100 * random.below(20) as u64));
        }
        stop.store(true, Ordering::Relaxed);
    });
    dropped += heal(&cluster).unwrap();
    assert!(dropped > 0, "SEED={seed}: nothing was cut");
    let healed = Instant::now();
    let back = history.back(hosts[0], healed).unwrap();
    within("writes back after the last cut", back, WRITES_BACK);
    recovered(&cluster, healed, 6);
    let (acknowledged, unknown) = history.counts();
    noted(
        "writes acknowledged, and unknown",
        &format!("{acknowledged}, {unknown}"),
    );
    history.check(hosts[2]).unwrap();
    let now = replicas_agree(&cluster).unwrap();
    noted(
        "growth of the term in twelve steps",
        &(now - term).to_string(),
    );
    let report = running.stop().unwrap();
    // One client, of whose requests each cut may catch one on its way.
    noted("links cut", &cuts.to_string());
    no_errors("links cut at random", &report, cuts);
    cluster.all_answer(80).unwrap();
}

/// Splitmix64: enough to choose faults, and the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from(mixed ^ (mixed >> 31)).unwrap_or(usize::MAX) % limit
    }
}
