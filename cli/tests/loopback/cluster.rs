//! Nodes on 127.0.0.1, .2, .3, each with a directory of its own. Everything that a test left
//! running is ended when its cluster is dropped.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Long enough for a busy machine; nothing here takes a second by itself.
const DEADLINE: Duration = Duration::from_secs(30);

/// The nodes of one test.
pub(crate) struct Cluster {
    dir: tempfile::TempDir,
    nodes: usize,
    cluster_port: u16,
    http_port: u16,
    task_ports: String,
}

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Output {
    /// Exit code.
    pub(crate) code: Option<i32>,
    /// What it printed.
    pub(crate) stdout: String,
    /// What it said.
    pub(crate) stderr: String,
}

/// A daemon in the foreground; killed when dropped.
pub(crate) struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Tries until it succeeds, and panics with the last failure after the deadline.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut attempt: impl FnMut() -> Result<(), String>) {
    let end = Instant::now() + DEADLINE;
    loop {
        match attempt() {
            Ok(()) => return,
            Err(last) if Instant::now() > end => panic!("{what}: not within {DEADLINE:?}: {last}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// A port that is free on all three addresses. It stays below those that the system gives to
/// outgoing connections, which could take it before the balancer does.
pub(crate) fn free_port() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 400).unwrap() * 20;
    loop {
        let port = 11000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 8900;
        let free =
            (1..=3).all(|host| TcpListener::bind((Ipv4Addr::new(127, 0, 0, host), port)).is_ok());
        if free {
            return port;
        }
    }
}

/// Task ports that no other cluster of this process has, and hardly one of another process. The
/// clusters share their addresses: of two tasks that are to start on one port, one fails.
fn task_ports() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    const BLOCK: u32 = 250;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = std::process::id().wrapping_mul(7) % 40 + NEXT.fetch_add(1, Ordering::Relaxed);
    let first = 20_000 + number % 40 * BLOCK;
    format!("{first}-{}", first + BLOCK - 1)
}

impl Cluster {
    /// Nodes that nothing runs on yet.
    pub(crate) fn new(nodes: usize) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            nodes,
            cluster_port: free_port(),
            http_port: free_port(),
            task_ports: task_ports(),
        }
    }

    /// How many nodes there are.
    pub(crate) fn len(&self) -> usize {
        self.nodes
    }

    /// Where a node is.
    pub(crate) fn ip(node: usize) -> Ipv4Addr {
        Ipv4Addr::new(127, 0, 0, u8::try_from(node + 1).unwrap())
    }

    /// Where a node is joined.
    pub(crate) fn address(&self, node: usize) -> String {
        format!("{}:{}", Self::ip(node), self.cluster_port)
    }

    fn home(&self, node: usize) -> PathBuf {
        self.dir.path().join(format!("node{node}"))
    }

    /// A node's data directory.
    pub(crate) fn data(&self, node: usize) -> PathBuf {
        self.home(node).join("data")
    }

    /// A node's socket.
    pub(crate) fn socket(&self, node: usize) -> PathBuf {
        self.home(node).join("s")
    }

    fn command(&self, node: usize, args: &[&str]) -> Command {
        self.command_of(env!("CARGO_BIN_EXE_swarmlet").as_ref(), node, args)
    }

    fn command_of(&self, program: &Path, node: usize, args: &[&str]) -> Command {
        let ip = Self::ip(node);
        let mut command = Command::new(program);
        command
            .args(args)
            .env("SWARMLET_SOCKET", self.socket(node))
            .env("SWARMLET_DATA_DIR", self.data(node))
            .env("SWARMLET_HOSTNAME", format!("host{}", node + 1))
            .env("SWARMLET_LISTEN_ADDR", self.address(node))
            .env("SWARMLET_HTTP_ADDR", format!("{ip}:{}", self.http_port))
            .env("SWARMLET_INGRESS_ADDR", ip.to_string())
            .env("SWARMLET_RUNTIME", "process")
            .env("SWARMLET_TASK_PORTS", &self.task_ports)
            .stdin(Stdio::null());
        command
    }

    /// Runs a command on a node.
    pub(crate) fn run(&self, node: usize, args: &[&str]) -> Output {
        let output = self.command(node, args).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Output {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// Runs a command that must succeed.
    #[track_caller]
    pub(crate) fn ok(&self, node: usize, args: &[&str]) -> Output {
        let output = self.run(node, args);
        assert_eq!(output.code, Some(0), "{args:?}: {output:?}");
        output
    }

    /// Runs a command that must fail, and gives the one line that it says; those of a daemon
    /// which had to be started first, and was stopped again, are left out.
    #[track_caller]
    pub(crate) fn fails(&self, node: usize, code: i32, args: &[&str]) -> String {
        let output = self.run(node, args);
        assert_eq!(output.code, Some(code), "{args:?}: {output:?}");
        let lines: Vec<&str> = output
            .stderr
            .lines()
            .filter(|line| !line.starts_with("Started the") && !line.starts_with("Stopped the"))
            .collect();
        assert_eq!(lines.len(), 1, "{args:?}: {output:?}");
        lines[0].to_owned()
    }

    /// Runs a command that must fail with exactly this line.
    #[track_caller]
    pub(crate) fn refused(&self, node: usize, args: &[&str], expected: &str) {
        assert_eq!(self.fails(node, 1, args), expected, "{args:?}");
    }

    /// Makes the cluster.
    #[track_caller]
    pub(crate) fn init(&self, node: usize) {
        let output = self.ok(node, &["init"]);
        assert!(
            output
                .stdout
                .starts_with("Swarm initialized: current node ("),
            "{output:?}"
        );
    }

    /// A manager, and so many workers.
    #[track_caller]
    pub(crate) fn with_workers(workers: usize) -> Self {
        let cluster = Self::new(1 + workers);
        cluster.init(0);
        for node in 1..=workers {
            cluster.join(node, "worker");
        }
        cluster
    }

    /// One node that serves two tasks of the service `ng` on a port, which is returned.
    #[track_caller]
    pub(crate) fn serving_two() -> (Self, u16) {
        let cluster = Self::new(1);
        let port = free_port();
        cluster.init(0);
        let publish = format!("{port}:80");
        let line = ["service", "create", "--name=ng", "--replicas=2"];
        cluster.ok(0, &[&line[..], &["-p", &publish, "whoami"]].concat());
        (cluster, port)
    }

    /// Makes a node one of the first one's cluster.
    #[track_caller]
    pub(crate) fn join(&self, node: usize, role: &str) -> Output {
        let token = self.ok(0, &["join-token", "-q", role]).stdout;
        let output = self.ok(node, &["join", "--token", token.trim(), &self.address(0)]);
        assert_eq!(
            output.stdout,
            format!("This node joined a swarm as a {role}.\n")
        );
        output
    }

    /// Starts the daemon of a node that is on disk.
    pub(crate) fn start_daemon(&self, node: usize) -> Daemon {
        self.start_daemon_of(env!("CARGO_BIN_EXE_swarmlet").as_ref(), node)
    }

    /// The same, with more in its environment.
    pub(crate) fn start_daemon_with(&self, node: usize, environment: &[(&str, &str)]) -> Daemon {
        let mut command = self.command(node, &["daemon"]);
        command.envs(environment.iter().copied());
        Daemon(command.stderr(Stdio::null()).spawn().unwrap())
    }

    /// The same, of another file of the program.
    pub(crate) fn start_daemon_of(&self, program: &Path, node: usize) -> Daemon {
        Daemon(
            self.command_of(program, node, &["daemon"])
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        )
    }

    /// Kills the daemon for good: whoever would start it again goes first.
    pub(crate) fn kill_daemon(&self, node: usize) {
        self.kill(self.pid(node, "supervisor.pid"));
        let pid = self.pid(node, "daemon.pid");
        self.kill(pid);
        wait_until("the daemon is gone", || {
            match TcpStream::connect(self.address(node)) {
                Ok(_) => Err("it still listens".to_owned()),
                Err(_) => Ok(()),
            }
        });
    }

    /// Sends a signal to a process of the cluster.
    pub(crate) fn signal(&self, pid: i32, signal: Signal) {
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// Kills a process of the cluster.
    pub(crate) fn kill(&self, pid: i32) {
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    }

    /// A process id from a file of the data directory.
    pub(crate) fn pid(&self, node: usize, file: &str) -> i32 {
        let text = std::fs::read_to_string(self.data(node).join(file)).unwrap();
        text.trim().parse().unwrap()
    }

    /// The host name that answers on a published port.
    pub(crate) fn ask(&self, node: usize, port: u16) -> Result<String, String> {
        let answer = get((Self::ip(node), port).into(), "/").map_err(|error| error.to_string())?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Ok(body.lines().next().unwrap_or_default().to_owned())
    }

    /// What a task answers on a published port.
    pub(crate) fn get(&self, node: usize, port: u16, path: &str) -> String {
        get((Self::ip(node), port).into(), path).unwrap()
    }

    /// A page of the node itself.
    pub(crate) fn page(&self, node: usize, path: &str) -> String {
        get((Self::ip(node), self.http_port).into(), path).unwrap()
    }

    /// Whether a published port can be had by somebody else.
    pub(crate) fn bind(&self, node: usize, port: u16) -> Result<(), String> {
        TcpListener::bind((Self::ip(node), port))
            .map(drop)
            .map_err(|error| error.to_string())
    }

    /// Processes of a node: those that name its directory in their arguments or environment.
    pub(crate) fn processes(&self, node: usize) -> Vec<i32> {
        processes_of(&self.home(node).to_string_lossy())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Twice: a shim that dies may have been about to start something.
        for _ in 0..2 {
            // Tasks know nothing of the directory, and outlive their shims.
            let mut processes = processes_of(&self.dir.path().to_string_lossy());
            processes.extend(children_of(&processes));
            for pid in processes {
                let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
            }
        }
    }
}

/// Living processes, this one excepted, that name a directory.
fn processes_of(dir: &str) -> Vec<i32> {
    let own = i32::try_from(std::process::id()).unwrap();
    all_processes()
        .filter(|&pid| pid != own)
        .filter(|pid| {
            ["cmdline", "environ"].iter().any(|file| {
                std::fs::read(format!("/proc/{pid}/{file}"))
                    .is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(dir))
            })
        })
        .collect()
}

/// Those that one of these has started.
fn children_of(parents: &[i32]) -> Vec<i32> {
    let parent = |pid: i32| -> Option<i32> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
        line.trim().parse().ok()
    };
    all_processes()
        .filter(|&pid| parent(pid).is_some_and(|parent| parents.contains(&parent)))
        .collect()
}

fn all_processes() -> impl Iterator<Item = i32> {
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
