//! Limits and the access log of a node's balancer, which its daemon brings.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::{Cluster, finish, generations, wait_until};

/// The settings that the balancer says it works by.
fn settings(cluster: &Cluster) -> serde_json::Value {
    generations(cluster)[0]["settings"].clone()
}

/// Whether a connection that sends nothing is ended by the other side at once.
fn is_turned_away(target: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(target) else {
        return true;
    };
    let end = stream
        .write_all(b"GET / HTTP/1.0\r\n\r\n")
        .and_then(|()| stream.read(&mut [0; 16]));
    !matches!(end, Ok(1..))
}

/// Waits until so many connections are forwarded.
fn wait_for_active(cluster: &Cluster, count: u64) {
    wait_until("they are forwarded", || {
        match &generations(cluster)[0]["listeners"][0]["traffic"]["active"] {
            active if *active == count => Ok(()),
            other => Err(other.to_string()),
        }
    });
}

#[test]
fn a_restarted_daemon_brings_new_settings_to_the_balancer_that_runs() {
    let (cluster, target) = super::node_with_service();
    let text = cluster.ok(0, &["lb", "status"]).stdout;
    assert!(
        text.contains("; for each source no limit\nAccess log: none\n"),
        "{text}"
    );
    let early = TcpStream::connect(target).unwrap();
    wait_for_active(&cluster, 1);
    let balancer = cluster.pid(0, "lb.pid");
    let log = cluster.data(0).join("access.log");

    cluster.kill_daemon(0);
    let daemon = cluster.start_daemon_with(
        0,
        &[
            ("SWARMLET_LB_MAX_CONNECTIONS", "500"),
            ("SWARMLET_LB_MAX_BUFFERED", "1m"),
            ("SWARMLET_LB_MAX_CONNECTIONS_PER_SOURCE", "1"),
            ("SWARMLET_LB_ACCESS_LOG", log.to_str().unwrap()),
            ("SWARMLET_LB_ACCESS_LOG_FORMAT", "json"),
        ],
    );
    let expected = serde_json::json!({
        "max_connections": 500,
        "max_buffered": 1 << 20,
        "per_source": { "connections": 1, "rate": null },
        "access_log": { "path": log, "format": "json", "error": null },
    });
    let in_force = |expected: &serde_json::Value| {
        match cluster.run(0, &["lb", "status"]) {
            output if output.code == Some(0) => {}
            output => return Err(output.stderr),
        }
        match settings(&cluster) {
            found if found == *expected => Ok(()),
            found => Err(found.to_string()),
        }
    };
    wait_until("they are in force", || in_force(&expected));
    assert_eq!(cluster.pid(0, "lb.pid"), balancer, "it is the same process");

    // One connection of a client, and no second one beside it.
    let held = TcpStream::connect(target).unwrap();
    wait_for_active(&cluster, 2);
    wait_until("a second one is turned away", || {
        match is_turned_away(target) {
            true => Ok(()),
            false => Err("it was answered".to_owned()),
        }
    });
    let text = cluster.ok(0, &["lb", "status"]).stdout;
    assert!(
        text.contains(" refused, 0 shed\nLimits: 500 connections, 1.0MB buffered ("),
        "{text}"
    );
    assert!(text.contains("for each source 1 connections\n"), "{text}");
    let page = cluster.page(0, "/metrics");
    let refused = page
        .lines()
        .filter(|line| line.starts_with("swarmlet_lb_refused_total{"))
        .find(|line| !line.ends_with(" 0"));
    assert!(refused.is_some(), "{page}");
    assert!(finish(held).unwrap().contains("200 OK"));
    wait_until("the log names it", || match std::fs::read_to_string(&log) {
        Ok(text) if text.contains("\"end\":\"closed\"") && text.contains("\"end\":\"refused\"") => {
            Ok(())
        }
        other => Err(format!("{other:?}")),
    });

    // A successor works by them as well, and the connection of before the limits goes on.
    cluster.ok(0, &["lb", "restart"]);
    assert_ne!(cluster.pid(0, "lb.pid"), balancer);
    wait_until("they are in force in the next one", || in_force(&expected));
    drop(daemon);
    assert!(finish(early).unwrap().contains("200 OK"));

    // What a daemon is not told stays, and "default" takes it back.
    let daemon = cluster.start_daemon_with(0, &[("SWARMLET_LB_ACCESS_LOG", "default")]);
    let mut without = expected;
    without["access_log"] = serde_json::Value::Null;
    wait_until("the log is taken back", || in_force(&without));
    drop(daemon);
}
