//! What containers write, as their engines keep it, read from every host.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use swarmlet_integration_tests::{Host, Output, measured::within, swarmlet_binary, wait_until};

use crate::cluster::{Cluster, LATER, SOON, at};

/// By when a partial result must be there.
const PARTIAL: Duration = Duration::from_secs(2);

/// A `service logs -f` on a host, killed when dropped; what it writes goes into a file.
struct Following {
    child: Child,
    path: PathBuf,
}

impl Following {
    fn start(host: &Host, service: &str) -> Result<Self> {
        let path = host.log(&format!("follow-{service}"));
        let mut command: Command = host.command(swarmlet_binary()?);
        let child = command
            .args(["service", "logs", "-f", service])
            .stdin(Stdio::null())
            .stdout(File::create(&path)?)
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { child, path })
    }

    /// How many lines have this in them.
    fn count(&self, text: &str) -> Result<usize> {
        let lines = fs::read_to_string(&self.path)?;
        Ok(lines.lines().filter(|line| line.contains(text)).count())
    }

    fn waits_for(&self, count: usize, text: &str) -> Result<()> {
        wait_until(SOON, &format!("{count} lines with {text:?}"), || {
            let found = self.count(text)?;
            ensure!(found <= count, "{found} lines with {text:?}");
            Ok((found == count).then_some(()))
        })
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks a published port for a path, as a client of every container in turn.
fn ask(cluster: &Cluster, host: &Host, path: &str) -> Result<()> {
    let url = format!("http://{}{path}", at(host, 80));
    let output = cluster.hosts.client().run("curl", &["-sf", &url])?;
    output.success().map(drop)
}

fn logs(host: &Host, args: &[&str]) -> Result<(Output, Duration)> {
    let begin = Instant::now();
    let output = host.swarmlet(&[&["service", "logs"], args].concat())?;
    Ok((output, begin.elapsed()))
}

#[test]
fn lines_of_all_engines_come_in_the_order_of_time() {
    let cluster = Cluster::serving(2, 6).unwrap();
    // Each of the six is asked twice: a balancer takes them in turn.
    for _ in 0..12 {
        ask(&cluster, &cluster.hosts[2], "/print?lines=50").unwrap();
    }
    for host in [&cluster.hosts[0], &cluster.hosts[1]] {
        let (output, took) = logs(host, &["-t", "ng"]).unwrap();
        let lines: Vec<&str> = output.stdout.lines().collect();
        assert_eq!(lines.len(), 6 + 12 * 50, "{output:?}");
        assert_eq!(output.stderr.lines().count(), 12, "{}", output.stderr);
        let moments: Vec<&str> = lines.iter().map(|line| &line[..30]).collect();
        assert!(moments.is_sorted(), "not in the order of time");
        let mut by_host: BTreeMap<&str, usize> = BTreeMap::new();
        for line in &lines {
            let (_, name) = line.split_once('@').unwrap();
            *by_host.entry(name.split_once(' ').unwrap().0).or_default() += 1;
        }
        assert_eq!(by_host.len(), 3, "{by_host:?}");
        eprintln!("{} lines of three hosts in {took:.3?}", lines.len());
    }
    let (last, _) = logs(&cluster.hosts[0], &["-n", "3", "ng"]).unwrap();
    let shown = last.stdout.lines().count() + last.stderr.lines().count();
    assert_eq!(shown, 18, "{last:?}");
    let (raw, _) = logs(&cluster.hosts[0], &["--raw", "-n", "1", "ng"]).unwrap();
    assert!(
        raw.stderr
            .lines()
            .all(|line| line.ends_with(" has printed 50 lines")),
        "{raw:?}"
    );
}

#[test]
fn following_goes_on_over_a_scale_an_update_and_a_restart_of_a_daemon() {
    let cluster = Cluster::serving(2, 2).unwrap();
    let mut follow = Following::start(&cluster.hosts[1], "ng").unwrap();
    follow.waits_for(2, " listens on port 80").unwrap();
    cluster.swarmlet(&["service", "scale", "ng=6"]).unwrap();
    follow.waits_for(6, " listens on port 80").unwrap();
    for _ in 0..6 {
        ask(&cluster, &cluster.hosts[0], "/print?lines=1").unwrap();
    }
    follow.waits_for(6, "prints line 1 of 1").unwrap();

    // The third host's daemon dies and comes back: its lines go on, and none comes twice.
    let third = &cluster.hosts[2];
    cluster.kill_daemon(third).unwrap();
    cluster.start_daemon(third).unwrap();
    wait_until(LATER, "the node is ready again", || {
        let nodes = cluster.nodes(&cluster.hosts[0])?;
        Ok((nodes[third.name()]["Status"] == "Ready").then_some(()))
    })
    .unwrap();
    for _ in 0..6 {
        ask(&cluster, &cluster.hosts[0], "/print?lines=2").unwrap();
    }
    follow.waits_for(6, "prints line 2 of 2").unwrap();
    assert_eq!(follow.count(" listens on port 80").unwrap(), 6);

    let update = [
        "service",
        "update",
        "-q",
        "--force",
        "--update-parallelism=0",
        "ng",
    ];
    cluster.swarmlet(&update).unwrap();
    follow.waits_for(12, " listens on port 80").unwrap();
    cluster.swarmlet(&["service", "rm", "ng"]).unwrap();
    wait_until(SOON, "the end of the service's log", || {
        Ok(follow
            .child
            .try_wait()?
            .map(|status| assert!(status.success())))
    })
    .unwrap();
}

#[test]
fn a_host_that_is_cut_off_gives_a_partial_result_within_2_s() {
    let cluster = Cluster::serving(1, 3).unwrap();
    let (host, lost) = (&cluster.hosts[0], &cluster.hosts[2]);
    cluster.hosts.disconnect(lost).unwrap();
    // At first it still counts as ready, and its connections as open; then it is away.
    for when in ["at once", "when it is known"] {
        let (output, took) = logs(host, &["ng"]).unwrap();
        let warning = format!(
            "incomplete log stream: node {} is not available",
            lost.name()
        );
        assert!(output.stderr.contains(&warning), "{when}: {output:?}");
        assert_eq!(output.stdout.lines().count(), 2, "{when}: {output:?}");
        within(&format!("{when}: a partial result"), took, PARTIAL);
        wait_until(LATER, "the host is away", || {
            let nodes = cluster.nodes(host)?;
            Ok((nodes[lost.name()]["Status"] != "Ready").then_some(()))
        })
        .unwrap();
    }
    cluster.hosts.connect(lost).unwrap();
}

/// What the engines say of the log of a service's containers, each once.
fn log_configs(cluster: &Cluster, service: &str) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for host in cluster.hosts.iter() {
        let filter = format!("label=swarmlet.service.name={service}");
        let ids = host
            .docker(&["ps", "-aq", "--filter", &filter])?
            .success()?;
        for id in ids.lines() {
            let text = host.docker(&["inspect", id])?.success()?;
            let all: Value = serde_json::from_str(&text).context("not JSON")?;
            found.insert(all[0]["HostConfig"]["LogConfig"].to_string());
        }
    }
    Ok(found)
}

#[test]
fn log_drivers_are_the_engines_and_one_that_cannot_be_read_says_so() {
    let cluster = Cluster::start(1).unwrap();
    let host = &cluster.hosts[0];
    let line = [
        "--name",
        "small",
        "--log-driver",
        "json-file",
        "--log-opt",
        "max-size=1m",
    ];
    let labels = [
        "--log-opt",
        "labels=tier",
        "--container-label",
        "tier=web",
        "whoami",
    ];
    cluster.create(&[&line[..], &labels].concat()).unwrap();
    let expected = json!({"Type": "json-file", "Config": {"labels": "tier", "max-size": "1m"}});
    let found = log_configs(&cluster, "small").unwrap();
    assert_eq!(found, BTreeSet::from([expected.to_string()]));
    wait_until(SOON, "the line with its details", || {
        let (output, _) = logs(host, &["--details", "small"])?;
        Ok(output.stdout.contains("    | tier=web ").then_some(()))
    })
    .unwrap();

    cluster
        .create(&["--name", "mute", "--log-driver", "none", "whoami"])
        .unwrap();
    let (output, took) = logs(host, &["mute"]).unwrap();
    assert_eq!(output.code, Some(1), "{output:?}");
    let error = "configured logging driver does not support reading";
    assert!(output.stderr.contains(error), "{output:?}");
    within("refused", took, PARTIAL);

    // A driver that the engine does not have is the engine's refusal.
    cluster
        .create(&["-d", "--name", "odd", "--log-driver", "nosuch", "whoami"])
        .unwrap();
    wait_until(SOON, "the refusal", || {
        let tasks = cluster.tasks(host, "odd")?;
        Ok(tasks
            .iter()
            .any(|task| task.error.contains("nosuch"))
            .then_some(()))
    })
    .unwrap();
}
