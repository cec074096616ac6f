//! All managers start again at the same moment.

use anyhow::{Result, ensure};
use swarmlet_integration_tests::{Signal, wait_until};

use crate::{
    cluster::{Cluster, LATER},
    traffic::Traffic,
};

/// Behaviour check 9 of Docker Swarm.
#[test]
fn all_managers_that_restart_at_once_keep_the_state_and_double_nothing() {
    let cluster = Cluster::start(3).unwrap();
    let asked = &cluster.hosts[0];
    cluster
        .create(&["--name", "ng", "--replicas", "6", "-p", "80:80", "whoami"])
        .unwrap();
    cluster.all_answer(80).unwrap();
    let tasks = || -> Result<Vec<_>> {
        let tasks = cluster.tasks(asked, "ng")?;
        let mut tasks: Vec<_> = tasks.into_iter().map(|t| (t.name, t.id, t.node)).collect();
        tasks.sort();
        Ok(tasks)
    };
    let inspect = || cluster.swarmlet(&["service", "inspect", "ng"]);
    let before = (
        tasks().unwrap(),
        inspect().unwrap(),
        cluster.started().unwrap(),
    );
    let traffic = Traffic::start(&cluster, 80).unwrap();
    let killed: Vec<_> = cluster
        .hosts
        .iter()
        .map(|host| host.daemon().unwrap())
        .collect();
    for (host, daemon) in cluster.hosts.iter().zip(&killed) {
        host.signal(*daemon, Signal::KILL).unwrap();
    }
    wait_until(LATER, "three managers that are ready", || {
        for (host, killed) in cluster.hosts.iter().zip(&killed) {
            ensure!(
                host.daemon()? != *killed,
                "{} has not died yet",
                host.name()
            );
            let nodes = cluster.nodes(host)?;
            let ready = |node: &serde_json::Value| {
                let standing = &node["ManagerStatus"];
                node["Status"] == "Ready" && (standing == "Leader" || standing == "Reachable")
            };
            ensure!(nodes.len() == 3 && nodes.values().all(ready), "{nodes:?}");
        }
        Ok(Some(()))
    })
    .unwrap();
    let after = (
        tasks().unwrap(),
        inspect().unwrap(),
        cluster.started().unwrap(),
    );
    assert_eq!(after, before);
    // It is not only remembered but goes on.
    cluster.swarmlet(&["service", "scale", "ng=7"]).unwrap();
    traffic.untouched("all managers restarted");
    assert_eq!(cluster.all_answer(80).unwrap().len(), 7);
    let started = cluster.started().unwrap();
    assert!(before.2.iter().all(|(id, at)| started.get(id) == Some(at)));
}
