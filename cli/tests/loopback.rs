//! Clusters on loopback addresses: daemons of the built binary, the process runtime, real TLS.

// Helpers of tests are no tests by clippy's rules; a panic here is a failed test all the same.
#![allow(clippy::unwrap_used)]

// Shared with the other loopback tests, which use the rest of it.
#[allow(dead_code)]
#[path = "loopback/cluster.rs"]
mod cluster;
#[path = "loopback/doctor.rs"]
mod doctor;
#[path = "loopback/supervisor.rs"]
mod supervisor;

use std::collections::BTreeSet;

use cluster::{Cluster, free_port, wait_until};

/// Host names in the order in which they answer.
fn names(cluster: &Cluster, node: usize, port: u16, requests: usize) -> Vec<String> {
    (0..requests)
        .map(|_| cluster.ask(node, port).unwrap_or_else(|error| error))
        .collect()
}

/// Waits until each node answers for `count` tasks, in exact turn.
fn wait_for_turns(cluster: &Cluster, port: u16, count: usize) {
    for node in 0..cluster.len() {
        wait_until(
            &format!("node {node} answers for {count} tasks in turn"),
            || {
                let rounds = names(cluster, node, port, 3 * count);
                let (first, rest) = rounds.split_at(count);
                let distinct: BTreeSet<_> = first.iter().collect();
                let turns = rest.chunks(count).all(|round| round == first);
                if distinct.len() == count && turns {
                    Ok(())
                } else {
                    Err(format!("{rounds:?}"))
                }
            },
        );
    }
}

#[test]
fn ten_tasks_answer_in_turn_on_every_node() {
    let cluster = Cluster::new(3);
    let port = free_port();
    cluster.init(0);
    cluster.join(1, "worker");
    let joined = cluster.join(2, "manager");
    assert!(joined.stderr.contains("two managers"), "{}", joined.stderr);

    let nodes = cluster.ok(0, &["node", "ls"]).stdout;
    assert!(nodes.starts_with("ID "), "{nodes}");
    assert_eq!(nodes.lines().count(), 4, "{nodes}");

    let publish = format!("{port}:80");
    let created = cluster.ok(
        0,
        &[
            "service", "create", "--name", "ng", "-p", &publish, "whoami",
        ],
    );
    assert_eq!(created.stdout.trim().len(), 25, "{}", created.stdout);
    assert!(
        created.stderr.ends_with("verify: Service ng converged\n"),
        "{}",
        created.stderr
    );
    let scaled = cluster.ok(2, &["service", "scale", "ng=10"]);
    assert_eq!(scaled.stdout, "ng scaled to 10\n");
    assert!(
        scaled
            .stderr
            .contains("overall progress: 10 out of 10 tasks"),
        "{}",
        scaled.stderr
    );
    wait_for_turns(&cluster, port, 10);

    let list = cluster.ok(0, &["service", "ls"]).stdout;
    assert!(
        list.contains(&format!("10/10      whoami   *:{port}->80/tcp")),
        "{list}"
    );
    let tasks = cluster
        .ok(
            0,
            &["service", "ps", "-q", "-f", "desired-state=running", "ng"],
        )
        .stdout;
    assert_eq!(tasks.lines().count(), 10, "{tasks}");
    for host in ["host1", "host2", "host3"] {
        let line = ["node", "ps", "-q", "-f", "desired-state=running", host];
        let count = cluster.ok(0, &line).stdout.lines().count();
        assert!((3..=4).contains(&count), "{count} tasks on {host}");
    }
    let json = cluster.ok(0, &["service", "ls", "--format", "json"]).stdout;
    assert!(json.contains("\"Replicas\":\"10/10\""), "{json}");

    let page = cluster.page(0, "/healthz");
    assert!(page.starts_with("HTTP/1.0 200"), "{page}");
    let page = cluster.page(1, "/metrics");
    assert!(page.contains("swarmlet_lb_up 1\n"), "{page}");

    cluster.ok(0, &["service", "scale", "ng=3"]);
    wait_for_turns(&cluster, port, 3);
    let removed = cluster.ok(0, &["service", "rm", "ng"]);
    assert_eq!(removed.stdout, "ng\n");
    for node in 0..3 {
        wait_until("the port is free again", || cluster.bind(node, port));
    }
}

#[test]
fn mistakes_are_told_in_one_line() {
    let cluster = Cluster::new(2);
    let port = free_port();
    cluster.refused(
        0,
        &["service", "ls"],
        &format!(
            "Error: Cannot connect to the swarmlet daemon at unix://{}. Is the daemon running? (see `swarmlet doctor`)",
            cluster.socket(0).display()
        ),
    );
    cluster.init(0);
    cluster.refused(0, &["init"], "Error: This node is already part of a swarm. Use \"swarmlet leave\" to leave this swarm and join another one.");
    cluster.refused(0, &["leave"], "Error: You are attempting to leave the swarm on a node that is participating as a manager. Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message.");

    let publish = format!("{port}:80");
    cluster.ok(
        0,
        &[
            "service", "create", "--name", "ng", "-p", &publish, "whoami",
        ],
    );
    cluster.refused(
        0,
        &["service", "ps", "nope"],
        "Error: no such service: nope",
    );
    cluster.refused(
        0,
        &["service", "rm", "nope"],
        "Error: no such service: nope",
    );
    cluster.refused(0, &["node", "inspect", "nope"], "Error: no such node: nope");
    let taken = cluster.fails(0, 1, &["service", "create", "--name", "ng", "whoami"]);
    assert!(
        taken.contains("name conflicts with an existing object: service ng already exists"),
        "{taken}"
    );
    let taken = cluster.fails(
        0,
        1,
        &[
            "service", "create", "--name", "other", "-p", &publish, "whoami",
        ],
    );
    assert!(
        taken.contains(&format!("port '{port}' is already in use by service 'ng'")),
        "{taken}"
    );
    let malformed = cluster.fails(0, 2, &["service", "create", "-p", "80:x", "whoami"]);
    assert!(
        malformed.contains("invalid containerPort: x"),
        "{malformed}"
    );
    cluster.fails(0, 2, &["service", "create"]);
    let id = cluster.ok(0, &["node", "ls", "-q"]).stdout;
    let busy = cluster.fails(0, 1, &["node", "rm", id.trim()]);
    assert!(
        busy.contains("raft cluster") || busy.contains("is not down"),
        "{busy}"
    );

    let token = cluster.ok(0, &["join-token", "-q", "worker"]).stdout;
    let token = token.trim();
    let nowhere = format!("127.0.0.1:{}", free_port());
    let lost = cluster.fails(1, 1, &["join", "--token", token, &nowhere]);
    assert!(
        lost.contains(&format!("cannot reach a manager at {nowhere}")),
        "{lost}"
    );
    let wrong = token.replacen(&token[10..14], "0000", 1);
    let wrong = cluster.fails(1, 1, &["join", "--token", &wrong, &cluster.address(0)]);
    assert!(
        wrong.contains("does not match the digest in the join token"),
        "{wrong}"
    );
    let garbled = cluster.fails(
        1,
        1,
        &["join", "--token", "SWMTKN-1-x", &cluster.address(0)],
    );
    assert!(garbled.contains("token"), "{garbled}");
    let rotated = cluster.ok(0, &["join-token", "--rotate", "worker"]).stdout;
    assert!(
        rotated.starts_with("Successfully rotated worker join token."),
        "{rotated}"
    );
    let stale = cluster.fails(1, 1, &["join", "--token", token, &cluster.address(0)]);
    assert!(stale.contains("invalid join token"), "{stale}");

    cluster.join(1, "worker");
    cluster.refused(1, &["service", "ls"], "Error: This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager.");
}

#[test]
fn an_image_that_does_not_exist_is_seen_in_ps() {
    let cluster = Cluster::new(1);
    cluster.init(0);
    cluster.ok(
        0,
        &[
            "service",
            "create",
            "-d",
            "--name",
            "ghost",
            "/nowhere/ghost",
        ],
    );
    wait_until("the task is rejected with its reason", || {
        let tasks = cluster
            .ok(0, &["service", "ps", "--no-trunc", "ghost"])
            .stdout;
        if tasks.contains("Rejected") && tasks.contains("/nowhere/ghost") {
            Ok(())
        } else {
            Err(tasks)
        }
    });
}

#[test]
fn a_killed_daemon_comes_back_with_its_state() {
    let (cluster, port) = Cluster::serving_two();
    wait_for_turns(&cluster, port, 2);
    let before = cluster.ok(0, &["service", "ps", "-q", "ng"]).stdout;
    let balancer = cluster.pid(0, "lb.pid");
    cluster.kill_daemon(0);
    let name = cluster.ask(0, port);
    assert!(
        name.is_ok(),
        "the mesh goes on without the daemon: {name:?}"
    );
    cluster.refused(
        0,
        &["service", "ls"],
        &format!(
            "Error: Cannot connect to the swarmlet daemon at unix://{}. Is the daemon running? (see `swarmlet doctor`)",
            cluster.socket(0).display()
        ),
    );
    let daemon = cluster.start_daemon(0);
    wait_until("the daemon answers with its state", || {
        let output = cluster.run(0, &["service", "ps", "-q", "ng"]);
        if output.stdout == before {
            Ok(())
        } else {
            Err(format!("{output:?}"))
        }
    });
    assert_eq!(
        cluster.pid(0, "lb.pid"),
        balancer,
        "the balancer was adopted"
    );
    wait_for_turns(&cluster, port, 2);
    let second = cluster.run(0, &["daemon", "--socket", "/tmp/swarmlet-no-such-socket"]);
    assert_eq!(second.code, Some(1));
    assert!(
        second
            .stderr
            .contains("another daemon runs on the data directory"),
        "{}",
        second.stderr
    );
    drop(daemon);
}

#[test]
fn leaving_leaves_nothing_behind() {
    let cluster = Cluster::new(2);
    cluster.init(0);
    cluster.join(1, "worker");
    cluster.ok(
        0,
        &[
            "service",
            "create",
            "--name",
            "ng",
            "--replicas=4",
            "-p",
            &format!("{}:80", free_port()),
            "whoami",
        ],
    );
    for node in [1, 0] {
        assert!(!cluster.processes(node).is_empty());
        if node == 0 {
            // Not by its silence, which would be told as such.
            wait_until("the other has left", || {
                let node = cluster.ok(0, &["node", "inspect", "host2"]).stdout;
                let node: serde_json::Value = serde_json::from_str(&node).unwrap();
                match &node[0]["Status"] {
                    status if status["State"] == "ready" => Err(status.to_string()),
                    status => {
                        assert_eq!(status["State"], "down");
                        assert_eq!(status["Message"], "it has left the swarm");
                        Ok(())
                    }
                }
            });
        }
        let left = cluster.ok(node, &["leave", "--force"]);
        assert_eq!(left.stdout, "Node left the swarm.\n");
        wait_until("no process is left", || match cluster.processes(node) {
            left if left.is_empty() => Ok(()),
            left => Err(format!("{left:?}")),
        });
        assert!(!cluster.data(node).exists(), "the data directory is gone");
        assert!(!cluster.socket(node).exists(), "the socket is gone");
    }
}

#[test]
fn a_killed_balancer_is_replaced() {
    let (cluster, port) = Cluster::serving_two();
    wait_for_turns(&cluster, port, 2);
    let killed = cluster.pid(0, "lb.pid");
    cluster.kill(killed);
    wait_until("another balancer has come up", || {
        match cluster.pid(0, "lb.pid") {
            same if same == killed => Err("lb.pid still names the old one".to_owned()),
            _ => Ok(()),
        }
    });
    wait_for_turns(&cluster, port, 2);
    wait_until("the health page says so", || {
        let page = cluster.page(0, "/healthz");
        if page.starts_with("HTTP/1.0 200") {
            Ok(())
        } else {
            Err(page)
        }
    });
}
