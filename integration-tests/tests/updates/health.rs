//! Checks of real containers: the engine's and the node's own, and what follows from them.

use std::{collections::BTreeSet, fs, path::PathBuf};

use anyhow::{Result, ensure};
use swarmlet_integration_tests::{WHOAMI_CHECK, wait_until};

use crate::{
    checked::make_checked_image,
    cluster::{Cluster, LATER, SOON, TaskLine, at},
};

/// Waits until each host answers for exactly these containers.
fn wait_for_answers(cluster: &Cluster, port: u16, names: &BTreeSet<String>) {
    for host in cluster.hosts.iter() {
        cluster.answers(host, port, names).unwrap();
    }
}

/// Waits until so many containers answer on all hosts, whichever; their names.
fn answering(cluster: &Cluster, port: u16, count: usize) -> BTreeSet<String> {
    let names = wait_until(LATER, &format!("{count} that answer"), || {
        let report = cluster.ask(&cluster.hosts[0], port, 4 * count as u64)?;
        ensure!(report.failed() == 0, "{}", report.to_json());
        let names: BTreeSet<_> = report.answers.into_keys().collect();
        Ok((names.len() == count).then_some(names))
    });
    let names = names.unwrap();
    wait_for_answers(cluster, port, &names);
    names
}

/// Waits for a task of a service in a state, with this in its error.
fn told(cluster: &Cluster, service: &str, state: &str, error: &str) -> TaskLine {
    wait_until(SOON, &format!("a task that is {state}: {error:?}"), || {
        let tasks = cluster.tasks(&cluster.hosts[0], service)?;
        let found = tasks
            .iter()
            .find(|t| t.is(state) && t.error.contains(error));
        ensure!(found.is_some(), "{tasks:?}");
        Ok(found.cloned())
    })
    .unwrap()
}

/// Creates a service of two of which one may be unwell.
fn create(cluster: &Cluster, name: &str, port: &str, action: &str, more: &[&str]) {
    let words = [
        ["--name", name, "--replicas", "2"],
        ["--publish", port, "--unhealthy-action", action],
    ];
    cluster
        .create(&[&words.concat()[..], more].concat())
        .unwrap();
}

/// Asks whichever container is next for a path.
fn get(cluster: &Cluster, port: u16, path: &str) {
    let url = format!("http://{}{path}", at(&cluster.hosts[1], port));
    let output = cluster.hosts.client().run("curl", &["-sf", &url]);
    output.unwrap().success().unwrap();
}

#[test]
fn who_fails_an_http_check_is_ejected_or_restarted() {
    let cluster = Cluster::start(1).unwrap();
    create(
        &cluster,
        "kept",
        "80:80",
        "eject",
        &[&WHOAMI_CHECK[..], &["whoami"]].concat(),
    );
    create(
        &cluster,
        "replaced",
        "81:80",
        "restart",
        &[&WHOAMI_CHECK[..], &["whoami"]].concat(),
    );
    let kept = answering(&cluster, 80, 2);
    let replaced = answering(&cluster, 81, 2);
    let before = cluster.started().unwrap();

    // Ejected: it runs, says why nobody is sent to it, and is asked again once it is well.
    get(&cluster, 80, "/health?set=503&ms=8000");
    assert!(answering(&cluster, 80, 1).is_subset(&kept));
    told(
        &cluster,
        "kept",
        "Running",
        "unhealthy container: check http /health: status 503",
    );
    wait_for_answers(&cluster, 80, &kept);
    assert_eq!(cluster.started().unwrap(), before);

    // Restarted: another container has its slot.
    get(&cluster, 81, "/health?set=503");
    told(
        &cluster,
        "replaced",
        "Failed",
        "unhealthy container: check http /health: status 503",
    );
    wait_until(LATER, "another container", || {
        let names: BTreeSet<_> = cluster
            .ask(&cluster.hosts[2], 81, 6)?
            .answers
            .into_keys()
            .collect();
        let stayed = names.intersection(&replaced).count();
        ensure!((names.len(), stayed) == (2, 1), "{names:?}");
        Ok(Some(()))
    })
    .unwrap();
    wait_for_answers(&cluster, 80, &kept);
}

/// Behaviour check 18 of Docker Swarm, with a check that needs nothing of the image.
#[test]
fn who_never_accepts_gets_no_client_until_it_does() {
    let cluster = Cluster::start(1).unwrap();
    // It listens elsewhere than where it is asked.
    let line = "service create --detach --name ng --replicas 2 -p 80:80 --check-tcp \
        --check-interval 300ms --update-monitor 1s --update-parallelism 0 whoami --port 8080";
    let words: Vec<&str> = line.split_whitespace().collect();
    cluster.swarmlet(&words).unwrap();
    wait_until(SOON, "two containers", || {
        Ok((cluster.names()?.len() == 2).then_some(()))
    })
    .unwrap();
    let reason = "not healthy yet: check tcp: connection refused";
    told(&cluster, "ng", "Starting", reason);
    for host in cluster.hosts.iter() {
        assert_eq!(cluster.ask(host, 80, 5).unwrap().answered(), 0);
    }
    cluster
        .swarmlet(&["service", "update", "--args", "--port 80", "ng"])
        .unwrap();
    answering(&cluster, 80, 2);
    let tasks = cluster.tasks(&cluster.hosts[0], "ng").unwrap();
    assert_eq!(
        tasks.iter().filter(|task| task.is("Running")).count(),
        2,
        "{tasks:?}"
    );
}

/// Files that say which service is well, on all hosts.
struct Wards(PathBuf);

impl Wards {
    fn open(cluster: &Cluster, names: [&str; 2]) -> Result<Self> {
        let wards = Self(cluster.hosts.directory().join("wards"));
        for name in names {
            fs::create_dir_all(wards.0.join(name))?;
            wards.make_well(name);
        }
        Ok(wards)
    }

    fn mount(&self, name: &str) -> String {
        let source = self.0.join(name);
        format!(
            "type=bind,source={},target=/healthy,readonly",
            source.display()
        )
    }

    fn make_well(&self, name: &str) {
        fs::write(self.0.join(name).join("yes"), "").unwrap();
    }

    fn make_ill(&self, name: &str) {
        fs::remove_file(self.0.join(name).join("yes")).unwrap();
    }
}

/// The engine's own check, as the image has it.
#[test]
fn who_fails_the_images_healthcheck_is_ejected_or_restarted() {
    let cluster = Cluster::start(1).unwrap();
    for host in cluster.hosts.iter() {
        let check = "--interval=500ms --retries=2 CMD [\"/bin/sh\",\"-c\",\"/healthy/yes\"]";
        make_checked_image(host, "self-checked", Some(check)).unwrap();
    }
    let wards = Wards::open(&cluster, ["kept", "replaced"]).unwrap();
    for (name, port, action) in [("kept", "80:80", "eject"), ("replaced", "81:80", "restart")] {
        let mount = wards.mount(name);
        create(
            &cluster,
            name,
            port,
            action,
            &["--mount", &mount, "self-checked"],
        );
    }
    let kept = answering(&cluster, 80, 2);
    let replaced = answering(&cluster, 81, 2);
    wards.make_ill("kept");
    wards.make_ill("replaced");
    told(&cluster, "kept", "Running", "unhealthy container");
    told(&cluster, "replaced", "Failed", "unhealthy container");
    for port in [80, 81] {
        wait_until(SOON, "nobody who answers", || {
            let report = cluster.ask(&cluster.hosts[2], port, 4)?;
            ensure!(report.answered() == 0, "{}", report.to_json());
            Ok(Some(()))
        })
        .unwrap();
    }
    wards.make_well("kept");
    wards.make_well("replaced");
    wait_for_answers(&cluster, 80, &kept);
    assert!(answering(&cluster, 81, 2).is_disjoint(&replaced));
}
