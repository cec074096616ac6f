//! A majority of the managers is lost.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    cluster::{Cluster, check_refused},
    containers::{RESTARTED, kill_one},
    probe::{load, no_errors, watch, within},
};

/// What every write is answered.
pub(crate) const NO_LEADER: &str = "The swarm does not have a leader. It's possible that too few managers \
                         are online. Make sure more than half of the managers are online.";

/// What every read says.
pub(crate) const STALE: &str = "WARNING: the swarm does not have a leader; this is what this manager knew last, \
                     and it may be stale\n";

#[test]
fn without_a_majority_writes_fail_reads_say_so_and_containers_come_back() {
    let cluster = Cluster::serving(3, 6).unwrap();
    cluster.all_answer(80).unwrap();
    let leader = cluster.leader(&cluster.hosts[0]).unwrap();
    let [lost, returning, left] = [0, 1, 2].map(|step| &cluster.hosts[(leader + step) % 3]);
    let listed = left.swarmlet(&["service", "ls"]).unwrap();
    assert_eq!(listed.stderr, "", "{listed:?}");
    let running = load(&cluster, 80, 3).unwrap();
    cluster.kill_daemon(lost).unwrap();
    cluster.kill_daemon(returning).unwrap();

    for round in 1..=3 {
        let moment = Instant::now();
        let refused = left.swarmlet(&["service", "scale", "ng=7"]).unwrap();
        let bound = Duration::from_secs(2);
        within(
            &format!("round {round}: a write is refused"),
            moment.elapsed(),
            bound,
        );
        check_refused(&refused, 1, NO_LEADER);
    }
    let moment = Instant::now();
    let read = left.swarmlet(&["service", "ls"]).unwrap();
    eprintln!("a stale read takes {:.3?}", moment.elapsed());
    assert_eq!((read.code, &*read.stderr), (Some(0), STALE), "{read:?}");
    assert_eq!(read.stdout, listed.stdout);
    for words in [&["node", "ls"][..], &["service", "ps", "ng"]] {
        let read = left.swarmlet(words).unwrap();
        assert_eq!((read.code, &*read.stderr), (Some(0), STALE), "{read:?}");
    }
    no_errors("two of three managers lost", &running.stop().unwrap(), 0);

    // Nobody can decide on a successor, so a container that dies is started again in place.
    thread::sleep(Duration::from_secs(6));
    let out = watch(&cluster, left, 5).unwrap();
    let died = kill_one(left);
    within(
        "out of its own balancer",
        out.after(died).unwrap(),
        Duration::from_millis(100),
    );
    let back = watch(&cluster, left, 6).unwrap().after(died).unwrap();
    within("started again without a majority", back, RESTARTED);

    cluster.start_daemon(returning).unwrap();
    let moment = Instant::now();
    cluster.wait_for_write(left, "a=b").unwrap();
    within(
        "writes again after one of the two is back",
        moment.elapsed(),
        Duration::from_secs(3),
    );
    let read = left.swarmlet(&["service", "ls"]).unwrap();
    assert_eq!(read.stderr, "", "{read:?}");
}
