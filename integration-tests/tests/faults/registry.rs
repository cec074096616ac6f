//! Registries that lack an image, deny it, or never answer.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::Path,
    time::{Duration, Instant},
};

use swarmlet_integration_tests::{
    Asked, Image, Registry,
    measured::{noted, within},
    wait_until,
};

use crate::cluster::{Cluster, LATER, SOON, text};

/// How long a node leaves a registry alone that does not have an image.
const PAUSE: Duration = Duration::from_secs(10);

/// How long a user waits for a registry that does not answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// By when tasks run whose image comes from a registry that is well.
const PLACED: Duration = Duration::from_secs(10);

fn server() -> Image {
    let binary = Path::new(env!("CARGO_BIN_EXE_hostname-server"));
    Image::new("server", binary, &[])
}

/// An update to an image that cannot be had pauses, says why, and touches nobody.
fn check_pauses(cluster: &Cluster, image: &str, reason: &str) {
    let before = cluster.started().unwrap();
    let words = ["service", "update", "--image", image, "ng"];
    let failed = cluster.hosts[0].swarmlet(&words).unwrap();
    assert_eq!(failed.code, Some(1), "{failed:?}");
    for said in [
        &format!("image {image} could not be accessed on a registry to record\n"),
        "Error: service update paused: ",
    ] {
        assert!(failed.stderr.contains(said), "{said:?} in {failed:?}");
    }
    let tasks = cluster.tasks(&cluster.hosts[0], "ng").unwrap();
    let missing = format!("No such image: {image} (");
    let rejected = tasks
        .iter()
        .find(|task| task.is("Rejected") && task.error.starts_with(&missing));
    let rejected = rejected.unwrap_or_else(|| panic!("{missing:?} in {tasks:?}"));
    assert!(rejected.error.contains(reason), "{rejected:?}");
    assert_eq!(cluster.started().unwrap(), before);
    let running = tasks.iter().filter(|task| task.is("Running")).count();
    assert_eq!(running, 3, "{tasks:?}");
}

/// By the node that asked, when each of its pulls began.
fn by_node(asked: &[Asked]) -> BTreeMap<IpAddr, Vec<Instant>> {
    let mut nodes: BTreeMap<IpAddr, Vec<Instant>> = BTreeMap::new();
    for one in asked.iter().filter(|one| one.begins) {
        nodes.entry(one.from).or_default().push(one.at);
    }
    nodes
}

/// Several tasks on each node want what is not there; the nodes ask for it again, but seldom.
fn check_pace(registry: &Registry) {
    let nodes = wait_until(LATER, "three pulls by each of three nodes", || {
        let nodes = by_node(&registry.asked("lost:"));
        let often = nodes.values().filter(|begun| begun.len() >= 3).count();
        Ok((often == 3).then_some(nodes))
    })
    .unwrap();
    let pauses: Vec<_> = nodes
        .values()
        .flat_map(|begun| begun.windows(2).map(|pair| pair[1] - pair[0]))
        .collect();
    let shortest = pauses.iter().min().unwrap();
    noted(
        "shortest time between two pulls of a missing image by a node, at least 10 s",
        &format!("{shortest:.1?}"),
    );
    assert!(*shortest >= PAUSE, "{pauses:?}");
}

#[test]
fn an_image_that_is_missing_or_denied_or_stalls_harms_nothing_else() {
    let cluster = Cluster::start(1).unwrap();
    let registry = cluster.hosts.registry(5000).unwrap();
    let private = cluster.hosts.registry(5001).unwrap();
    private.require("dXNlcjpzZWNyZXQ=");
    registry.push("app:1", &server(), 1).unwrap();
    registry.push("app:2", &server(), 2).unwrap();
    let app = registry.reference("app:1");
    let service = ["--name=ng", "--replicas=3", "-p", "80:80", &app];
    cluster.create(&service).unwrap();

    // Nobody waits for these two, from here on.
    for (name, replicas, image) in [("lost", "6", "lost:1"), ("slow", "18", "slow/app:1")] {
        let image = registry.reference(image);
        let unresolved = ["--detach", "--no-resolve-image", "--replicas", replicas];
        let words = [&unresolved[..], &["--name", name, &image]].concat();
        cluster.create(&words).unwrap();
    }
    wait_until(SOON, "pulls that stand still on three nodes", || {
        Ok((by_node(&registry.asked("slow/")).len() == 3).then_some(()))
    })
    .unwrap();
    let begun = Instant::now();
    let other = registry.reference("app:2");
    cluster
        .create(&["--name=other", "--replicas=3", &other])
        .unwrap();
    within(
        "another image of a registry that stalls runs after",
        begun.elapsed(),
        PLACED,
    );
    let begun = Instant::now();
    let words = ["service", "create", "--detach", "--name=late"];
    let image = registry.reference("slow/app:2");
    let late = cluster.hosts[0]
        .swarmlet(&[&words[..], &[&image]].concat())
        .unwrap();
    within(
        "service create where a registry does not answer returns after",
        begun.elapsed(),
        PATIENCE + Duration::from_secs(1),
    );
    let reason = "Reason: no answer within 5 s\n";
    assert!(late.stderr.contains(reason), "{late:?}");
    late.success().unwrap();

    check_pauses(
        &cluster,
        &registry.reference("missing:1"),
        "manifest unknown",
    );
    let denied = "no basic auth credentials";
    check_pauses(&cluster, &private.reference("app:1"), denied);
    check_pace(&registry);
    // What waits for the registry can be taken away.
    cluster
        .swarmlet(&["service", "rm", "slow", "late", "lost"])
        .unwrap();
    wait_until(SOON, "the end of what waited", || {
        let tasks = cluster.swarmlet(&["node", "ps", "--format", "json", "host1"])?;
        let names = crate::cluster::json_lines(&tasks)?;
        let left = |name: &str| {
            names
                .iter()
                .any(|task| text(task, "Name").starts_with(name))
        };
        Ok((!left("slow") && !left("late") && !left("lost")).then_some(()))
    })
    .unwrap();
}
