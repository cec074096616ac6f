//! A closed port, a full disk, a silent engine and the like explain themselves: within 5 s they
//! are named where people look, with what to do, and they are gone as soon once they are solved.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use swarmlet_integration_tests::{Host, Pid, Signal, wait_until};

use crate::{
    cluster::{Cluster, LATER, SOON, at},
    probe::{load, no_errors, within},
};

/// Where the node's own pages are.
const PAGES: u16 = 2378;

/// The range of ports for tasks.
const TASKS: &str = "20000-29999";

/// How soon a problem is to be named, and gone.
const BOUND: Duration = Duration::from_secs(5);

/// Longest wait for what is not named at all.
const GIVE_UP: Duration = Duration::from_secs(30);

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// Drops what begins a TCP connection to `ports` of a host from another one. As where a security
/// group is closed, connections that are there go on.
pub(crate) fn close(host: &Host, from: &Host, ports: &str) -> Result<()> {
    let chain = format!("closed_{}", from.name());
    let rules = format!(
        "add table ip swarmlet_faults; \
         add chain ip swarmlet_faults {chain} {{ type filter hook prerouting priority -300; }}; \
         add rule ip swarmlet_faults {chain} ip saddr {} tcp dport {ports} \
         tcp flags & (syn | ack) == syn drop",
        from.address()
    );
    host.run("nft", &[&rules])?.success().map(drop)
}

/// The text of the health page, with its status line.
fn page(address: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}

/// One place where people look.
struct Place<'a> {
    name: String,
    look: Box<dyn Fn() -> Result<String> + Send + Sync + 'a>,
}

/// `node ls` on the first host, doctor and log of the host that has the problem, and its health
/// page as a load balancer in front sees it.
fn places<'a>(cluster: &'a Cluster, host: &'a Host) -> Vec<Place<'a>> {
    let first = &cluster.hosts[0];
    let address = at(host, PAGES);
    let place = |name: String, look: Box<dyn Fn() -> Result<String> + Send + Sync + 'a>| Place {
        name,
        look,
    };
    vec![
        place(
            "node ls".to_owned(),
            Box::new(move || Ok(first.swarmlet(&["node", "ls"])?.stderr)),
        ),
        place(
            format!("swarmlet doctor on {}", host.name()),
            Box::new(move || Ok(host.swarmlet(&["doctor"])?.stdout)),
        ),
        place(
            format!("health page of {}", host.name()),
            Box::new(move || {
                let (sender, found) = mpsc::channel();
                cluster.hosts.client().thread(move || {
                    // Whoever has given up does not listen any more.
                    let _ = sender.send(page(address));
                })?;
                found.recv()?
            }),
        ),
    ]
}

/// The daemon's log from a byte on.
fn log_of(host: &Host, from: usize) -> Result<String> {
    let text = fs::read_to_string(host.data_directory().join("daemon.log"))?;
    Ok(text.get(from..).unwrap_or_default().to_owned())
}

/// How long each place takes until its text satisfies `wanted`, all of them at the same time.
fn all_within(
    what: &str,
    places: &[Place<'_>],
    start: Instant,
    wanted: impl Fn(&str) -> bool + Send + Sync,
) {
    let wanted = &wanted;
    let found: Vec<(String, Result<Duration>)> = thread::scope(|scope| {
        let looks: Vec<_> = places
            .iter()
            .map(|place| {
                let look = move || {
                    let mut last = String::new();
                    while start.elapsed() < GIVE_UP {
                        last = (place.look)()?;
                        if wanted(&last) {
                            return Ok(start.elapsed());
                        }
                        thread::sleep(LOOK);
                    }
                    bail!("not within {GIVE_UP:?}:\n{last}")
                };
                (place.name.clone(), scope.spawn(look))
            })
            .collect();
        let join = |(name, look): (String, thread::ScopedJoinHandle<'_, Result<Duration>>)| {
            (name, look.join().unwrap())
        };
        looks.into_iter().map(join).collect()
    });
    for (name, took) in found {
        let took = took.unwrap_or_else(|error| panic!("{what}, {name}: {error:#}"));
        within(&format!("{what}, {name}"), took, BOUND);
    }
}

/// Waits until no place knows of any problem.
fn quiet(cluster: &Cluster) {
    wait_until(LATER, "a cluster without problems", || {
        let said = cluster.hosts[0].swarmlet(&["node", "ls"])?.stderr;
        if said.contains("WARNING") {
            bail!("{said}");
        }
        Ok(Some(()))
    })
    .unwrap();
}

/// Breaks something, measures until it is named everywhere, mends it, and measures until it is
/// named nowhere.
pub(crate) fn explained(
    cluster: &Cluster,
    what: &str,
    host: &Host,
    words: &[&str],
    break_it: impl FnOnce() -> Result<()>,
    mend_it: impl FnOnce() -> Result<()>,
) {
    quiet(cluster);
    let from = log_of(host, 0).unwrap().len();
    let mut places = places(cluster, host);
    let names = |text: &str| words.iter().all(|word| text.contains(word));
    break_it().unwrap();
    let start = Instant::now();
    places.push(Place {
        name: format!("log of {}", host.name()),
        look: Box::new(move || log_of(host, from)),
    });
    all_within(&format!("{what} is named"), &places, start, names);
    let report = host.swarmlet(&["doctor"]).unwrap();
    assert_eq!(report.code, Some(1), "{report:?}");
    eprintln!("{}", report.stdout);

    mend_it().unwrap();
    let start = Instant::now();
    places.pop();
    all_within(&format!("{what} is solved"), &places, start, |text| {
        !names(text)
    });
}

#[test]
fn a_closed_range_of_task_ports_names_pair_range_and_direction_and_no_client_sees_it() {
    let cluster = Cluster::serving(1, 6).unwrap();
    cluster.all_answer(80).unwrap();
    let (to, from) = (&cluster.hosts[1], &cluster.hosts[2]);
    let words = [
        format!("host3 ({}) cannot connect to host2", from.address()),
        format!(
            "open TCP {TASKS} from {} to {}",
            from.address(),
            to.address()
        ),
    ];
    let running = load(&cluster, 80, 3).unwrap();
    explained(
        &cluster,
        "a closed range of task ports",
        from,
        &[&words[0], &words[1]],
        || close(to, from, TASKS),
        || to.accept_all(),
    );
    no_errors("while the range was closed", &running.stop().unwrap(), 0);
}

#[test]
fn a_closed_cluster_port_between_two_managers_is_named() {
    let cluster = Cluster::start(3).unwrap();
    let (to, from) = (&cluster.hosts[1], &cluster.hosts[2]);
    let (one, other) = (to.address(), from.address());
    let words = [
        format!("host3 ({other}) cannot connect to host2 ({one}) on TCP 2377"),
        format!("open TCP 2377 from {other} to {one}"),
    ];
    explained(
        &cluster,
        "a closed cluster port",
        from,
        &[&words[0], &words[1]],
        || close(to, from, "2377").and_then(|()| close(from, to, "2377")),
        || to.accept_all().and_then(|()| from.accept_all()),
    );
}

#[test]
fn a_silent_engine_and_descriptors_that_run_out_are_named() {
    let cluster = Cluster::start(1).unwrap();
    let host = &cluster.hosts[1];
    let dockerd = host.engine().dockerd().unwrap();
    explained(
        &cluster,
        "a hanging engine",
        host,
        &["the container engine of host2", "systemctl restart docker"],
        || host.signal(dockerd, Signal::STOP),
        || host.signal(dockerd, Signal::CONT),
    );
    explained(
        &cluster,
        "a dead engine",
        host,
        &["the container engine of host2", "systemctl restart docker"],
        || host.signal(dockerd, Signal::KILL),
        || host.restart_engine(),
    );

    // So few are left to it that it can just still be asked.
    runs_out(&cluster, host, ("daemon", host.daemon().unwrap()), 2);
    runs_out(&cluster, host, ("balancer", host.balancer().unwrap()), 0);
}

/// Takes a process's free descriptors away, all but some, and gives them back.
fn runs_out(cluster: &Cluster, host: &Host, (name, process): (&str, Pid), spare: usize) {
    let words = format!("the {name} on host2");
    let pid = process.as_raw_nonzero().to_string();
    let limit = |soft: usize| {
        let soft = format!("--nofile={soft}:");
        let words = ["--pid", &pid, &soft];
        host.run("prlimit", &words)?.success().map(drop)
    };
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let before: usize = line
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let folder = format!("/proc/{pid}/fd");
    // The least of some looks: both open a connection now and then to see who is there.
    let looks = (0..20).map(|_| {
        thread::sleep(LOOK);
        fs::read_dir(&folder).unwrap().count()
    });
    let open = looks.min().unwrap();
    explained(
        cluster,
        &format!("a {name} without free descriptors"),
        host,
        &[&words, "has no free file descriptors"],
        || limit(open + spare),
        || limit(before),
    );
}

/// A small disk under a host's state; taken away again whatever happens.
pub(crate) struct SmallDisk<'a>(&'a Host);

impl<'a> SmallDisk<'a> {
    pub(crate) fn mount(host: &'a Host) -> Result<Self> {
        let path = host.data_directory();
        let path = path.to_string_lossy();
        host.run(
            "mount",
            &["-t", "tmpfs", "-o", "size=400m,mode=0700", "none", &path],
        )?
        .success()?;
        Ok(Self(host))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let path = self.0.data_directory();
        // The reset that follows fails where this did, and says why.
        let _ = self.0.run("umount", &["--lazy", &path.to_string_lossy()]);
    }
}

#[test]
fn a_full_disk_is_named_until_there_is_room_again() {
    let cluster = Cluster::without_swarm().unwrap();
    let (first, host) = (&cluster.hosts[0], &cluster.hosts[1]);
    let _disk = SmallDisk::mount(host).unwrap();
    let address = first.address().to_string();
    first
        .swarmlet(&["init", "--advertise-addr", &address])
        .unwrap()
        .success()
        .unwrap();
    cluster.join(host, "worker").unwrap();
    wait_until(SOON, "two ready nodes", || {
        let nodes = cluster.nodes(first)?;
        let ready = nodes.values().filter(|node| node["Status"] == "Ready");
        Ok((ready.count() == 2).then_some(()))
    })
    .unwrap();
    let data = host.data_directory();
    let ballast = data.join("ballast");
    let ballast = ballast.to_string_lossy();
    let log = format!("{}/daemon.log", data.to_string_lossy());
    let read_log = || host.run("cat", &[&log])?.success();
    let names = |text: &str| {
        let words = ["is full", "make room", "on host2 ("];
        words.iter().all(|word| text.contains(word))
    };
    let mut places = places(&cluster, host);
    let from = read_log().unwrap().len();
    host.run("fallocate", &["-l", "370M", &ballast])
        .unwrap()
        .success()
        .unwrap();
    let start = Instant::now();
    places.push(Place {
        name: format!("log of {}", host.name()),
        look: Box::new(move || Ok(read_log()?.split_off(from))),
    });
    all_within("a full disk is named", &places, start, names);
    let report = host.swarmlet(&["doctor"]).unwrap();
    assert_eq!(report.code, Some(1), "{report:?}");
    host.run("rm", &[&ballast]).unwrap().success().unwrap();
    let start = Instant::now();
    places.pop();
    all_within("a full disk is solved", &places, start, |text| !names(text));
}

#[test]
fn doctor_says_before_a_join_which_ports_are_closed_in_which_direction() {
    let cluster = Cluster::start(1).unwrap();
    let (manager, host) = (&cluster.hosts[0], &cluster.hosts[2]);
    host.swarmlet(&["leave"]).unwrap().success().unwrap();
    let token = cluster.token("worker").unwrap();
    let remote = manager.address().to_string();
    let words = ["doctor", "--join", &remote, "--token", &token];
    let own = host.address();

    let well = host.swarmlet(&words).unwrap();
    eprintln!("{}", well.stdout);
    assert_eq!(well.code, Some(0), "{well:?}");
    for part in [
        format!("{remote}:2377 can be reached"),
        "it makes this host a worker".to_owned(),
        "it agrees with the manager's".to_owned(),
        format!("open from the managers to {own}"),
    ] {
        assert!(well.stdout.contains(&part), "{part} in {}", well.stdout);
    }

    close(host, manager, TASKS).unwrap();
    let asked = Instant::now();
    let closed = host.swarmlet(&words).unwrap();
    let what = "doctor names the closed task ports of a host that has not joined";
    within(what, asked.elapsed(), BOUND);
    assert_eq!(closed.code, Some(1), "{closed:?}");
    let remedy = format!("open TCP {TASKS} from {remote} and all other nodes to {own}");
    assert!(closed.stdout.contains(&remedy), "{}", closed.stdout);
    host.accept_all().unwrap();

    close(manager, host, "2377").unwrap();
    let asked = Instant::now();
    let closed = host.swarmlet(&words).unwrap();
    let what = "doctor names the closed cluster port of a manager before a join";
    within(what, asked.elapsed(), BOUND);
    assert_eq!(closed.code, Some(1), "{closed:?}");
    let remedy = format!("open TCP 2377 from {own} to {remote}");
    assert!(closed.stdout.contains(&remedy), "{}", closed.stdout);
}
