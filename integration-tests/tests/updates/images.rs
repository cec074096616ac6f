//! Images of a registry: what a tag stands for is asked once, and what an image is made for
//! decides where its tasks go.

use std::{collections::BTreeSet, fs, net::IpAddr, path::Path, time::Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use swarmlet_integration_tests::{Image, Registry, measured::noted, swarmlet_binary, wait_until};

use crate::cluster::{Cluster, SOON};

/// `user:secret`, as registries and Docker's configuration want it.
const CREDENTIALS: &str = "dXNlcjpzZWNyZXQ=";

/// `user:ended`, the same.
const ENDED: &str = "dXNlcjplbmRlZA==";

fn server() -> Image {
    let binary = Path::new(env!("CARGO_BIN_EXE_hostname-server"));
    Image::new("server", binary, &[])
}

/// The service's image as the cluster has it, and what it is made for.
fn recorded(cluster: &Cluster, service: &str) -> Result<(String, Value)> {
    let inspected = cluster.swarmlet(&["service", "inspect", service])?;
    let services: Value = serde_json::from_str(&inspected)?;
    let container = &services[0]["Spec"]["TaskTemplate"]["Containers"][0];
    let image = container["Image"].as_str().context("no image")?;
    Ok((image.to_owned(), container["Platforms"].clone()))
}

/// What [`Registry::push`] calls the version, in each of the running containers.
fn versions(cluster: &Cluster) -> Result<Vec<String>> {
    let mut versions = Vec::new();
    for host in cluster.hosts.iter() {
        let ids = host.docker(&["ps", "--quiet"])?.success()?;
        for id in ids.lines() {
            let format = "{{range .Config.Env}}{{println .}}{{end}}";
            let env = host.docker(&["inspect", "--format", format, id])?;
            let env = env.success()?;
            let version = env.lines().find_map(|line| line.strip_prefix("VERSION="));
            versions.push(version.with_context(|| env.clone())?.to_owned());
        }
    }
    Ok(versions)
}

/// The screens show the tag, and the digest where the user wants all.
fn check_screens(cluster: &Cluster, app: &str, digest: &str) {
    let pinned = format!("{app}:latest@{digest}");
    let shown = |words: &[&str]| cluster.swarmlet(words).unwrap();
    for words in [
        &["service", "ls"][..],
        &["service", "ps", "ng"],
        &["node", "ps", "host1"],
    ] {
        let text = shown(words);
        assert!(text.contains(&format!(" {app}:latest ")), "{text}");
        assert!(!text.contains('@'), "{text}");
    }
    for words in [
        &["service", "ps", "--no-trunc", "ng"][..],
        &["service", "inspect", "--pretty", "ng"],
    ] {
        let text = shown(words);
        assert!(text.contains(&pinned), "{pinned} in {text}");
    }
}

#[test]
fn a_tag_is_resolved_once_and_rolled_out_again_when_it_has_moved() {
    let cluster = Cluster::start(1).unwrap();
    let registry = cluster.hosts.registry(5000).unwrap();
    let app = registry.reference("app");
    let pinned = |digest: &str| format!("{app}:latest@{digest}");
    let first = registry.push("app:latest", &server(), 1).unwrap();
    let quick = ["--update-parallelism=0", "--update-monitor=1s"];
    let service = ["--name=ng", "--replicas=3", "-p", "80:80", &app];
    cluster.create(&[&quick[..], &service].concat()).unwrap();
    let (image, platforms) = recorded(&cluster, "ng").unwrap();
    assert_eq!(image, pinned(&first));
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    assert_eq!(platforms, json!([{"OS": "linux", "Architecture": arch}]));
    check_screens(&cluster, &app, &first);

    // The tag moves; what is there and what comes is of one kind, and nothing is pulled again.
    let second = registry.push("app:latest", &server(), 2).unwrap();
    let asked = registry.asked("app").len();
    cluster.swarmlet(&["service", "scale", "ng=6"]).unwrap();
    assert_eq!(versions(&cluster).unwrap(), ["1"; 6]);
    assert_eq!(registry.asked("app").len(), asked);
    let update = |words: &[&str]| {
        let words = [&["service", "update"], words, &["ng"]].concat();
        cluster.hosts[0].swarmlet(&words).unwrap()
    };
    for words in [["--env-add=A=1"], ["--force"]] {
        update(&words).success().unwrap();
        assert_eq!(recorded(&cluster, "ng").unwrap().0, pinned(&first));
    }
    assert_eq!(versions(&cluster).unwrap(), ["1"; 6]);

    // Only who names the image means what its tag stands for now.
    let plan = update(&["--dry-run", "--image", &app]);
    assert_eq!(plan.code, Some(1), "{plan:?}");
    assert_eq!(recorded(&cluster, "ng").unwrap().0, pinned(&first));
    let updated = update(&["--image", &app]);
    assert!(
        !updated.stderr.contains("could not be accessed"),
        "{updated:?}"
    );
    updated.success().unwrap();
    assert_eq!(recorded(&cluster, "ng").unwrap().0, pinned(&second));
    assert_eq!(versions(&cluster).unwrap(), ["2"; 6]);
    let started = cluster.started().unwrap();
    update(&["--image", &app]).success().unwrap();
    assert_eq!(cluster.started().unwrap(), started, "the tag has not moved");
    let plan = update(&["--dry-run", "--image", &app]);
    assert_eq!(plan.code, Some(0), "{plan:?}");
    cluster.swarmlet(&["service", "rollback", "ng"]).unwrap();
    assert_eq!(recorded(&cluster, "ng").unwrap().0, pinned(&first));
    assert_eq!(versions(&cluster).unwrap(), ["1"; 6]);

    cluster.swarmlet(&["service", "rm", "ng"]).unwrap();
}

#[test]
fn images_of_other_machines_wait_private_ones_need_credentials_and_local_ones_neither() {
    let cluster = Cluster::start(1).unwrap();
    let registry = cluster.hosts.registry(5001).unwrap();
    registry.push_foreign("foreign:1", "linux", "s390x");
    let foreign = registry.reference("foreign:1");
    let words = ["--detach", "--name=foreign", &foreign];
    cluster.create(&words).unwrap();
    let reason = "no suitable node (unsupported platform on 3 nodes)";
    wait_until(SOON, "a task that waits", || {
        let tasks = cluster.tasks(&cluster.hosts[0], "foreign")?;
        anyhow::ensure!(tasks.len() == 1 && tasks[0].is("Pending"), "{tasks:?}");
        Ok((tasks[0].error == reason).then_some(()))
    })
    .unwrap();
    let first = cluster.hosts[0].address();
    let asked = registry.asked("foreign");
    assert!(asked.iter().all(|one| one.from == first), "{asked:?}");

    let secret = registry.push("secret:1", &server(), 1).unwrap();
    registry.require(CREDENTIALS);
    check_private(&cluster, &registry, &secret);
    check_own_credentials(&cluster, &registry);
    check_local(&cluster);
}

/// The registry tells nobody who does not say who he is; nodes do it with what they were given.
fn check_private(cluster: &Cluster, registry: &Registry, digest: &str) {
    let host = &cluster.hosts[0];
    let image = registry.reference("secret:1");
    let words = ["service", "create", "--dry-run", "--name=secret", &image];
    let denied = host.swarmlet(&words).unwrap();
    for said in [
        &format!("image {image} could not be accessed on a registry to record\n"),
        "no basic auth credentials",
    ] {
        assert!(denied.stderr.contains(said), "{said:?} in {denied:?}");
    }
    let folder = host.namespace().directory().join("docker-config");
    log_in(registry, CREDENTIALS, &folder);
    let words = [
        "--with-registry-auth",
        "--replicas=3",
        "--name=secret",
        &image,
    ];
    let created = cluster.create(&words);
    fs::remove_dir_all(&folder).unwrap();
    created.unwrap();
    let (recorded, _) = recorded(cluster, "secret").unwrap();
    assert_eq!(recorded, format!("{image}@{digest}"));
    assert_eq!(versions(cluster).unwrap(), ["1"; 3]);
    cluster.swarmlet(&["service", "rm", "secret"]).unwrap();
}

/// A service's credentials end; what nodes have of their own does not.
fn check_own_credentials(cluster: &Cluster, registry: &Registry) {
    registry.push("secret:2", &server(), 2).unwrap();
    for host in cluster.hosts.iter() {
        let folder = host.namespace().directory().join("docker-config");
        log_in(registry, CREDENTIALS, &folder);
    }
    let stale = cluster.hosts[0].namespace().directory().join("stale");
    log_in(registry, ENDED, &stale);
    let config = format!("DOCKER_CONFIG={}", stale.display());
    let binary = swarmlet_binary().unwrap();
    let image = registry.reference("secret:2");
    let words = [
        &config,
        binary.to_str().unwrap(),
        "service",
        "create",
        "--with-registry-auth",
        "--no-resolve-image",
        "--replicas=3",
        "--name=own",
        &image,
    ];
    // It returns once all run, and no host had the image.
    let created = cluster.hosts[0].run("env", &words).unwrap();
    created.success().unwrap();
    let asked = registry.asked("secret:2");
    let nodes: BTreeSet<IpAddr> = asked.iter().map(|one| one.from).collect();
    assert_eq!(nodes.len(), 3, "{asked:?}");
    cluster.swarmlet(&["service", "rm", "own"]).unwrap();
}

/// Writes a Docker configuration as `docker login` does.
fn log_in(registry: &Registry, credentials: &str, folder: &Path) {
    let address = registry.reference("");
    let registry = address.trim_end_matches('/');
    let logged_in = json!({"auths": {registry: {"auth": credentials}}});
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("config.json"), logged_in.to_string()).unwrap();
}

/// An image that is on the hosts and in no registry runs as it always did, after a warning.
fn check_local(cluster: &Cluster) {
    let host = &cluster.hosts[0];
    let begun = Instant::now();
    let words = ["service", "create", "--detach", "--name=ng", "whoami"];
    let created = host.swarmlet(&words).unwrap();
    let took = format!("{:.3?}", begun.elapsed());
    noted(
        "service create of an image of no registry, without a route",
        &took,
    );
    let warning = "image whoami could not be accessed on a registry to record\n\
        its digest. Each node will access whoami independently,\n\
        possibly leading to different nodes running different\n\
        versions of the image.\nReason: ";
    assert!(created.stderr.starts_with(warning), "{created:?}");
    created.success().unwrap();
    let created = host
        .swarmlet(&[
            "service",
            "create",
            "--no-resolve-image",
            "--name=two",
            "whoami",
        ])
        .unwrap();
    assert!(!created.stderr.contains("registry"), "{created:?}");
    created.success().unwrap();
    for service in ["ng", "two"] {
        let (image, platforms) = recorded(cluster, service).unwrap();
        assert_eq!((&*image, platforms), ("whoami", Value::Null));
    }
}
