//! All managers are gone, and then more fails on a worker: its daemon, a check, its engine.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use swarmlet_integration_tests::{Host, Signal, WHOAMI_CHECK, measured::noted, wait_until};

use crate::{
    alone::{all_from, named_service},
    cluster::{Cluster, SOON},
    probe::{load, no_errors, nothing_restarted, watch, within},
};

/// The timeout and two intervals (row 25 of the bounds).
const OUT: Duration = Duration::from_millis(2_600);

/// How long a container says that it is not well.
const ILL_MS: u64 = 4_000;

/// Endpoints of both services.
const ALL: u64 = 12;

/// A container of a service on the host: its id, and its address there.
fn container(host: &Host, service: &str) -> Result<(String, String)> {
    let ids = host.docker(&["ps", "--quiet"])?.success()?;
    let ids: Vec<&str> = ids.lines().collect();
    let format = "{{.Id}} {{.Config.Hostname}} \
                  {{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let lines = host.docker(&[&["inspect", "--format", format], &ids[..]].concat())?;
    let lines = lines.success()?;
    let prefix = format!("{service}-");
    let found = lines.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (id, hostname, address) = (words.next()?, words.next()?, words.next()?);
        let own = hostname.starts_with(&prefix);
        own.then(|| (id.to_owned(), address.to_owned()))
    });
    found.with_context(|| format!("no container of {service} in {lines}"))
}

/// A service's container on the host says from now on that it is not well.
fn make_ill(host: &Host, service: &str, how: &str) -> String {
    let (id, address) = container(host, service).unwrap();
    let url = format!("http://{address}/health?{how}");
    let told = host.run("curl", &["-sf", &url]).unwrap();
    told.success().unwrap();
    id
}

/// The host answers for all six tasks of each service, and nobody else does.
fn serves_both(cluster: &Cluster, host: &Host) {
    for (port, service) in [(80, "a"), (81, "b")] {
        let report = wait_until(SOON, "answers of six tasks", || {
            let report = cluster.ask(host, port, 60)?;
            let found = (report.failed(), report.answers.len());
            ensure!(found == (0, 6), "{}", report.to_json());
            Ok(Some(report))
        });
        all_from(&report.unwrap(), service);
    }
}

#[test]
fn without_any_manager_a_daemon_a_check_and_an_engine_fail_and_every_answer_is_right() {
    let cluster = Cluster::start(1).unwrap();
    for (service, action) in [("a", "eject"), ("b", "restart")] {
        let action = ["--unhealthy-action", action];
        named_service(&cluster, service, &[&WHOAMI_CHECK[..], &action].concat());
    }
    for host in cluster.hosts.iter() {
        let all = watch(&cluster, host, ALL).unwrap();
        all.after(Instant::now()).unwrap();
    }
    let (manager, worker) = (&cluster.hosts[0], &cluster.hosts[1]);
    cluster.kill_daemon(manager).unwrap();
    thread::sleep(Duration::from_secs(2));

    a_daemon_is_killed(&cluster, worker);
    a_check_fails(&cluster, worker);
    an_engine_is_killed(&cluster, worker);
}

/// It finds its containers and its balancer again, by what it has on its disk alone.
fn a_daemon_is_killed(cluster: &Cluster, worker: &Host) {
    let before = cluster.started().unwrap();
    let balancer = worker.balancer().unwrap();
    let (on_a, on_b) = (load(cluster, 80, 1).unwrap(), load(cluster, 81, 1).unwrap());
    cluster.kill_daemon(worker).unwrap();
    let moment = Instant::now();
    cluster.start_daemon(worker).unwrap();
    let back = watch(cluster, worker, ALL).unwrap().after(moment).unwrap();
    within(
        "a killed daemon is back without managers",
        back,
        Duration::from_secs(4),
    );
    // Whatever it thought to be missing would be started by now.
    thread::sleep(Duration::from_secs(4));
    nothing_restarted(cluster, &before);
    assert_eq!(worker.balancer().unwrap(), balancer);
    for (report, service) in [(on_a.stop().unwrap(), "a"), (on_b.stop().unwrap(), "b")] {
        all_from(&report, service);
        no_errors("a daemon killed without managers", &report, 0);
    }
}

/// The node knows by itself who is not well, and what its service wants done then.
fn a_check_fails(cluster: &Cluster, worker: &Host) {
    let before = cluster.started().unwrap();
    let running = load(cluster, 80, 1).unwrap();
    let out = watch(cluster, worker, ALL - 1).unwrap();
    let moment = Instant::now();
    make_ill(worker, "a", &format!("set=503&ms={ILL_MS}"));
    within(
        "who fails a check is out of its own balancer",
        out.after(moment).unwrap(),
        OUT,
    );
    let back = watch(cluster, worker, ALL).unwrap();
    let back = back.after(moment + Duration::from_millis(ILL_MS)).unwrap();
    within("who passes it again is back", back, OUT);
    nothing_restarted(cluster, &before);
    no_errors(
        "a check that failed without managers",
        &running.stop().unwrap(),
        0,
    );

    let out = watch(cluster, worker, ALL - 1).unwrap();
    let moment = Instant::now();
    let ill = make_ill(worker, "b", "set=503");
    let took = out.after(moment).unwrap();
    within("who is to be restarted is out", took, OUT);
    let back = watch(cluster, worker, ALL).unwrap().after(moment).unwrap();
    noted(
        "who failed its check was restarted after",
        &format!("{back:.3?}"),
    );
    let now = cluster.started().unwrap();
    let ended: Vec<_> = before.keys().filter(|id| !now.contains_key(*id)).collect();
    assert_eq!((now.len(), ended), (before.len(), vec![&ill]));
}

/// The engine ends what it finds when it comes back, and gives addresses anew.
fn an_engine_is_killed(cluster: &Cluster, worker: &Host) {
    let (on_a, on_b) = (load(cluster, 80, 2).unwrap(), load(cluster, 81, 2).unwrap());
    let before = cluster.started().unwrap();
    let on_it = worker.docker(&["ps", "--quiet"]).unwrap().success();
    let on_it = on_it.unwrap().lines().count();
    let dockerd = worker.engine().dockerd().unwrap();
    worker.signal(dockerd, Signal::KILL).unwrap();
    thread::sleep(Duration::from_secs(3));
    worker.restart_engine().unwrap();
    let moment = Instant::now();
    // Its containers are others then, and everybody else's are those of before.
    wait_until(
        SOON,
        "another container for each that the engine ended",
        || {
            let now = cluster.started()?;
            let kept = before.iter().filter(|(id, at)| now.get(*id) == Some(*at));
            let found = (now.len(), kept.count());
            ensure!(found == (12, 12 - on_it), "{found:?}");
            Ok(Some(()))
        },
    )
    .unwrap();
    let back = watch(cluster, worker, ALL).unwrap().after(moment).unwrap();
    within(
        "reconciled after the engine's return without managers",
        back,
        Duration::from_secs(5),
    );
    serves_both(cluster, worker);
    for (report, service) in [(on_a.stop().unwrap(), "a"), (on_b.stop().unwrap(), "b")] {
        all_from(&report, service);
        assert!(report.answered() > 0, "{}", report.to_json());
        let figures = format!("{}, {:?}", report.answered(), report.errors);
        let what = format!("engine killed: requests to {service} answered, and failed");
        noted(&what, &figures);
    }
}
