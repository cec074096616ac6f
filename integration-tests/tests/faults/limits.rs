//! Many connections: short ones one after the other, and idle ones all at once.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;
use swarmlet_integration_tests::{
    Image, Namespace,
    measured::{aimed, at_most, noted, within},
    sibling_binary, wait_until,
};

use crate::{
    cluster::{Cluster, LATER, at},
    history::all_ready,
};

/// Short connections through one endpoint: more than a host has ports for connections out.
const SHORT: u64 = 40_000;

/// They come in bursts that take so long.
const WINDOW: Duration = Duration::from_secs(2);

/// So many of them in a second: as fast as the prototype's busiest user.
const RATE: f64 = 10_000.0;

/// What the kernel has ports for, from one address to one other, until the first is free again.
const PORTS: u64 = 28_232;

/// How long a closed connection keeps its port.
const TIME_WAIT: Duration = Duration::from_secs(60);

/// Idle connections to each host.
const IDLE: usize = 5_000;

/// Threads that open and use connections.
const THREADS: usize = 16;

/// A connection on which one request after the other is sent.
pub(crate) fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&target, Duration::from_secs(10))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends a request and reads its answer to the end; the connection stays open.
pub(crate) fn exchange(stream: &mut TcpStream) -> io::Result<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: whoami\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    loop {
        let length = stream.read(&mut part)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&part[..length]);
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        if !head.starts_with("HTTP/1.1 200") {
            return Err(io::Error::other(head.to_owned()));
        }
        let lines = head.lines().filter_map(|line| line.split_once(':'));
        let expected = lines
            .filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .find_map(|(_, value)| value.trim().parse::<usize>().ok())
            .ok_or_else(|| io::Error::other("no content-length"))?;
        if body.len() >= expected {
            return Ok(body.to_owned());
        }
    }
}

/// Does `work` so often from several threads in the client's network; what failed.
fn many<T: Send + 'static>(
    cluster: &Cluster,
    times: usize,
    work: impl Fn(usize) -> io::Result<T> + Send + Sync + 'static,
) -> (Vec<T>, Vec<String>) {
    let (next, work) = (Arc::new(AtomicUsize::new(0)), Arc::new(work));
    let results = Arc::new(Mutex::new((Vec::new(), Vec::new())));
    let workers: Vec<_> = (0..THREADS)
        .map(|_| {
            let (next, work, results) = (next.clone(), work.clone(), results.clone());
            let client = cluster.hosts.client();
            let worker = client.thread(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= times {
                        return;
                    }
                    let outcome = work(number);
                    let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                    match outcome {
                        Ok(done) => results.0.push(done),
                        Err(error) => results.1.push(format!("{number}: {error}")),
                    }
                }
            });
            worker.unwrap()
        })
        .collect();
    for worker in workers {
        worker.join().unwrap().unwrap();
    }
    let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
    std::mem::take(&mut *results)
}

/// Opens connections for some seconds as fast as they are served, each with one request and its
/// answer, after which the client closes; how many were served, and what failed.
fn short(client: &Namespace, target: SocketAddr) -> Result<(u64, Value)> {
    let target = target.to_string();
    let words = ["short", "--client-closes", "--target", &target];
    let amount = ["--connections", "32", "--warm-up-ms", "0"];
    let program = sibling_binary("bench-traffic")?;
    let milliseconds = WINDOW.as_millis().to_string();
    let window = ["--window-ms", &milliseconds];
    let printed = client
        .run(
            &program.to_string_lossy(),
            &[&words[..], &amount, &window].concat(),
        )?
        .success()?;
    let report: Value = serde_json::from_str(&printed)?;
    let done = report["done"].as_u64().context("no number of requests")?;
    Ok((done, report["failed"].clone()))
}

#[test]
fn short_connections_that_clients_close_do_not_use_up_the_ports() {
    let cluster = Cluster::start(1).unwrap();
    let (balancer, server) = (&cluster.hosts[0], &cluster.hosts[1]);
    // The least that a server can do, so that what is measured is the way to it.
    let words = ["backend", "--forever", "--port", "80", "--ports", "1"];
    let binary = sibling_binary("bench-traffic").unwrap();
    server
        .import(&Image::new("short", &binary, &words))
        .unwrap();
    let constraint = format!("node.hostname=={}", server.name());
    let service = ["--name", "one", "--constraint", &constraint];
    cluster
        .create(&[&service[..], &["-p", "80:80", "short"]].concat())
        .unwrap();
    // Through another host's balancer, so that every connection goes on to the same address.
    let (client, target) = (cluster.hosts.client(), at(balancer, 80));
    let directly = balancer.endpoint().unwrap().expect("the task runs");
    // What all of this rests on; the daemon sets it.
    let reuse = balancer.run("cat", &["/proc/sys/net/ipv4/tcp_tw_reuse"]);
    let reuse = reuse.unwrap().success().unwrap();
    assert_eq!(reuse.trim(), "1", "net.ipv4.tcp_tw_reuse");
    let started = Instant::now();
    let longest = TIME_WAIT.mul_f64(SHORT as f64 / PORTS as f64);
    let (mut all, mut windows, mut failed) = (0, 0, 0);
    let (mut in_time, mut without) = (0, 0);
    while all < SHORT {
        let (done, failures) = short(client, target).unwrap();
        let failures = failures.as_object().unwrap();
        eprintln!("{done} connections, failed: {failures:?}");
        failed += failures.values().filter_map(Value::as_u64).sum::<u64>();
        (all, windows) = (all + done, windows + 1);
        let took = started.elapsed();
        if took < TIME_WAIT {
            in_time = all;
        }
        without += short(client, directly).unwrap().0;
        assert!(
            took < longest,
            "{all} after {took:?}: too slow to use up the ports"
        );
    }
    let waiting = balancer.run("ss", &["-Htan", "state", "time-wait"]);
    let waiting = waiting.unwrap().success().unwrap().lines().count();
    let a_second = |count: u64| count as f64 / (f64::from(windows) * WINDOW.as_secs_f64());
    aimed(
        "connections a second, with client, balancer and server on this machine",
        a_second(all),
        RATE,
    );
    // All that this machine can carry: what a balancer could at most come near to.
    noted(
        "the same to the container's own port, with no balancer between",
        &format!("{:.0}", a_second(without)),
    );
    aimed(
        "connections before the first one's port is free again",
        in_time as f64,
        (PORTS + 1) as f64,
    );
    noted(
        "connections that wait out their minute then",
        &waiting.to_string(),
    );
    at_most("of 40,000 connections or more failed", failed, 0);

    // Engines still find ports for containers, on the balancer's host, too.
    let moment = Instant::now();
    cluster
        .create(&["--name", "ng", "--replicas", "6", "-p", "81:80", "whoami"])
        .unwrap();
    within(
        "new containers start afterwards",
        moment.elapsed(),
        Duration::from_secs(20),
    );
    let report = cluster.ask(balancer, 81, 60).unwrap();
    assert_eq!(
        (report.failed(), report.answers.len()),
        (0, 6),
        "{}",
        report.to_json()
    );
}

#[test]
fn five_thousand_idle_connections_to_each_host_survive_a_scale_and_a_leader_change() {
    let limit = getrlimit(Resource::Nofile);
    let needed = (3 * IDLE + 500) as u64;
    assert!(
        limit.maximum.is_none_or(|maximum| maximum >= needed),
        "this test needs {needed} open files: ulimit -Hn {needed}"
    );
    let raised = Rlimit {
        current: limit.maximum.or(Some(needed)),
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();

    let cluster = Cluster::serving(3, 6).unwrap();
    cluster.all_answer(80).unwrap();
    let targets = cluster.targets(80);
    let (open, failed) = many(&cluster, 3 * IDLE, move |number| {
        let mut stream = connect(targets[number % 3])?;
        exchange(&mut stream).map(|_| stream)
    });
    assert_eq!(failed, Vec::<String>::new(), "{} opened", open.len());

    cluster.swarmlet(&["service", "scale", "ng=9"]).unwrap();
    let leader = cluster.leader(&cluster.hosts[0]).unwrap();
    let killed = &cluster.hosts[leader];
    cluster.kill_daemon(killed).unwrap();
    let other = &cluster.hosts[(leader + 1) % 3];
    let next = wait_until(LATER, "another leader", || {
        let next = cluster.leader(other)?;
        Ok((next != leader).then_some(next))
    });
    eprintln!("{leader} led, then {}", next.unwrap());
    thread::sleep(Duration::from_secs(5));
    cluster.start_daemon(killed).unwrap();
    all_ready(&cluster).unwrap();

    let open = Arc::new(open.into_iter().map(Mutex::new).collect::<Vec<_>>());
    let kept = open.clone();
    let (answered, failed) = many(&cluster, open.len(), move |number| {
        let mut stream = kept[number].lock().unwrap_or_else(PoisonError::into_inner);
        exchange(&mut stream).map(drop)
    });
    noted("connections kept over both", &answered.len().to_string());
    eprintln!("{:?}", &failed[..failed.len().min(5)]);
    at_most("of 15,000 idle connections lost", failed.len() as u64, 0);
}
