//! The managers' port is closed in one direction: the pair is named in that direction, by
//! everybody whom people ask, and the cluster goes on.

use anyhow::Result;
use swarmlet_integration_tests::{Host, measured::at_most};

use crate::{
    closed_port::{close, explained},
    cluster::Cluster,
    history::{History, all_ready, replicas_agree},
    probe::{load, no_errors, nothing_restarted},
};

/// What is lost of one direction.
#[derive(Clone, Copy, Debug)]
enum Lost {
    /// What begins a connection: a security group was closed, and connections go on.
    Beginnings,
    /// Everything that is sent to the port: a firewall without a memory was closed.
    All,
}

/// Drops what `from` sends to the managers' port of `to`; answers from `from`'s own port get through.
fn close_way(from: &Host, to: &Host, lost: Lost) -> Result<()> {
    match lost {
        Lost::Beginnings => close(to, from, "2377"),
        Lost::All => {
            let rules = format!(
                "add table ip swarmlet_faults; \
                 add chain ip swarmlet_faults everything {{ type filter hook prerouting priority -300; }}; \
                 add rule ip swarmlet_faults everything ip saddr {} tcp dport 2377 drop",
                from.address()
            );
            to.run("nft", &[&rules])?.success().map(drop)
        }
    }
}

/// Closes one direction, sees it named within 5 s and gone within 5 s of being opened.
fn named(cluster: &Cluster, what: &str, from: &Host, to: &Host, lost: Lost) {
    let words = [
        format!(
            "{} ({}) cannot connect to {} ({}) on TCP 2377",
            from.name(),
            from.address(),
            to.name(),
            to.address()
        ),
        format!("open TCP 2377 from {} to {}", from.address(), to.address()),
    ];
    eprintln!("{} -> {}: {lost:?} lost", from.name(), to.name());
    explained(
        cluster,
        what,
        from,
        &[&words[0], &words[1]],
        || close_way(from, to, lost),
        || to.accept_all(),
    );
}

#[test]
fn a_cluster_port_closed_one_way_between_managers_is_named_and_nothing_else_happens() {
    let cluster = Cluster::serving(3, 6).unwrap();
    cluster.all_answer(80).unwrap();
    let before = cluster.started().unwrap();
    let term = replicas_agree(&cluster).unwrap();
    let history = History::new("w");
    let running = load(&cluster, 80, 1).unwrap();
    for lost in [Lost::Beginnings, Lost::All] {
        let leader = cluster.leader(&cluster.hosts[0]).unwrap();
        let [leader, one, other] = [0, 1, 2].map(|step| &cluster.hosts[(leader + step) % 3]);
        let how = match lost {
            Lost::Beginnings => "closed to new connections",
            Lost::All => "closed to all packets",
        };
        for (way, from, to) in [
            ("follower to leader", one, leader),
            ("leader to follower", leader, other),
            ("follower to follower", other, one),
        ] {
            named(&cluster, &format!("2377 {way}, {how},"), from, to, lost);
            all_ready(&cluster).unwrap();
            history.write(from).unwrap().success().unwrap();
        }
    }
    no_errors("2377 closed one way", &running.stop().unwrap(), 0);
    history.check(one_of(&cluster)).unwrap();
    let now = replicas_agree(&cluster).unwrap();
    at_most("growth of the term over six closed ways", now - term, 2);
    nothing_restarted(&cluster, &before);
}

fn one_of(cluster: &Cluster) -> &Host {
    &cluster.hosts[1]
}
