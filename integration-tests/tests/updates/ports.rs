//! Ports come and go beside one that stays.

use anyhow::ensure;
use swarmlet_integration_tests::wait_until;

use crate::{
    cluster::{Cluster, SOON},
    traffic::Traffic,
};

/// Behaviour check 24 of Docker Swarm.
#[test]
fn a_shared_port_never_drops_while_another_is_added_and_is_free_again_after_the_service() {
    let cluster = Cluster::start(1).unwrap();
    let create = "--name ng --replicas 3 -p 80:80 --drain-timeout 1s \
        --update-order start-first --update-monitor 1s whoami";
    let words: Vec<&str> = create.split_whitespace().collect();
    cluster.create(&words).unwrap();
    let before = cluster.all_answer(80).unwrap();
    let traffic = Traffic::start(&cluster, 80).unwrap();
    let add = ["service", "update", "--publish-add", "81:80", "ng"];
    cluster.swarmlet(&add).unwrap();
    let after = wait_until(SOON, "three containers, all of them new", || {
        let names = cluster.names()?;
        ensure!(names.len() == 3 && names.is_disjoint(&before), "{names:?}");
        Ok(Some(names))
    })
    .unwrap();
    traffic.lost_nothing("a port is added");
    for port in [80, 81] {
        assert_eq!(cluster.all_answer(port).unwrap(), after);
    }

    cluster.swarmlet(&["service", "rm", "ng"]).unwrap();
    let again = ["--name", "other", "-p", "80:80", "-p", "81:80", "whoami"];
    cluster.create(&again).unwrap();
    wait_until(SOON, "one container, the other service's", || {
        let names = cluster.names()?;
        ensure!(names.len() == 1 && names.is_disjoint(&after), "{names:?}");
        Ok(Some(()))
    })
    .unwrap();
    for port in [80, 81] {
        cluster.all_answer(port).unwrap();
    }
    cluster.swarmlet(&["service", "rm", "other"]).unwrap();
    for host in cluster.hosts.iter() {
        wait_until(SOON, "closed ports", || {
            for port in [80, 81] {
                let report = cluster.ask(host, port, 1)?;
                let refused = report.errors.contains_key("connect refused");
                ensure!(refused, "{}: {}", host.name(), report.to_json());
            }
            Ok(Some(()))
        })
        .unwrap();
    }
}
