//! Who may join, and what everybody else is told.

use std::{fs, net::Ipv4Addr, time::Duration};

use anyhow::Result;
use swarmlet_integration_tests::{Host, NameServer, Output, measured::within, wait_until};

use crate::cluster::{Cluster, SOON, check_refused};

/// An address on the switch that no machine has.
const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 77);

/// A token of the same swarm, and of the same length, with one part exchanged.
fn exchange(token: &str, part: usize) -> String {
    let mut parts: Vec<String> = token.split('-').map(str::to_owned).collect();
    // The digits' order is another one, their number is not, and it stays in range.
    parts[part] = format!("0{}", &parts[part][1..parts[part].len() - 1])
        + if parts[part].ends_with('1') { "2" } else { "1" };
    parts.join("-")
}

/// Neither a daemon nor a balancer is left of a join that was refused.
fn check_refused_join(host: &Host, output: &Output, expected: &str) -> Result<()> {
    let lines: Vec<_> = output.stderr.lines().collect();
    assert_eq!(output.code, Some(1), "{output:?}");
    // The lines before say that a daemon was started, and stopped again.
    let error = lines.last().copied().unwrap_or_default();
    assert!(
        error.starts_with("Error: ") && lines.len() <= 3,
        "{output:?}"
    );
    assert!(
        error.contains(expected),
        "expected {expected:?} in {output:?}"
    );
    eprintln!("{} ({:.2?}): {error}", output.command, output.took);
    wait_until(SOON, "end of the daemon", || {
        Ok(host.guests()?.is_empty().then_some(()))
    })
}

#[test]
fn whoever_has_no_valid_token_stays_outside() {
    let cluster = Cluster::without_swarm().unwrap();
    let [one, two, three] = [0, 1, 2].map(|number| &cluster.hosts[number]);
    one.swarmlet(&["init", "--advertise-addr", "10.99.0.1"])
        .unwrap()
        .success()
        .unwrap();
    let token = cluster.token("worker").unwrap();
    let join = |host: &Host, token: &str, manager: &str| {
        host.swarmlet(&["join", "--token", token, manager]).unwrap()
    };

    let output = join(two, "SWMTKN-1-abc", "10.99.0.1:2377");
    check_refused(&output, 1, "invalid join token");
    check_refused(&two.swarmlet(&["join", "10.99.0.1"]).unwrap(), 2, "--token");

    let wrong_digest = join(two, &exchange(&token, 2), "10.99.0.1:2377");
    let text = "does not match the digest in the join token";
    check_refused_join(two, &wrong_digest, text).unwrap();
    let wrong_secret = join(two, &exchange(&token, 3), "10.99.0.1:2377");
    check_refused_join(
        two,
        &wrong_secret,
        "invalid join token: the secret does not match",
    )
    .unwrap();
    let silent = join(two, &token, &NOBODY.to_string());
    check_refused_join(two, &silent, "10.99.0.77:2377").unwrap();
    let refused = join(two, &token, "10.99.0.1:2399");
    check_refused_join(two, &refused, "10.99.0.1:2399").unwrap();
    for output in [&wrong_digest, &wrong_secret, &refused] {
        within("a join is refused", output.took, Duration::from_secs(5));
    }
    within("a silent address", silent.took, Duration::from_secs(20));
    let other = join(two, &token, "10.99.0.1:2378");
    check_refused_join(two, &other, "10.99.0.1:2378").unwrap();

    // A new token: the old one is worth nothing, and whoever has joined by it stays.
    join(two, &token, "10.99.0.1").success().unwrap();
    let rotated = cluster
        .swarmlet(&["join-token", "--rotate", "worker"])
        .unwrap();
    assert!(
        rotated.starts_with("Successfully rotated worker join token."),
        "{rotated}"
    );
    let output = join(three, &token, "10.99.0.1:2377");
    check_refused_join(three, &output, "the secret does not match (was it rotated?").unwrap();
    let new = cluster.token("worker").unwrap();
    assert_ne!(new, token);
    assert!(rotated.contains(&new), "{rotated}");
    join(three, &new, "10.99.0.1:2377").success().unwrap();
    cluster
        .create(&["--name", "ng", "--replicas", "3", "-p", "80:80", "whoami"])
        .unwrap();
    wait_until(SOON, "three ready nodes", || {
        let nodes = cluster.nodes(one)?;
        Ok((nodes
            .values()
            .filter(|node| node["Status"] == "Ready")
            .count()
            == 3)
            .then_some(()))
    })
    .unwrap();
}

#[test]
fn a_swarm_is_joined_by_name() {
    let cluster = Cluster::without_swarm().unwrap();
    let [one, two] = [0, 1].map(|number| &cluster.hosts[number]);
    one.swarmlet(&["init", "--advertise-addr", "10.99.0.1"])
        .unwrap()
        .success()
        .unwrap();
    let token = cluster.token("manager").unwrap();
    // The name has two addresses, and nobody is at the first.
    let addresses = [NOBODY, one.address()];
    let _server = NameServer::start(cluster.hosts.client(), "managers.test", &addresses).unwrap();
    let settings = two.namespace().directory().join("resolv.conf");
    fs::write(
        &settings,
        "nameserver 10.99.0.254\noptions timeout:1 attempts:2\n",
    )
    .unwrap();
    // Seen in this host's mount namespace only.
    let path = settings.to_str().unwrap();
    two.run("mount", &["--bind", path, "/etc/resolv.conf"])
        .unwrap()
        .success()
        .unwrap();
    let unknown = two
        .swarmlet(&["join", "--token", &token, "nobody.test"])
        .unwrap();
    let joined = two
        .swarmlet(&["join", "--token", &token, "managers.test"])
        .unwrap();
    two.run("umount", &["/etc/resolv.conf"])
        .unwrap()
        .success()
        .unwrap();

    check_refused_lookup(&unknown);
    eprintln!("joined by name in {:.2?}", joined.took);
    assert!(
        joined
            .stderr
            .contains("WARNING: the swarm has two managers now"),
        "{joined:?}"
    );
    assert_eq!(
        joined.success().unwrap(),
        "This node joined a swarm as a manager.\n"
    );
    assert_eq!(cluster.nodes(two).unwrap().len(), 2);
}

fn check_refused_lookup(output: &Output) {
    assert_eq!(output.code, Some(1), "{output:?}");
    let error = output.stderr.lines().last().unwrap_or_default();
    assert!(
        error.starts_with("Error: ") && error.contains("nobody.test"),
        "{output:?}"
    );
}
