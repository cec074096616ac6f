//! A published port that somebody else has on one host, and the pages that a
//! load balancer in front of the hosts looks at.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use swarmlet_integration_tests::{Host, Load, Signal, sibling_binary, wait_until};

use crate::cluster::{Cluster, LATER, SOON, at};

/// What a node says of a port that is not its own.
const TAKEN: &str = "another program listens there";

/// What `curl` gets of one of a host's pages, head and body.
fn page(cluster: &Cluster, host: &Host, path: &str, version: &str) -> Result<String> {
    let url = format!("http://{}:2378{path}", host.address());
    // An ELB in front sends no Host header.
    let words = [
        "--silent",
        "--include",
        "--max-time",
        "5",
        version,
        "--header",
        "Host:",
        &url,
    ];
    cluster.hosts.client().run("curl", &words)?.success()
}

/// The status and the body of the health page.
fn health(cluster: &Cluster, host: &Host) -> Result<(u16, String)> {
    let page = page(cluster, host, "/healthz", "--http1.0")?;
    let (head, body) = page.split_once("\r\n\r\n").context("no body")?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    Ok((
        status.with_context(|| format!("no status in {page}"))?,
        body.to_owned(),
    ))
}

fn wait_for_health(cluster: &Cluster, host: &Host, status: u16, text: &str) -> Result<()> {
    wait_until(SOON, &format!("health {status} of {}", host.name()), || {
        let (found, body) = health(cluster, host)?;
        ensure!(found == status && body.contains(text), "{found}: {body}");
        Ok(Some(()))
    })
}

#[test]
fn a_port_that_one_host_cannot_serve_hurts_nothing_else() {
    let cluster = Cluster::start(1).unwrap();
    let [one, two, three] = [0, 1, 2].map(|number| &cluster.hosts[number]);
    let server = sibling_binary("hostname-server").unwrap();
    let squatter = two.spawn("squatter", server, &[]).unwrap();
    cluster
        .answers(two, 80, &["host2".to_owned()].into())
        .unwrap();
    for host in [one, two, three] {
        wait_for_health(&cluster, host, 200, "ok").unwrap();
    }
    cluster
        .create(&["--name", "ng", "--replicas", "3", "-p", "80:80", "whoami"])
        .unwrap();
    cluster
        .create(&["--name", "other", "-p", "81:80", "whoami"])
        .unwrap();

    wait_for_health(&cluster, two, 503, "port 80").unwrap();
    wait_for_health(&cluster, one, 200, "ok").unwrap();
    wait_for_health(&cluster, three, 200, "ok").unwrap();
    wait_until(SOON, "the problem in service ps and node inspect", || {
        let tasks = cluster.tasks(one, "ng")?;
        let told = tasks
            .iter()
            .filter(|task| task.error.contains("port 80/tcp"));
        ensure!(
            told.map(|task| &task.node).collect::<Vec<_>>() == ["host2"],
            "{tasks:?}"
        );
        let node = cluster.swarmlet(&["node", "inspect", "--pretty", "host2"])?;
        ensure!(node.contains("80/tcp") && node.contains(TAKEN), "{node}");
        let others = cluster.swarmlet(&["node", "inspect", "host1", "host3"])?;
        ensure!(!others.contains(TAKEN), "{others}");
        Ok(Some(()))
    })
    .unwrap();
    let names = cluster.names().unwrap();
    let other = cluster.ask(two, 81, 1).unwrap().answers;
    assert_eq!(other.len(), 1);
    let ng: std::collections::BTreeSet<_> = names
        .into_iter()
        .filter(|name| !other.contains_key(name))
        .collect();
    assert_eq!(ng.len(), 3);
    // The others answer for the container of host2, too.
    cluster.answers(one, 80, &ng).unwrap();
    cluster.answers(three, 80, &ng).unwrap();
    cluster
        .answers(two, 80, &["host2".to_owned()].into())
        .unwrap();

    two.signal(squatter, Signal::KILL).unwrap();
    cluster.answers(two, 80, &ng).unwrap();
    wait_for_health(&cluster, two, 200, "ok").unwrap();
    wait_until(SOON, "no problem any more", || {
        let node = cluster.swarmlet(&["node", "inspect", "host2"])?;
        ensure!(!node.contains(TAKEN), "{node}");
        Ok(Some(()))
    })
    .unwrap();
}

/// Behaviour check 4 of Docker Swarm.
#[test]
fn a_node_is_drained_and_no_client_notices() {
    let cluster = Cluster::start(1).unwrap();
    let two = &cluster.hosts[1];
    cluster
        .create(&["--name", "ng", "--replicas", "6", "-p", "80:80", "whoami"])
        .unwrap();
    cluster.all_answer(80).unwrap();
    let load = Load {
        targets: cluster.targets(80),
        concurrency: 6,
        requests: None,
        pause: Duration::from_millis(5),
        ..Load::new(at(two, 80), 0)
    };
    let running = load.start(cluster.hosts.client()).unwrap();
    wait_until(SOON, "load", || Ok((running.begun() > 100).then_some(()))).unwrap();
    wait_for_health(&cluster, two, 200, "ok").unwrap();
    cluster
        .swarmlet(&["node", "update", "--availability", "drain", "host2"])
        .unwrap();
    wait_for_health(&cluster, two, 503, "drain").unwrap();
    wait_until(LATER, "six containers elsewhere", || {
        let containers = cluster.containers()?;
        let count = |name: &str| containers[name].len();
        ensure!(
            count("host2") == 0 && count("host1") + count("host3") == 6,
            "{containers:?}"
        );
        Ok(Some(()))
    })
    .unwrap();
    wait_for_health(&cluster, &cluster.hosts[0], 200, "ok").unwrap();
    // It forwards as before: the ELB may take its time.
    assert_eq!(cluster.all_answer(80).unwrap().len(), 6);
    cluster
        .swarmlet(&["node", "update", "--availability", "active", "host2"])
        .unwrap();
    wait_for_health(&cluster, two, 200, "ok").unwrap();
    let report = running.stop().unwrap();
    eprintln!("drained under load: {} requests", report.answered());
    assert_eq!(report.failed(), 0, "{}", report.to_json());
    let listed = cluster.swarmlet(&["service", "ls"]).unwrap();
    assert!(listed.contains("6/6"), "{listed}");
}

/// The samples of a page in Prometheus's text format, by name and labels.
fn samples(page: &str) -> Result<BTreeMap<String, f64>> {
    let mut samples = BTreeMap::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').with_context(|| format!("{line:?}"))?;
        let letters = name.split('{').next().unwrap_or_default();
        ensure!(
            letters.starts_with("swarmlet_")
                && letters
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'_')
                && name.contains('{') == name.ends_with('}'),
            "{line:?}"
        );
        let value = value.parse().with_context(|| format!("{line:?}"))?;
        let before = samples.insert(name.to_owned(), value);
        ensure!(before.is_none(), "twice: {line:?}");
    }
    Ok(samples)
}

#[test]
fn the_pages_tell_what_the_node_does() {
    let cluster = Cluster::start(1).unwrap();
    let [one, two] = [0, 1].map(|number| &cluster.hosts[number]);
    for version in ["--http1.0", "--http1.1"] {
        let page = page(&cluster, two, "/healthz", version).unwrap();
        assert!(page.split(' ').nth(1) == Some("200"), "{page}");
    }
    cluster
        .create(&["--name", "ng", "--replicas", "3", "-p", "80:80", "whoami"])
        .unwrap();
    cluster.answers(two, 80, &cluster.names().unwrap()).unwrap();
    let metrics = |host: &Host| {
        let page = page(&cluster, host, "/metrics", "--http1.0").unwrap();
        let (head, body) = page.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.0 200"), "{head}");
        assert!(body.ends_with("# EOF\n"), "{body}");
        samples(body).unwrap()
    };
    let key = "swarmlet_lb_accepted_total{port=\"80\",service=\"ng\"}";
    let before = metrics(two)[key];
    let report = cluster.ask(two, 80, 50).unwrap();
    assert_eq!(report.failed(), 0);
    let after = metrics(two);
    assert!(
        (after[key] - before - 50.0).abs() < 0.1,
        "{before} {after:?}"
    );
    let ready = "swarmlet_lb_endpoints{port=\"80\",service=\"ng\",condition=\"ready\"}";
    assert!((after[ready] - 3.0).abs() < 0.1, "{after:?}");
    assert!((after["swarmlet_node_manager"]).abs() < 0.1, "{after:?}");
    let manager = metrics(one);
    let running = "swarmlet_tasks{service=\"ng\",state=\"running\"}";
    assert!((manager[running] - 3.0).abs() < 0.1, "{manager:?}");
    assert!(
        (manager["swarmlet_raft_leader"] - 1.0).abs() < 0.1,
        "{manager:?}"
    );
}
