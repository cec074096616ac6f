//! Balancers that die, are restarted and are upgraded under clients that come and go as fast as
//! they can, on a loopback node and by themselves.

// Helpers of tests are no tests by clippy's rules; a panic here is a failed test all the same.
#![allow(clippy::unwrap_used)]

// Shared with the other loopback tests, which use the rest of it.
#[allow(dead_code)]
#[path = "loopback/cluster.rs"]
mod cluster;
#[path = "handover/load.rs"]
mod load;
#[path = "handover/settings.rs"]
mod settings;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cluster::{Cluster, free_port, wait_until};
use load::Load;

/// A node with a service that answers on a port.
fn node_with_service() -> (Cluster, SocketAddr) {
    let (cluster, port) = Cluster::serving_two();
    (cluster, SocketAddr::from((Cluster::ip(0), port)))
}

fn generations(cluster: &Cluster) -> Vec<serde_json::Value> {
    let output = cluster.ok(0, &["lb", "status", "--format", "json"]);
    let lines = output.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Sends a request over a connection that was opened earlier.
fn finish(mut stream: TcpStream) -> std::io::Result<String> {
    write!(stream, "GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn a_killed_balancer_refuses_nobody_and_accepts_within_500_ms() {
    const CLIENTS: usize = 4;
    const KILLS: usize = 5;
    let (cluster, target) = node_with_service();
    let load = Load::start(target, CLIENTS);
    for round in 0..KILLS {
        load.wait_for_more(200);
        let before = cluster.pid(0, "lb.pid");
        cluster.kill(before);
        let killed = Instant::now();
        // A connection that begins now waits for the next balancer.
        let answer = TcpStream::connect(target).and_then(finish).unwrap();
        let took = killed.elapsed();
        assert!(answer.contains("200 OK"), "{answer}");
        eprintln!("round {round}: answered {took:.1?} after the kill");
        assert!(took < Duration::from_millis(500), "{took:?}");
        wait_until("the new one is known", || match cluster.pid(0, "lb.pid") {
            same if same == before => Err(same.to_string()),
            _ => Ok(()),
        });
    }
    let report = load.stop();
    eprintln!("{report:?}");
    assert_eq!(report.not_connected, [] as [String; 0]);
    // Those that the killed process had, and no more.
    assert!(report.broken.len() <= CLIENTS * KILLS, "{report:?}");
}

#[test]
fn a_restarted_balancer_keeps_its_connections_and_refuses_nobody() {
    let (cluster, target) = node_with_service();
    let early = TcpStream::connect(target).unwrap();
    let first = cluster.pid(0, "lb.pid");
    wait_until("it is forwarded", || {
        match &generations(&cluster)[0]["listeners"][0]["traffic"]["active"] {
            active if active == 1 => Ok(()),
            other => Err(other.to_string()),
        }
    });
    let load = Load::start(target, 4);
    for _ in 0..20 {
        load.wait_for_more(50);
        cluster.ok(0, &["lb", "restart"]);
    }
    let report = load.stop();
    eprintln!("20 restarts: {report:?}");
    report.assert_flawless();
    assert_ne!(cluster.pid(0, "lb.pid"), first);

    // Of the twenty that were replaced only the one with a connection is there.
    let retired = |cluster: &Cluster| {
        let all = generations(cluster);
        let retired = all[1..].iter();
        retired
            .map(|one| (one["pid"].as_i64().unwrap(), one["shutting_down"] == true))
            .collect::<Vec<_>>()
    };
    let only_first = vec![(i64::from(first), true)];
    let check = |cluster: &Cluster, expected: &Vec<(i64, bool)>| match retired(cluster) {
        found if found == *expected => Ok(()),
        found => Err(format!("{found:?}")),
    };
    wait_until("the others have ended", || check(&cluster, &only_first));
    let text = cluster.ok(0, &["lb", "status"]).stdout;
    let line = format!("Process {first} (version ");
    assert!(
        text.contains(&line) && text.contains("finishes its connections: 1 open"),
        "{text}"
    );

    // A daemon that comes back knows both.
    let current = cluster.pid(0, "lb.pid");
    cluster.kill_daemon(0);
    let daemon = cluster.start_daemon(0);
    wait_until("the daemon answers", || {
        match cluster.run(0, &["lb", "status"]) {
            output if output.code == Some(0) => Ok(()),
            output => Err(output.stderr),
        }
    });
    assert_eq!(cluster.pid(0, "lb.pid"), current);
    wait_until("it has found both", || check(&cluster, &only_first));

    let answer = finish(early).unwrap();
    assert!(answer.contains("200 OK"), "{answer}");
    wait_until("the first one ends with its connection", || {
        check(&cluster, &Vec::new())
    });
    let aside: Vec<_> = std::fs::read_dir(cluster.data(0))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("lb.sock."))
        .collect();
    assert_eq!(aside.len(), 0, "{aside:?}");
    drop(daemon);
}

#[test]
fn a_daemon_of_another_program_brings_its_own_balancer() {
    let (cluster, target) = node_with_service();
    let before = cluster.pid(0, "lb.pid");
    let upgraded = cluster.data(0).join("swarmlet-upgraded");
    std::fs::copy(env!("CARGO_BIN_EXE_swarmlet"), &upgraded).unwrap();
    let load = Load::start(target, 4);
    load.wait_for_more(100);
    cluster.kill_daemon(0);
    let daemon = cluster.start_daemon_of(&upgraded, 0);
    wait_until("another balancer is at work", || {
        match cluster.pid(0, "lb.pid") {
            same if same == before => Err(same.to_string()),
            _ => Ok(()),
        }
    });
    let after = cluster.pid(0, "lb.pid");
    let program = std::fs::read_link(format!("/proc/{after}/exe")).unwrap();
    assert_eq!(program, upgraded);
    load.wait_for_more(100);
    let report = load.stop();
    eprintln!("upgrade: {report:?}");
    report.assert_flawless();
    drop(daemon);
}

#[test]
fn a_balancer_that_is_told_to_end_is_replaced_before_it_does() {
    let (cluster, target) = node_with_service();
    let early = TcpStream::connect(target).unwrap();
    let first = cluster.pid(0, "lb.pid");
    let load = Load::start(target, 2);
    load.wait_for_more(50);
    cluster.signal(first, rustix::process::Signal::TERM);
    wait_until("another one is at work", || {
        match cluster.pid(0, "lb.pid") {
            same if same == first => Err(same.to_string()),
            _ => Ok(()),
        }
    });
    load.wait_for_more(50);
    let report = load.stop();
    report.assert_flawless();
    let answer = finish(early).unwrap();
    assert!(answer.contains("200 OK"), "{answer}");
}

/// A balancer that ends with its test.
struct Balancer(Child);

impl Balancer {
    fn start(file: &Path, more: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_swarmlet"));
        command.args(["lb", "--config"]).arg(file).args(more);
        Self(command.stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// As many as an optimised build has to take on new ones while it is replaced.
const RATE: f64 = 5_000.0;

#[test]
fn twenty_balancers_by_themselves_follow_each_other() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = server.local_addr().unwrap();
    for _ in 0..2 {
        let server = server.try_clone().unwrap();
        std::thread::spawn(move || {
            for client in server.incoming() {
                let mut client = client.unwrap();
                // What is unread when it is closed would make a reset of the end. A probe or
                // a client that has gone is none of this test's affairs.
                let _ = client.read(&mut [0; 256]);
                let _ = client.write_all(b"HTTP/1.0 200 OK\r\n\r\n");
            }
        });
    }
    let target = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lb.toml");
    let text = format!(
        "ingress = [\"127.0.0.1\"]\ncontrol = \"{}/lb.sock\"\n[[listeners]]\nport = {}\n\
         [[listeners.endpoints]]\naddress = \"{endpoint}\"\n",
        dir.path().display(),
        target.port()
    );
    std::fs::write(&file, text).unwrap();
    // The very first finds none to take over from.
    let mut balancer = Balancer::start(&file, &["--takeover"]);
    wait_until("it listens", || {
        TcpStream::connect(target)
            .map(drop)
            .map_err(|error| error.to_string())
    });
    let load = Load::start(target, 8);
    for _ in 0..20 {
        load.wait_for_more(1_000);
        let next = Balancer::start(&file, &["--takeover"]);
        let mut old = std::mem::replace(&mut balancer, next);
        wait_until("the old one ends by itself", || {
            match old.0.try_wait().unwrap() {
                Some(status) if status.success() => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }
    let report = load.stop();
    eprintln!("20 balancers: {report:?}");
    report.assert_flawless();
    if !cfg!(debug_assertions) {
        assert!(report.rate() >= RATE, "{report:?}");
    }
}
