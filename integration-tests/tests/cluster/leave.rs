//! Nodes that leave take everything of theirs along.

use std::fs;

use anyhow::{Result, ensure};
use swarmlet_integration_tests::{
    Host,
    measured::{at_most, noted},
    wait_until,
};

use crate::cluster::{Cluster, LATER, SOON, check_refused};

/// Nothing of swarmlet is on the host: process, container, state, port.
fn check_gone(cluster: &Cluster, host: &Host) -> Result<()> {
    check_gone_but(cluster, host, &[])
}

/// The same, where containers that are not the swarm's are there, too.
fn check_gone_but(cluster: &Cluster, host: &Host, others: &[String]) -> Result<()> {
    let what = format!("the end of everything on {}", host.name());
    wait_until(SOON, &what, || {
        let guests = host.guests()?;
        ensure!(guests.is_empty(), "{guests:?}");
        let list = ["ps", "--all", "--quiet", "--no-trunc"];
        let containers = host.docker(&list)?.success()?;
        let left: Vec<&str> = containers
            .lines()
            .filter(|id| !others.iter().any(|other| other == id))
            .collect();
        ensure!(left.is_empty(), "containers: {left:?}");
        Ok(Some(()))
    })?;
    // The directory is gone, or was there before and is empty.
    let left: Vec<_> = fs::read_dir(host.data_directory())
        .into_iter()
        .flatten()
        .collect();
    ensure!(left.is_empty(), "{left:?}");
    ensure!(
        !host.socket().exists(),
        "{} is left",
        host.socket().display()
    );
    for port in [80, 2377, 2378] {
        let report = cluster.ask(host, port, 1)?;
        let refused = report.errors.contains_key("connect refused");
        ensure!(refused, "{port}: {}", report.to_json());
    }
    Ok(())
}

/// The containers of those that are left answer on each of their hosts.
fn check_served(cluster: &Cluster, hosts: &[&Host], count: usize) -> Result<()> {
    wait_until(LATER, &format!("{count} containers"), || {
        Ok((cluster.names()?.len() == count).then_some(()))
    })?;
    let names = cluster.names()?;
    for host in hosts {
        cluster.answers(host, 80, &names)?;
    }
    Ok(())
}

#[test]
fn a_worker_leaves() {
    let cluster = Cluster::start(1).unwrap();
    let [one, two, three] = [0, 1, 2].map(|number| &cluster.hosts[number]);
    cluster
        .create(&["--name", "ng", "--replicas", "6", "-p", "80:80", "whoami"])
        .unwrap();
    cluster.all_answer(80).unwrap();
    let left = two.swarmlet(&["leave"]).unwrap();
    eprintln!("left in {:.2?}", left.took);
    assert_eq!(left.success().unwrap(), "Node left the swarm.\n");
    check_gone(&cluster, two).unwrap();
    check_served(&cluster, &[one, three], 6).unwrap();
    wait_until(LATER, "host2 down", || {
        Ok((cluster.nodes(one)?["host2"]["Status"] == "Down").then_some(()))
    })
    .unwrap();
    assert_eq!(
        cluster.swarmlet(&["node", "rm", "host2"]).unwrap(),
        "host2\n"
    );
    assert_eq!(cluster.nodes(one).unwrap().len(), 2);

    // It may come again, as a new node.
    cluster.join(two, "worker").unwrap();
    cluster.swarmlet(&["service", "scale", "ng=9"]).unwrap();
    check_served(&cluster, &[one, two, three], 9).unwrap();
    assert_eq!(cluster.containers().unwrap()["host2"].len(), 3);
}

/// Runs containers on a host that are no concern of the swarm's: one without labels, and one
/// with those of another swarm.
fn make_foreign(host: &Host) -> Result<Vec<String>> {
    let labels = ["swarmlet.cluster.id=another", "swarmlet.node.id=another"];
    let labelled = ["--label", labels[0], "--label", labels[1]];
    let run = |options: &[&str]| {
        let words = [&["run", "--detach"], options, &["whoami"]].concat();
        Ok(host.docker(&words)?.success()?.trim().to_owned())
    };
    [&[][..], &labelled].into_iter().map(run).collect()
}

/// Whether each of these containers runs, and since when.
fn running(host: &Host, ids: &[String]) -> Result<Vec<String>> {
    let format = "{{.Id}} {{.State.Running}} {{.State.StartedAt}}";
    let inspect = |id: &String| {
        let said = host.docker(&["inspect", "--format", format, id])?;
        // One that is gone is another answer, too.
        Ok(said.stdout.trim().to_owned())
    };
    ids.iter().map(inspect).collect()
}

#[test]
fn who_leaves_takes_along_its_own_containers_and_nobody_elses() {
    let cluster = Cluster::start(1).unwrap();
    let [one, two, three] = [0, 1, 2].map(|number| &cluster.hosts[number]);
    let others = make_foreign(two).unwrap();
    let before = running(two, &others).unwrap();
    assert!(
        before.iter().all(|one| one.contains(" true ")),
        "{before:?}"
    );
    cluster
        .create(&["--name", "ng", "--replicas", "6", "-p", "80:80", "whoami"])
        .unwrap();
    let own = two.docker(&["ps", "--quiet"]).unwrap().success().unwrap();
    assert_eq!(own.lines().count(), 2 + others.len());
    let left = two.swarmlet(&["leave"]).unwrap();
    noted(
        "a node with two tasks left after",
        &format!("{:.3?}", left.took),
    );
    assert_eq!(left.success().unwrap(), "Node left the swarm.\n");
    check_gone_but(&cluster, two, &others).unwrap();
    let after = running(two, &others).unwrap();
    let touched = before.iter().zip(&after).filter(|(one, now)| one != now);
    at_most(
        "containers of others that a node which left has touched",
        touched.count() as u64,
        0,
    );
    wait_until(LATER, "six tasks elsewhere", || {
        let containers = cluster.containers()?;
        let count = containers["host1"].len() + containers["host3"].len();
        Ok((count == 6).then_some(()))
    })
    .unwrap();
    let elsewhere = [one, three].map(|host| cluster.containers().unwrap()[host.name()].clone());
    let names = elsewhere.into_iter().flatten().collect();
    for host in [one, three] {
        cluster.answers(host, 80, &names).unwrap();
    }
}

#[test]
fn a_manager_leaves_and_the_others_go_on() {
    let cluster = Cluster::serving(3, 3).unwrap();
    cluster.all_answer(80).unwrap();
    // The leader, of all managers.
    let leader = cluster.leader(&cluster.hosts[0]).unwrap();
    let leaving = &cluster.hosts[leader];
    let rest = [(leader + 1) % 3, (leader + 2) % 3].map(|number| &cluster.hosts[number]);
    let left = leaving.swarmlet(&["leave"]).unwrap();
    eprintln!("left in {:.2?}", left.took);
    assert_eq!(left.success().unwrap(), "Node left the swarm.\n");
    check_gone(&cluster, leaving).unwrap();
    check_served(&cluster, &rest, 3).unwrap();
    wait_until(LATER, "the others without it", || {
        let nodes = cluster.nodes(rest[0])?;
        ensure!(nodes[leaving.name()]["Status"] == "Down", "{nodes:?}");
        rest[1].swarmlet(&["service", "scale", "ng=4"])?.success()?;
        Ok(Some(()))
    })
    .unwrap();
    check_served(&cluster, &rest, 4).unwrap();
}

#[test]
fn the_last_manager_leaves_by_force_only() {
    let cluster = Cluster::start(1).unwrap();
    let one = &cluster.hosts[0];
    cluster
        .create(&["--name", "ng", "-p", "80:80", "whoami"])
        .unwrap();
    let refused = one.swarmlet(&["leave"]).unwrap();
    let text = "You are attempting to leave the swarm on a node that is participating as a \
        manager. Removing the last manager erases all current state of the swarm. Use `--force` \
        to ignore this message.";
    check_refused(&refused, 1, text);
    cluster.all_answer(80).unwrap();
    for host in cluster.hosts.iter() {
        let left = host.swarmlet(&["leave", "--force"]).unwrap();
        assert_eq!(left.success().unwrap(), "Node left the swarm.\n");
        check_gone(&cluster, host).unwrap();
    }
}
