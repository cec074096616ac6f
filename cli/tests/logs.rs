//! What containers write, read on loopback clusters.

// Helpers of tests are no tests by clippy's rules; a panic here is a failed test all the same.
#![allow(clippy::unwrap_used)]

// Shared with the other loopback tests, which use the rest of it.
#[allow(dead_code)]
#[path = "loopback/cluster.rs"]
mod cluster;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use cluster::{Cluster, wait_until};

/// Longer than anything here takes on a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_secs(30);

/// Three nodes, of which the first two are managers.
fn three() -> Cluster {
    let cluster = Cluster::new(3);
    cluster.init(0);
    cluster.join(1, "manager");
    cluster.join(2, "worker");
    cluster
}

/// Creates a service of shell scripts and waits until its tasks run.
fn create(cluster: &Cluster, name: &str, replicas: &str, script: &str) {
    let line = [
        "service",
        "create",
        "-q",
        "--name",
        name,
        "--replicas",
        replicas,
        "/bin/sh",
        "-c",
        script,
    ];
    cluster.ok(0, &line);
}

/// A `swarmlet` that goes on; killed when dropped.
struct Following {
    child: Child,
    lines: Receiver<String>,
}

impl Following {
    fn start(cluster: &Cluster, node: usize, args: &[&str]) -> Self {
        let mut child = command(cluster, node, args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let errors = sender.clone();
        std::thread::spawn(move || {
            for line in stdout.lines() {
                // The test may have seen enough.
                let _ = sender.send(line.unwrap());
            }
        });
        std::thread::spawn(move || {
            for line in stderr.lines() {
                let _ = errors.send(format!("stderr: {}", line.unwrap()));
            }
        });
        Self { child, lines }
    }

    /// Waits for a line that has this in it.
    #[track_caller]
    fn waits_for(&self, text: &str) -> String {
        let deadline = Instant::now() + LIMIT;
        let mut seen = Vec::new();
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(rest) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => seen.push(line),
                Err(error) => panic!("no line with {text:?} ({error}): {seen:?}"),
            }
        }
    }

    /// Waits until it ends by itself.
    #[track_caller]
    fn ends(mut self) -> Option<i32> {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it goes on");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(cluster: &Cluster, node: usize, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_swarmlet"));
    command
        .args(args)
        .env("SWARMLET_SOCKET", cluster.socket(node))
        .stdin(Stdio::null());
    command
}

/// The lines of a text, each without what is in front of it.
fn texts(text: &str) -> Vec<String> {
    let lines = text.lines();
    let text = |line: &str| line.split_once("    | ").unwrap().1.to_owned();
    lines.map(text).collect()
}

#[test]
fn lines_of_all_nodes_come_in_the_order_of_time() {
    let cluster = three();
    create(
        &cluster,
        "ng",
        "6",
        "i=0; while [ $i -lt 10 ]; do i=$((i+1)); echo line $i; echo problem $i >&2; sleep 0.05; done; exec sleep 600",
    );
    // From the leader, and from another manager, whose sessions are others.
    for node in [0, 1] {
        wait_until("every line is there", || {
            let output = cluster.ok(node, &["service", "logs", "ng"]);
            let (out, err) = (texts(&output.stdout).len(), texts(&output.stderr).len());
            if (out, err) == (60, 60) {
                Ok(())
            } else {
                Err(format!("{out} and {err}"))
            }
        });
        let output = cluster.ok(node, &["service", "logs", "-t", "ng"]);
        let mut moments: Vec<&str> = output.stdout.lines().map(|line| &line[..30]).collect();
        let nodes: std::collections::BTreeSet<&str> = output
            .stdout
            .lines()
            .map(|line| line.split_once('@').unwrap().1.split_once(' ').unwrap().0)
            .collect();
        assert_eq!(nodes.len(), 3, "every node has some: {nodes:?}");
        assert!(
            moments.iter().all(|moment| moment.ends_with('Z')),
            "{moments:?}"
        );
        let given = moments.clone();
        moments.sort_unstable();
        assert_eq!(given, moments, "in the order of time");
        assert!(
            texts(&output.stdout)
                .iter()
                .all(|line| line.starts_with("line "))
        );
        assert!(
            texts(&output.stderr)
                .iter()
                .all(|line| line.starts_with("problem "))
        );
    }
    // The last lines of each task; by whole identifiers; and as they were written.
    let last = cluster.ok(0, &["service", "logs", "-n", "2", "ng"]).stdout;
    assert_eq!(texts(&last).len(), 6, "one of the two is an error: {last}");
    let raw = cluster.ok(0, &["service", "logs", "--raw", "-n", "1", "ng"]);
    let lines = raw.stdout.lines().chain(raw.stderr.lines());
    assert!(
        lines
            .clone()
            .all(|line| line == "line 10" || line == "problem 10"),
        "{raw:?}"
    );
    assert_eq!(lines.count(), 6);
    let json = cluster.ok(0, &["service", "logs", "--format", "json", "-n", "1", "ng"]);
    assert_eq!(json.stdout.matches("\"Name\":\"ng.").count(), 6, "{json:?}");

    // One task, by its identifier, by the beginning of it, and by `task logs`.
    let id = cluster
        .ok(0, &["service", "ps", "-q", "--no-trunc", "ng"])
        .stdout;
    let id = id.lines().next().unwrap();
    for line in [
        &["service", "logs", id][..],
        &["service", "logs", &id[..20]],
        &["task", "logs", id],
    ] {
        let found = texts(&cluster.ok(1, line).stdout);
        assert_eq!(found.len(), 10, "{line:?}");
        assert_eq!(
            (found[0].as_str(), found[9].as_str()),
            ("line 1", "line 10")
        );
    }
    // Bounds of time.
    let future = cluster.ok(0, &["service", "logs", "--since", "2100-01-01", "ng"]);
    assert_eq!(future.stdout, "");
    let past = cluster.ok(0, &["service", "logs", "--until", "2000-01-01", "ng"]);
    assert_eq!((past.stdout.as_str(), past.stderr.as_str()), ("", ""));
}

#[test]
fn mistakes_say_what_they_are() {
    let cluster = three();
    for (line, expected) in [
        (
            &["service", "logs", "nobody"][..],
            "Error: no such task or service: nobody",
        ),
        (&["task", "logs", "nobody"], "Error: no such task: nobody"),
    ] {
        cluster.refused(0, line, expected);
    }
    let worker = cluster.fails(2, 1, &["service", "logs", "ng"]);
    assert!(
        worker.contains("This node is not a swarm manager"),
        "{worker}"
    );
    let usage = cluster.fails(0, 2, &["service", "logs", "--since", "soon", "ng"]);
    assert!(usage.contains("invalid time \"soon\""), "{usage}");
    let usage = cluster.fails(0, 2, &["service", "logs", "--raw", "--format=json", "ng"]);
    assert!(usage.contains("cannot be used with"), "{usage}");
    // A driver that keeps nothing.
    let line = [
        "service",
        "create",
        "-q",
        "--name",
        "mute",
        "--log-driver",
        "none",
        "/bin/sh",
        "-c",
        "echo x; exec sleep 600",
    ];
    cluster.ok(0, &line);
    let output = cluster.run(0, &["service", "logs", "mute"]);
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(
        output
            .stderr
            .contains("configured logging driver does not support reading"),
        "{output:?}"
    );
    assert!(
        output.stderr.ends_with("Error: no log could be read\n"),
        "{output:?}"
    );
}

#[test]
fn following_goes_on_over_new_tasks_and_ends_with_the_service() {
    let cluster = three();
    create(
        &cluster,
        "ng",
        "1",
        "echo hello from $HOSTNAME; i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done",
    );
    let follow = Following::start(&cluster, 1, &["service", "logs", "-f", "ng"]);
    follow.waits_for("hello from");
    follow.waits_for("| 5");
    cluster.ok(0, &["service", "scale", "ng=3"]);
    let second = follow.waits_for("hello from");
    let third = follow.waits_for("hello from");
    let node = |line: &str| {
        line.split_once('@')
            .unwrap()
            .1
            .split_once(' ')
            .unwrap()
            .0
            .to_owned()
    };
    assert_ne!(
        node(&second),
        node(&third),
        "one on each of the other nodes"
    );
    // A task that ends is succeeded by another one.
    let ps = cluster
        .ok(0, &["service", "ps", "--format", "json", "ng"])
        .stdout;
    assert_eq!(ps.lines().count(), 3);
    cluster.ok(
        0,
        &[
            "service",
            "update",
            "-q",
            "--force",
            "--update-monitor=1s",
            "ng",
        ],
    );
    for _ in 0..3 {
        follow.waits_for("hello from");
    }
    cluster.ok(0, &["service", "rm", "ng"]);
    assert_eq!(follow.ends(), Some(0));
}

#[test]
fn a_node_that_is_away_gives_a_partial_result_at_once() {
    let cluster = three();
    create(&cluster, "ng", "3", "echo here; exec sleep 600");
    wait_until("every line is there", || {
        let lines = texts(&cluster.ok(0, &["service", "logs", "ng"]).stdout).len();
        if lines == 3 {
            Ok(())
        } else {
            Err(format!("{lines} lines"))
        }
    });
    let follow = Following::start(&cluster, 0, &["service", "logs", "-f", "ng"]);
    for _ in 0..3 {
        follow.waits_for("here");
    }
    cluster.kill_daemon(2);
    let check = |when: &str| {
        let begin = Instant::now();
        let output = cluster.ok(0, &["service", "logs", "ng"]);
        let took = begin.elapsed();
        assert_eq!(texts(&output.stdout).len(), 2, "{when}: {output:?}");
        assert!(
            output
                .stderr
                .contains("warning: incomplete log stream: node host3 is not available"),
            "{when}: {output:?}"
        );
        eprintln!("{when}: a partial result after {took:?}");
        assert!(took < Duration::from_secs(2), "{when}: after {took:?}");
    };
    // While it still counts as ready, and once it is known to be away.
    check("just killed");
    follow.waits_for("node host3 is not available");
    wait_until("the node is away", || {
        let nodes = cluster.ok(0, &["node", "ls", "--format", "json"]).stdout;
        if nodes.contains("\"Ready\"") && !nodes.contains("nknown") && !nodes.contains("Down") {
            return Err(nodes);
        }
        Ok(())
    });
    let output = cluster.ok(0, &["service", "logs", "ng"]);
    assert!(
        output.stderr.contains("host3 is not available"),
        "{output:?}"
    );
    // It comes back, and whoever follows hears of its task again.
    let _daemon = cluster.start_daemon(2);
    wait_until("every line is there again", || {
        let output = cluster.run(0, &["service", "logs", "ng"]);
        let hosts = output.stdout.matches("@host3").count();
        if hosts >= 1 {
            Ok(())
        } else {
            Err(format!("{output:?}"))
        }
    });
}

#[test]
fn a_task_that_is_not_placed_is_told_and_holds_nobody_up() {
    let cluster = three();
    let line = [
        "service",
        "create",
        "-d",
        "--name",
        "big",
        "--constraint",
        "node.hostname==nowhere",
        "whoami",
    ];
    cluster.ok(0, &line);
    wait_until("the reason is known", || {
        let begin = Instant::now();
        let output = cluster.run(0, &["service", "logs", "big"]);
        assert!(
            begin.elapsed() < Duration::from_secs(2),
            "{:?}",
            begin.elapsed()
        );
        let expected = "has not been scheduled (no suitable node (scheduling constraints not satisfied on 3 nodes))";
        if output.stderr.contains(expected) && output.code == Some(1) {
            Ok(())
        } else {
            Err(format!("{output:?}"))
        }
    });
}

/// The memory of a process in KiB.
fn resident(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_reader_that_stops_holds_a_bounded_amount_of_memory_everywhere() {
    let cluster = three();
    create(
        &cluster,
        "loud",
        "3",
        "exec yes 0123456789012345678901234567890123456789",
    );
    let daemons: Vec<i32> = (0..3).map(|node| cluster.pid(node, "daemon.pid")).collect();
    wait_until("there is much to read", || {
        let tasks = cluster.data(2).join("agent/tasks");
        let size = folder_size(&tasks);
        if size > 15 << 20 {
            Ok(())
        } else {
            Err(format!("{size} bytes"))
        }
    });
    let before: Vec<u64> = daemons.iter().map(|&pid| resident(pid)).collect();
    let mut readers: Vec<(Child, ChildStdout)> = (0..4)
        .map(|_| {
            let args = ["service", "logs", "-f", "loud"];
            let mut child = command(&cluster, 0, &args)
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut stdout = child.stdout.take().unwrap();
            // It has begun, and nobody reads on.
            stdout.read_exact(&mut [0; 1000]).unwrap();
            (child, stdout)
        })
        .collect();
    std::thread::sleep(Duration::from_secs(5));
    for (&pid, before) in daemons.iter().zip(&before) {
        let grown = resident(pid).saturating_sub(*before);
        eprintln!("four stopped readers: {grown} KiB more than {before} KiB");
        assert!(grown < 40 << 10, "{grown} KiB for four readers");
    }
    for (child, _) in &mut readers {
        let size = resident(i32::try_from(child.id()).unwrap());
        assert!(size < 40 << 10, "the reader itself has {size} KiB");
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // Sessions were not held up: every node is ready, and answers.
    let nodes = cluster.ok(0, &["node", "ls", "--format", "json"]).stdout;
    assert_eq!(nodes.matches("\"Ready\"").count(), 3, "{nodes}");
}

/// The bytes of all files below a folder.
fn folder_size(folder: &std::path::Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    entries
        .filter_map(Result::ok)
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => folder_size(&entry.path()),
            Ok(data) => data.len(),
            Err(_) => 0,
        })
        .sum()
}

#[test]
fn a_failed_update_shows_the_last_lines_of_what_failed() {
    let cluster = three();
    create(&cluster, "ng", "2", "exec sleep 600");
    for action in ["pause", "rollback"] {
        let action = format!("--update-failure-action={action}");
        let line = [
            "service",
            "update",
            "--update-monitor=2s",
            &action,
            "--args",
            "-c 'for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo step $i; done; echo no database; exit 3'",
            "ng",
        ];
        let output = cluster.run(0, &line);
        assert_eq!(output.code, Some(1), "{output:?}");
        let (_, shown) = output
            .stderr
            .split_once("The last lines of task ")
            .expect(&output.stderr);
        let lines: Vec<&str> = shown.lines().skip(1).collect();
        assert_eq!(lines.len(), 11, "ten lines and the error: {output:?}");
        assert!(lines[0].ends_with("    | step 4"), "{output:?}");
        assert!(lines[9].ends_with("    | no database"), "{output:?}");
        assert!(lines[10].starts_with("Error: service "), "{output:?}");
        let ps = cluster.ok(0, &["service", "ps", "--no-trunc", "ng"]).stdout;
        assert!(ps.contains("\"task: non-zero exit (3)\""), "{ps}");
        if action.ends_with("pause") {
            cluster.ok(0, &["service", "rollback", "-q", "ng"]);
        }
    }
}
