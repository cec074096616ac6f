//! A detached daemon and the parent that starts it again.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::cluster::{Cluster, wait_until};

/// How long a node may be without its daemon after it was killed.
const BACK_WITHIN: Duration = Duration::from_secs(4);

/// A node with two tasks that answer on a port.
fn node_with_tasks() -> (Cluster, u16) {
    let (cluster, port) = Cluster::serving_two();
    wait_until("both answer", || {
        let names: BTreeSet<_> = (0..4).map(|_| cluster.ask(0, port)).collect();
        match names.iter().all(Result::is_ok) && names.len() == 2 {
            true => Ok(()),
            false => Err(format!("{names:?}")),
        }
    });
    (cluster, port)
}

/// Processes of the node but for the daemon and its parent: balancer, shims and tasks.
fn others(cluster: &Cluster) -> BTreeSet<i32> {
    let mut all: BTreeSet<i32> = cluster.processes(0).into_iter().collect();
    for file in ["daemon.pid", "supervisor.pid"] {
        if cluster.data(0).join(file).exists() {
            all.remove(&cluster.pid(0, file));
        }
    }
    all
}

#[test]
fn a_daemon_killed_again_and_again_is_back_and_adopts_everything() {
    let (cluster, port) = node_with_tasks();
    let before = others(&cluster);
    let supervisor = cluster.pid(0, "supervisor.pid");
    for round in 1..=3 {
        let killed = cluster.pid(0, "daemon.pid");
        let moment = Instant::now();
        cluster.kill(killed);
        wait_until("the daemon is back with its state", || {
            let name = cluster.ask(0, port);
            assert!(name.is_ok(), "the mesh goes on meanwhile: {name:?}");
            let info = cluster.run(0, &["service", "ps", "-q", "ng"]);
            match info.stdout.lines().count() {
                2 => Ok(()),
                _ => Err(format!("{info:?}")),
            }
        });
        let took = moment.elapsed();
        eprintln!("killed {round} times: back after {took:.2?}");
        assert!(took < BACK_WITHIN, "{took:?}");
        assert_ne!(cluster.pid(0, "daemon.pid"), killed);
    }
    assert_eq!(cluster.pid(0, "supervisor.pid"), supervisor);
    assert_eq!(others(&cluster), before, "balancer and tasks are the same");
}

#[test]
fn sigterm_to_either_ends_both_and_nothing_else() {
    for told in ["supervisor.pid", "daemon.pid"] {
        let (cluster, port) = node_with_tasks();
        let before = others(&cluster);
        cluster.signal(cluster.pid(0, told), Signal::TERM);
        wait_until("both have ended", || {
            let files = ["supervisor.pid", "daemon.pid"];
            match files.map(|file| cluster.data(0).join(file).exists()) {
                [false, false] => Ok(()),
                there => Err(format!("{there:?}")),
            }
        });
        wait_until("nothing else has", || {
            let left: BTreeSet<i32> = cluster.processes(0).into_iter().collect();
            match left == before {
                true => Ok(()),
                false => Err(format!("{left:?}, not {before:?}")),
            }
        });
        assert!(cluster.ask(0, port).is_ok());
    }
}

#[test]
fn a_daemon_that_cannot_start_is_not_tried_again() {
    let cluster = Cluster::new(1);
    std::fs::create_dir_all(cluster.data(0)).unwrap();
    std::fs::write(cluster.data(0).join("node.json"), "{").unwrap();
    let said = cluster.fails(0, 1, &["init"]);
    assert!(said.contains("node.json is damaged"), "{said}");
    wait_until("nothing runs", || match cluster.processes(0) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
    assert!(!cluster.data(0).join("supervisor.pid").exists());
}
