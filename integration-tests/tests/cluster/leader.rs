//! The leader is killed, again and again, while clients are served.

use std::{
    fs::File,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use swarmlet_integration_tests::{
    Load, Signal,
    measured::{at_most, within},
    wait_until,
};

use crate::cluster::{Cluster, LATER, SOON};

/// Often enough that the slowest of them says something.
const ROUNDS: usize = 20;

/// How long the swarm may be without a leader.
const LIMIT: Duration = Duration::from_secs(2);

/// What 99 of 100 stay within; with fewer, the slowest.
fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    let index = (times.len() * 99).div_ceil(100).max(1) - 1;
    times.get(index).copied().unwrap_or_default()
}

/// How long the disk below `directory` takes to keep a small write for good.
fn sync_times(directory: &Path) -> Result<Vec<Duration>> {
    let path = directory.join("sync-probe");
    let mut file = File::create(&path)?;
    let mut times = Vec::new();
    for _ in 0..200 {
        let started = Instant::now();
        file.write_all(&[0x5a; 4096])?;
        file.sync_all()?;
        times.push(started.elapsed());
    }
    std::fs::remove_file(&path)?;
    Ok(times)
}

/// Kills the leader's daemon; the time until another manager takes a write.
fn kill_leader(cluster: &Cluster, round: usize) -> Result<(usize, Duration)> {
    let leader = cluster.leader(&cluster.hosts[0])?;
    let asked = &cluster.hosts[(leader + 1 + round % 2) % 3];
    let label = format!("round={round}");
    cluster.kill_daemon(&cluster.hosts[leader])?;
    let killed = Instant::now();
    cluster.wait_for_write(asked, &label)?;
    let took = killed.elapsed();
    let mut nodes = cluster.nodes(asked)?;
    nodes.remove(cluster.hosts[leader].name());
    let ready = nodes.values().all(|node| node["Status"] == "Ready");
    ensure!(ready, "another node went down: {nodes:?}");
    Ok((leader, took))
}

/// Brings the killed daemon back, as a service manager does.
fn bring_back(cluster: &Cluster, number: usize) -> Result<()> {
    cluster.start_daemon(&cluster.hosts[number])?;
    wait_until(
        LATER,
        "three managers that answer, three ready nodes",
        || {
            for host in cluster.hosts.iter() {
                let nodes = cluster.nodes(host)?;
                let standing = |name: &str| {
                    let leads = nodes.values().filter(|node| node["ManagerStatus"] == name);
                    leads.count()
                };
                let ready = nodes.values().all(|node| node["Status"] == "Ready");
                ensure!(
                    ready && standing("Leader") == 1 && standing("Reachable") == 2,
                    "{nodes:?}"
                );
            }
            Ok(Some(()))
        },
    )
}

/// Behaviour check 6 of Docker Swarm.
#[test]
fn the_leader_is_killed_and_only_managers_notice() {
    let cluster = Cluster::serving(3, 6).unwrap();
    cluster.all_answer(80).unwrap();
    let before = cluster.started().unwrap();
    assert_eq!(before.len(), 6);

    let load = Load {
        targets: cluster.targets(80),
        concurrency: 3,
        requests: None,
        pause: Duration::from_millis(10),
        ..Load::new(cluster.targets(80)[0], 0)
    };
    let running = load.start(cluster.hosts.client()).unwrap();
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let (killed, took) = kill_leader(&cluster, round).unwrap();
        eprintln!("round {round}: host{} killed", killed + 1);
        within(&format!("round {round}: writes again"), took, LIMIT);
        times.push(took);
        bring_back(&cluster, killed).unwrap();
    }
    let report = running.stop().unwrap();
    // Measured under the same conditions but without the load on it.
    let sync = sync_times(&cluster.hosts[0].data_directory()).unwrap();
    eprintln!(
        "leader killed {ROUNDS} times: writes again after p99 {:.2?} (fsync p99 {:.2?}); \
         {} requests, p99 {:.2?}",
        p99(times),
        p99(sync),
        report.answered(),
        report.latency(0.99).unwrap_or_default(),
    );
    at_most("requests that failed", report.failed(), 0);
    assert!(report.answered() > 1000, "{}", report.to_json());
    assert_eq!(
        cluster.started().unwrap(),
        before,
        "containers were restarted"
    );
    assert_eq!(
        cluster.tasks(&cluster.hosts[0], "ng").unwrap().len(),
        6,
        "tasks were replaced"
    );
}

#[test]
fn a_swarm_of_one_comes_back_with_its_state() {
    let cluster = Cluster::start(1).unwrap();
    let manager = &cluster.hosts[0];
    let id = cluster
        .create(&["--name", "ng", "--replicas", "3", "-p", "80:80", "whoami"])
        .unwrap();
    let names = cluster.all_answer(80).unwrap();
    let before = cluster.started().unwrap();
    let list = ["service", "inspect", "ng"];
    let inspected = cluster.swarmlet(&list).unwrap();
    assert!(inspected.contains(&id), "{inspected}");

    cluster.kill_daemon(manager).unwrap();
    // Without any manager, and without the daemon of its own node, a balancer goes on.
    for host in cluster.hosts.iter() {
        cluster.answers(host, 80, &names).unwrap();
    }
    cluster.start_daemon(manager).unwrap();
    wait_until(SOON, "the state from before", || {
        Ok((cluster.swarmlet(&list)? == inspected).then_some(()))
    })
    .unwrap();
    wait_until(SOON, "three ready nodes", || {
        let nodes = cluster.nodes(manager)?;
        Ok(nodes
            .values()
            .all(|node| node["Status"] == "Ready")
            .then_some(()))
    })
    .unwrap();
    cluster.swarmlet(&["service", "scale", "ng=5"]).unwrap();
    assert_eq!(cluster.all_answer(80).unwrap().len(), 5);
    let after = cluster.started().unwrap();
    assert!(
        before.iter().all(|(id, at)| after.get(id) == Some(at)),
        "{before:?} {after:?}"
    );
}

#[test]
fn killed_daemons_come_back_and_adopt_their_containers() {
    let cluster = Cluster::serving(1, 6).unwrap();
    cluster.all_answer(80).unwrap();
    let before = cluster.started().unwrap();
    for host in cluster.hosts.iter() {
        let (balancer, daemon) = (host.balancer().unwrap(), host.daemon().unwrap());
        host.signal(daemon, Signal::KILL).unwrap();
        // Nobody has to look after it.
        wait_until(SOON, "another daemon", || {
            let info = host.swarmlet(&["info", "--format", "json"])?.success()?;
            Ok((host.daemon()? != daemon && info.contains("\"active\"")).then_some(()))
        })
        .unwrap();
        assert_eq!(
            host.balancer().unwrap(),
            balancer,
            "the balancer was replaced"
        );
    }
    // Commands reach all of them again: one task more each, and the old ones untouched.
    wait_until(SOON, "three ready nodes", || {
        let nodes = cluster.nodes(&cluster.hosts[0])?;
        Ok(nodes
            .values()
            .all(|node| node["Status"] == "Ready")
            .then_some(()))
    })
    .unwrap();
    cluster.swarmlet(&["service", "scale", "ng=9"]).unwrap();
    assert_eq!(cluster.all_answer(80).unwrap().len(), 9);
    let even: Vec<_> = cluster
        .containers()
        .unwrap()
        .values()
        .map(|c| c.len())
        .collect();
    assert_eq!(even, [3, 3, 3]);
    let after = cluster.started().unwrap();
    assert!(
        before.iter().all(|(id, at)| after.get(id) == Some(at)),
        "{before:?} {after:?}"
    );
}
