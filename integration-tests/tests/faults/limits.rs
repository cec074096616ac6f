//! Many connections: short ones one after the other, and idle ones all at once.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use swarmlet_integration_tests::measured::{at_most, noted, within};

use crate::{
    cluster::{Cluster, at},
    history::all_ready,
};

/// Short connections through one endpoint: more than a host has ports for connections out.
const SHORT: usize = 40_000;

/// What the kernel has ports for, from one address to one other, until the first is free again.
const PORTS: usize = 28_232;

/// How long a closed connection keeps its port.
const TIME_WAIT: Duration = Duration::from_secs(60);

/// Idle connections to each host.
const IDLE: usize = 5_000;

/// Threads that open and use connections.
const THREADS: usize = 16;

/// A connection on which one request after the other is sent.
fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&target, Duration::from_secs(10))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends a request and reads its answer to the end; the connection stays open.
fn exchange(stream: &mut TcpStream) -> io::Result<()> {
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
            return Ok(());
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

#[test]
fn short_connections_that_clients_close_do_not_use_up_the_ports() {
    let cluster = Cluster::start(1).unwrap();
    let constraint = format!("node.hostname=={}", cluster.hosts[1].name());
    cluster
        .create(&[
            "--name",
            "one",
            "--constraint",
            &constraint,
            "-p",
            "80:80",
            "whoami",
        ])
        .unwrap();
    cluster.all_answer(80).unwrap();
    // Through another host's balancer, so that every connection goes on to the same address.
    let target = at(&cluster.hosts[0], 80);
    let started = Instant::now();
    let (_, failed) = many(&cluster, SHORT, move |_| {
        let mut stream = connect(target)?;
        exchange(&mut stream)?;
        stream.shutdown(Shutdown::Both)
    });
    let took = started.elapsed();
    let waiting = cluster.hosts[0]
        .run("ss", &["-Htan", "state", "time-wait"])
        .unwrap()
        .success()
        .unwrap();
    noted(
        "connections a second, a client and three hosts on this machine",
        &format!("{:.0}", SHORT as f64 / took.as_secs_f64()),
    );
    noted(
        "connections that wait out their minute then",
        &waiting.lines().count().to_string(),
    );
    let longest = TIME_WAIT.mul_f64(SHORT as f64 / PORTS as f64);
    assert!(took < longest, "{took:?}: too slow to use up the ports");
    eprintln!("{:?}", &failed[..failed.len().min(5)]);
    at_most("of 40,000 connections failed", failed.len() as u64, 0);
    cluster
        .swarmlet(&[
            "service",
            "update",
            "--detach",
            "--constraint-rm",
            &constraint,
            "one",
        ])
        .unwrap();
    let moment = Instant::now();
    cluster.swarmlet(&["service", "scale", "one=6"]).unwrap();
    within(
        "new containers start afterwards",
        moment.elapsed(),
        Duration::from_secs(20),
    );
    assert_eq!(cluster.all_answer(80).unwrap().len(), 6);
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

    let cluster = Cluster::start(3).unwrap();
    cluster
        .create(&["--name", "ng", "--replicas", "6", "-p", "80:80", "whoami"])
        .unwrap();
    cluster.all_answer(80).unwrap();
    let targets = cluster.targets(80);
    let (open, failed) = many(&cluster, 3 * IDLE, move |number| {
        let mut stream = connect(targets[number % 3])?;
        exchange(&mut stream).map(|()| stream)
    });
    assert_eq!(failed, Vec::<String>::new(), "{} opened", open.len());

    cluster.swarmlet(&["service", "scale", "ng=9"]).unwrap();
    let leader = cluster.leader(&cluster.hosts[0]).unwrap();
    let killed = &cluster.hosts[leader];
    cluster.kill_daemon(killed).unwrap();
    thread::sleep(Duration::from_secs(5));
    cluster.start_daemon(killed).unwrap();
    all_ready(&cluster).unwrap();

    let open = Arc::new(open.into_iter().map(Mutex::new).collect::<Vec<_>>());
    let kept = open.clone();
    let (answered, failed) = many(&cluster, open.len(), move |number| {
        let mut stream = kept[number].lock().unwrap_or_else(PoisonError::into_inner);
        exchange(&mut stream)
    });
    noted("connections kept over both", &answered.len().to_string());
    eprintln!("{:?}", &failed[..failed.len().min(5)]);
    at_most("of 15,000 idle connections lost", failed.len() as u64, 0);
}
