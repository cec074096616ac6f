//! A container dies: out of the balancers at once, back in a moment.

use std::{
    io::{self, ErrorKind},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use rustix::process::test_kill_process;
use swarmlet_integration_tests::{
    Host, Pid,
    measured::{at_most, noted},
};

use crate::{
    cluster::{Cluster, at},
    limits::{connect, exchange},
    probe::{load, no_errors, watch, within},
};

/// Kills a container of the host with `docker kill`; the moment of its process's end.
pub(crate) fn kill_one(host: &Host) -> Instant {
    let ids = host.docker(&["ps", "--quiet"]).unwrap().success().unwrap();
    let id = ids.lines().next().unwrap().to_owned();
    let format = ["inspect", "--format", "{{.State.Pid}}", &id];
    let pid = host.docker(&format).unwrap().success().unwrap();
    let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    let gone = thread::spawn(move || {
        while test_kill_process(pid).is_ok() {
            thread::sleep(Duration::from_millis(1));
        }
        Instant::now()
    });
    host.docker(&["kill", &id]).unwrap().success().unwrap();
    gone.join().unwrap()
}

/// By when a container that died must have a successor that serves.
pub(crate) const RESTARTED: Duration = Duration::from_secs(2);

/// What becomes of a connection whose container is killed.
const CUT: [&str; 2] = ["reset", "closed without answer"];

#[test]
fn a_killed_container_is_out_of_every_balancer_and_back_within_2_s() {
    const CLIENTS: u64 = 4;
    let cluster = Cluster::serving(3, 6).unwrap();
    cluster.all_answer(80).unwrap();
    let victim = &cluster.hosts[1];
    for round in 1..=3 {
        let running = load(&cluster, 80, CLIENTS as usize).unwrap();
        let out: Vec<_> = cluster
            .hosts
            .iter()
            .map(|host| (host.name(), watch(&cluster, host, 5).unwrap()))
            .collect();
        let died = kill_one(victim);
        let back = out.into_iter().map(|(name, watch)| {
            let took = watch.after(died).unwrap();
            let (whose, bound) = match name == victim.name() {
                true => ("its own node's balancer", 100),
                false => ("the other nodes' balancers", 500),
            };
            within(
                &format!("round {round}: out of {whose}"),
                took,
                Duration::from_millis(bound),
            );
        });
        back.for_each(drop);
        for host in cluster.hosts.iter() {
            let back = watch(&cluster, host, 6).unwrap().after(died).unwrap();
            within(&format!("round {round}: another one runs"), back, RESTARTED);
        }
        let report = running.stop().unwrap();
        // Nobody is refused: only what the container had taken already can fail.
        let other = report.errors.keys().filter(|kind| !CUT.contains(&&***kind));
        assert_eq!(other.count(), 0, "{}", report.to_json());
        no_errors(
            &format!("round {round}: a killed container"),
            &report,
            CLIENTS,
        );
        cluster.all_answer(80).unwrap();
        // A minute of it would be a stable run; each further round would wait for its back-off.
        cluster.swarmlet(&["service", "rm", "ng"]).unwrap();
        cluster
            .create(&["--name", "ng", "--replicas", "6", "-p", "80:80", "whoami"])
            .unwrap();
        cluster.all_answer(80).unwrap();
    }
}

/// Connections that are open through one host's balancer, each with its container's name.
fn open(cluster: &Cluster, host: &Host, count: usize) -> Vec<(String, TcpStream)> {
    let target = at(host, 80);
    let opened = cluster.hosts.client().thread(move || {
        let one = |_| {
            let mut stream = connect(target)?;
            let body = exchange(&mut stream)?;
            let name = body.lines().next().unwrap_or_default().to_owned();
            io::Result::Ok((name, stream))
        };
        (0..count).map(one).collect::<io::Result<Vec<_>>>()
    });
    opened.unwrap().join().unwrap().unwrap().unwrap()
}

#[test]
fn a_killed_container_takes_along_its_own_connections_and_no_others() {
    let cluster = Cluster::serving(1, 6).unwrap();
    cluster.all_answer(80).unwrap();
    let opened = open(&cluster, &cluster.hosts[0], 24);
    let victim = &cluster.hosts[1];
    let ids = victim.docker(&["ps", "--quiet"]).unwrap();
    kill_one(victim);
    let killed = ids.success().unwrap().lines().next().unwrap().to_owned();
    let on_it = opened.iter().filter(|(name, _)| *name == killed).count();
    assert_eq!(on_it, 4, "{:?}", opened.iter().map(|one| &one.0));
    let mut lost = 0;
    for (name, mut stream) in opened {
        let answered = exchange(&mut stream);
        if name == killed {
            let error = answered.expect_err("the container is dead");
            let kind = error.kind();
            let ended = [ErrorKind::ConnectionReset, ErrorKind::UnexpectedEof];
            let ended = ended.contains(&kind) || kind == ErrorKind::BrokenPipe;
            assert!(ended, "{error}");
            continue;
        }
        lost += u64::from(answered.is_err());
    }
    noted("connections on the killed container", &on_it.to_string());
    at_most("of 20 connections on others lost", lost, 0);
}
