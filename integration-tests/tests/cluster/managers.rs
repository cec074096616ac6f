//! Any manager will do; a worker will not; and without a majority of managers
//! there is no change, but everything that runs goes on.

use std::time::{Duration, Instant};

use swarmlet_integration_tests::{measured::within, wait_until};

use crate::cluster::{Cluster, LATER, check_refused};

/// What docker says, with swarmlet's name.
const WORKER: &str = "Error: This node is not a swarm manager. Worker nodes can't be used to view \
    or modify cluster state. Please run this command on a manager node or promote the current \
    node to a manager.";
const NO_LEADER: &str = "Error: The swarm does not have a leader. It's possible that too few \
    managers are online. Make sure more than half of the managers are online.";

#[test]
fn every_manager_takes_commands() {
    let cluster = Cluster::start(3).unwrap();
    for (number, host) in cluster.hosts.iter().enumerate() {
        let name = format!("s{number}");
        let publish = format!("{}:80", 80 + number);
        let words = [
            "service", "create", "--name", &name, "-p", &publish, "whoami",
        ];
        host.swarmlet(&words).unwrap().success().unwrap();
    }
    let leader = cluster.leader(&cluster.hosts[0]).unwrap();
    let follower = &cluster.hosts[(leader + 1) % 3];
    let scaled = follower
        .swarmlet(&["service", "scale", "s0=3", "s1=2"])
        .unwrap();
    assert!(
        scaled.stderr.contains("verify: Service s1 converged"),
        "{scaled:?}"
    );
    assert_eq!(
        scaled.success().unwrap(),
        "s0 scaled to 3\ns1 scaled to 2\n"
    );
    let listed: Vec<String> = cluster
        .hosts
        .iter()
        .map(|host| {
            host.swarmlet(&["service", "ls"])
                .unwrap()
                .success()
                .unwrap()
        })
        .collect();
    assert!(
        listed[0].contains("3/3") && listed[0].contains("2/2"),
        "{listed:?}"
    );
    assert!(listed.iter().all(|list| *list == listed[0]), "{listed:?}");
    for host in cluster.hosts.iter() {
        assert_eq!(cluster.leader(host).unwrap(), leader);
    }
}

#[test]
fn a_worker_refers_to_the_managers() {
    let cluster = Cluster::start(1).unwrap();
    let worker = &cluster.hosts[2];
    for words in [
        &["service", "ls"][..],
        &["service", "create", "--name", "x", "whoami"],
        &["service", "scale", "x=2"],
        &["service", "rm", "x"],
        &["node", "ls"],
        &["join-token", "worker"],
    ] {
        let output = worker.swarmlet(words).unwrap();
        check_refused(&output, 1, WORKER);
        assert_eq!(output.stdout, "");
    }
    let again = worker.swarmlet(&["init"]).unwrap();
    check_refused(&again, 1, "This node is already part of a swarm.");
}

#[test]
fn without_a_majority_nothing_changes_and_everything_runs() {
    let cluster = Cluster::serving(3, 3).unwrap();
    let names = cluster.all_answer(80).unwrap();
    let before = cluster.started().unwrap();
    // Once with the leader among the killed, once with the leader left alone.
    for survivor_leads in [false, true] {
        let leader = cluster.leader(&cluster.hosts[0]).unwrap();
        let survivor = if survivor_leads {
            leader
        } else {
            (leader + 1) % 3
        };
        let lost = [(survivor + 1) % 3, (survivor + 2) % 3];
        for number in lost {
            cluster.kill_daemon(&cluster.hosts[number]).unwrap();
        }
        // The outcome of a refused change is unknown: these two would do no harm.
        for words in [
            &["service", "scale", "--detach", "ng=3"][..],
            &["node", "update", "--label-add", "a=b", "host1"],
        ] {
            let started = Instant::now();
            let output = cluster.hosts[survivor].swarmlet(words).unwrap();
            let took = started.elapsed();
            check_refused(&output, 1, NO_LEADER);
            within("refused", took, Duration::from_secs(6));
        }
        for host in cluster.hosts.iter() {
            cluster.answers(host, 80, &names).unwrap();
        }
        for number in lost {
            cluster.start_daemon(&cluster.hosts[number]).unwrap();
        }
        wait_until(LATER, "three ready managers", || {
            let nodes = cluster.nodes(&cluster.hosts[survivor])?;
            let ready = nodes
                .values()
                .filter(|node| node["Status"] == "Ready" && node["ManagerStatus"] != "Unreachable");
            Ok((ready.count() == 3).then_some(()))
        })
        .unwrap();
        cluster.swarmlet(&["service", "scale", "ng=3"]).unwrap();
        let after = cluster.started().unwrap();
        assert_eq!(after, before, "containers were restarted");
    }
}
