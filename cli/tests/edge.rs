//! What a service says of its balancer reaches the balancer, on loopback clusters.

// Helpers of tests are no tests by clippy's rules; a panic here is a failed test all the same.
#![allow(clippy::unwrap_used)]

// Shared with the other loopback tests, which use the rest of it.
#[allow(dead_code)]
#[path = "loopback/cluster.rs"]
mod cluster;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use cluster::{Cluster, free_port, wait_until};

/// A server that answers with the first line that it receives.
const FIRST_LINE: &str = "$s = IO::Socket::INET->new(LocalPort => $ENV{PORT}, Listen => 9, \
    ReuseAddr => 1) or die; while ($c = $s->accept) { undef $first; while (<$c>) { $first //= $_; \
    last if /^\\r?$/ } print $c \"HTTP/1.0 200 OK\\r\\n\\r\\n$first\"; close $c }";

/// Which tasks answer so many requests through a node, and how many each.
fn turns(cluster: &Cluster, node: usize, port: u16, requests: usize) -> BTreeMap<String, usize> {
    let mut turns = BTreeMap::new();
    for _ in 0..requests {
        *turns.entry(cluster.ask(node, port).unwrap()).or_insert(0) += 1;
    }
    turns
}

fn wait_for_turns(cluster: &Cluster, node: usize, port: u16, expected: &[usize]) {
    let requests = expected.iter().sum();
    wait_until(&format!("turns of {expected:?}"), || {
        let found = turns(cluster, node, port, requests);
        if found.values().copied().eq(expected.iter().copied()) {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    });
}

/// What comes back for these bytes.
fn exchange(port: u16, said: &str) -> String {
    let mut stream = TcpStream::connect((Cluster::ip(0), port)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream.write_all(said.as_bytes()).unwrap();
    let mut answer = String::new();
    // A connection that is reset has answered nothing.
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn a_services_policy_is_its_balancers() {
    let cluster = Cluster::with_workers(1);
    let port = free_port();
    let publish = format!("{port}:80");
    let line = ["service", "create", "--name=ng", "--replicas=4"];
    let hashed = ["--lb-policy=source-hash", "-p", &publish, "whoami"];
    cluster.ok(0, &[&line[..], &hashed].concat());
    wait_for_turns(&cluster, 0, port, &[12]);
    wait_for_turns(&cluster, 1, port, &[12]);
    let chosen = [0, 1].map(|node| turns(&cluster, node, port, 3));
    assert_eq!(chosen[0], chosen[1], "the same one on every node");

    cluster.ok(0, &["service", "update", "--lb-policy=round-robin", "ng"]);
    wait_for_turns(&cluster, 0, port, &[3, 3, 3, 3]);
    // Two of the four are the node's own.
    cluster.ok(0, &["service", "update", "--lb-prefer-local", "ng"]);
    for node in [0, 1] {
        wait_for_turns(&cluster, node, port, &[6, 6]);
    }
    cluster.ok(
        0,
        &[
            "service",
            "update",
            "--lb-prefer-local=false",
            "--lb-policy=least-conn",
            "ng",
        ],
    );
    wait_until("all four get connections", || {
        let found = turns(&cluster, 0, port, 40);
        if found.len() == 4 {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    });
}

#[test]
fn a_port_says_and_hears_whose_connection_it_is() {
    let cluster = Cluster::with_workers(0);
    let (telling, trusting) = (free_port(), free_port());
    let tells = format!("{telling}:80,proxy-protocol=v1");
    let trusts = format!("{trusting}:80,proxy-protocol=v1,accept-proxy=127.0.0.0/8");
    for (name, publish) in [("tells", &tells), ("trusts", &trusts)] {
        let name = format!("--name={name}");
        let line = ["service", "create", &name, "-p", publish];
        let server = ["/usr/bin/perl", "-MIO::Socket::INET", "-e", FIRST_LINE];
        cluster.ok(0, &[&line[..], &server].concat());
    }
    let request = "GET / HTTP/1.0\r\n\r\n";
    let ip = Cluster::ip(0);
    wait_until("the task is told whose connection it is", || {
        let answer = exchange(telling, request);
        let told =
            answer.contains("PROXY TCP4 127.0.0.") && answer.contains(&format!(" {telling}\r"));
        if told { Ok(()) } else { Err(answer) }
    });
    let header = format!("PROXY TCP4 192.0.2.7 {ip} 4711 443\r\n");
    wait_until("the client is believed", || {
        let answer = exchange(trusting, &(header.clone() + request));
        if answer.contains(header.trim_end()) {
            Ok(())
        } else {
            Err(answer)
        }
    });
    assert_eq!(
        exchange(trusting, request),
        "",
        "who says nothing is no client"
    );
}
