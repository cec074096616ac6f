//! Rolling updates in batches, and those that fail.

use std::{collections::BTreeSet, fs, time::Duration};

use anyhow::{Context, Result};
use serde_json::Value;
use swarmlet_integration_tests::Output;

use crate::{checked::make_checked_image, cluster::Cluster};

/// Five tasks that answer on port 80.
const FIVE: [&str; 7] = [
    "--name",
    "ng",
    "--replicas",
    "5",
    "-p",
    "80:80",
    "--rollback-monitor=1s",
];

/// What a task of whoami does that is told this: it ends at once, with status 2.
const BAD: [&str; 2] = ["--args", "--port nonsense"];

/// Creates a service of five; the names of its containers.
fn five(cluster: &Cluster, more: &[&str]) -> BTreeSet<String> {
    cluster.create(&[&FIVE, more].concat()).unwrap();
    cluster.all_answer(80).unwrap()
}

fn update(cluster: &Cluster, words: &[&str]) -> Output {
    let words = [&["service", "update"], words, &["ng"]].concat();
    cluster.hosts[0].swarmlet(&words).unwrap()
}

/// How the service's update stands: its state, and why.
fn status(cluster: &Cluster) -> Result<(String, String)> {
    let inspected = cluster.swarmlet(&["service", "inspect", "ng"])?;
    let services: Value = serde_json::from_str(&inspected)?;
    let status = &services[0]["UpdateStatus"];
    let text = |key: &str| {
        status[key]
            .as_str()
            .map(str::to_owned)
            .with_context(|| inspected.clone())
    };
    Ok((text("State")?, text("Message")?))
}

/// The update failed, in Docker's words, and left the service in this state.
#[track_caller]
fn check_failed(cluster: &Cluster, output: &Output, said: &str, state: &str) {
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.contains(said), "{said:?} in {output:?}");
    let (now, message) = status(cluster).unwrap();
    assert_eq!(now, state, "{message}");
}

/// When each running container was started, by its own engine, in order; since 1970.
fn starts(cluster: &Cluster) -> Vec<Duration> {
    let client = cluster.hosts.client();
    let seconds = |at: &String| -> f64 {
        let told = client.run("date", &["--utc", "--date", at, "+%s.%N"]);
        told.unwrap().success().unwrap().trim().parse().unwrap()
    };
    let started = cluster.started().unwrap();
    let mut starts: Vec<_> = started.values().map(seconds).collect();
    starts.sort_by(f64::total_cmp);
    starts.into_iter().map(Duration::from_secs_f64).collect()
}

/// Behaviour check 14 of Docker Swarm.
#[test]
fn an_update_of_five_two_at_a_time_comes_in_batches_of_two_two_and_one() {
    const DELAY: Duration = Duration::from_secs(4);
    let cluster = Cluster::start(1).unwrap();
    let batches = [
        "--update-parallelism=2",
        "--update-delay=4s",
        "--update-monitor=1s",
    ];
    let before = five(&cluster, &[&batches[..], &["whoami"]].concat());
    let updated = update(&cluster, &["--env-add=VERSION=2"]);
    let said = updated.clone().success().unwrap();
    assert_eq!(said, "ng\n");
    for line in [
        "overall progress: 5 out of 5 tasks\n",
        "verify: Service ng converged\n",
    ] {
        assert!(updated.stderr.contains(line), "{updated:?}");
    }
    assert!(cluster.all_answer(80).unwrap().is_disjoint(&before));
    assert_eq!(status(&cluster).unwrap().0, "completed");
    let starts = starts(&cluster);
    eprintln!("started at {starts:?}");
    // The second one waits for nobody; from then on each waits for one of the two before it.
    assert!(starts[1] - starts[0] < DELAY, "{starts:?}");
    for later in 2..5 {
        assert!(starts[later] - starts[later - 2] >= DELAY, "{starts:?}");
    }
}

/// Behaviour check 15 of Docker Swarm. The check is the image's own.
#[test]
fn a_start_first_update_to_what_is_never_healthy_leaves_the_old_five() {
    let cluster = Cluster::start(1).unwrap();
    for host in cluster.hosts.iter() {
        let check = "--interval=500ms --retries=2 CMD [\"/bin/sh\",\"-c\",\"/bin/sh\"]";
        make_checked_image(host, "well", Some(check)).unwrap();
        let check = "--interval=500ms --retries=2 CMD [\"/bin/sh\",\"-c\",\"/nowhere\"]";
        make_checked_image(host, "ill", Some(check)).unwrap();
    }
    let before = five(&cluster, &["--update-order=start-first", "well"]);
    let started = cluster.started().unwrap();
    let failed = update(&cluster, &["--image=ill"]);
    let said =
        "Error: service update paused: update paused due to failure or early termination of task ";
    check_failed(&cluster, &failed, said, "paused");
    assert_eq!(cluster.all_answer(80).unwrap(), before);
    assert_eq!(cluster.started().unwrap(), started);
    let tasks = cluster.tasks(&cluster.hosts[0], "ng").unwrap();
    let ill = tasks.iter().find(|task| task.is("Failed")).unwrap();
    assert!(ill.error.contains("unhealthy"), "{tasks:?}");
}

/// Behaviour check 16 of Docker Swarm; and the user is told what the failed container wrote.
#[test]
fn a_bad_image_replaces_two_of_five_and_a_rollback_restores_them() {
    let cluster = Cluster::start(1).unwrap();
    // The pause is for the first one's end to be known before the next one is replaced.
    let policy = [
        "--update-max-failure-ratio=0.25",
        "--update-delay=4s",
        "whoami",
    ];
    let before = five(&cluster, &policy);
    let failed = update(&cluster, &BAD);
    let said =
        "Error: service update paused: update paused due to failure or early termination of task ";
    check_failed(&cluster, &failed, said, "paused");
    let told = "error: invalid value 'nonsense' for '--port <PORT>'";
    assert!(last_lines(&failed)[0].starts_with(told), "{failed:?}");

    // Two have gone, and what takes their place fails; nobody touches the other three.
    let left = cluster.names().unwrap();
    assert_eq!(left.intersection(&before).count(), 3, "{before:?} {left:?}");
    for host in cluster.hosts.iter() {
        let report = cluster.ask(host, 80, 12).unwrap();
        assert_eq!(report.failed(), 0, "{}", report.to_json());
        assert!(report.answers.keys().all(|name| before.contains(name)));
    }
    let pretty = cluster
        .swarmlet(&["service", "inspect", "--pretty", "ng"])
        .unwrap();
    assert!(pretty.contains(" State:             paused\n"), "{pretty}");

    let back = cluster.hosts[0]
        .swarmlet(&["service", "rollback", "ng"])
        .unwrap();
    let line = "rollback: manually requested rollback";
    assert!(back.stderr.contains(line), "{back:?}");
    back.success().unwrap();
    assert_eq!(status(&cluster).unwrap().0, "rollback_completed");
    let after = cluster.all_answer(80).unwrap();
    assert_eq!((after.len(), after.intersection(&before).count()), (5, 3));

    // An image that is not there at all replaces nobody.
    let missing = update(&cluster, &["--image=nowhere.invalid/ghost"]);
    check_failed(&cluster, &missing, said, "paused");
    assert_eq!(cluster.all_answer(80).unwrap(), after);
}

/// What the command shows of the failed container's output.
#[track_caller]
fn last_lines(failed: &Output) -> Vec<&str> {
    let lines: Vec<_> = failed.stderr.lines().collect();
    let head = lines
        .iter()
        .position(|line| line.starts_with("The last lines of task "))
        .unwrap_or_else(|| panic!("no last lines in {failed:?}"));
    lines[head + 1..]
        .iter()
        .map_while(|line| line.split_once("    |"))
        .map(|(_, text)| text.strip_prefix(' ').unwrap_or(text))
        .collect()
}

/// Behaviour check 17 of Docker Swarm.
#[test]
fn a_failed_update_goes_back_by_itself_and_a_failing_rollback_pauses() {
    let cluster = Cluster::start(1).unwrap();
    // What the first version needs is there, for now, on all hosts.
    let needed = cluster.hosts.directory().join("needed");
    fs::create_dir_all(&needed).unwrap();
    let mount = format!(
        "type=bind,source={},target=/needed,readonly",
        needed.display()
    );
    let policy = ["--update-failure-action=rollback", "--update-delay=4s"];
    let before = five(
        &cluster,
        &[&policy[..], &["--mount", &mount, "whoami"]].concat(),
    );
    // Containers that print their long help and end are no better than those that fail.
    let failed = update(&cluster, &["--args=--help"]);
    let help = cluster.swarmlet(&["whoami", "--help"]).unwrap();
    let lines: Vec<_> = help.lines().collect();
    assert!(lines.len() > 10, "{help}");
    assert_eq!(last_lines(&failed), lines[lines.len() - 10..], "{failed:?}");
    let said = "Error: service rolled back: rollback completed";
    check_failed(&cluster, &failed, said, "rollback_completed");
    let restored = cluster.all_answer(80).unwrap();
    let kept = restored.intersection(&before).count();
    assert_eq!((restored.len(), kept), (5, 4), "one was replaced");

    // Containers that run do without it; one that is to be made again cannot.
    fs::remove_dir_all(&needed).unwrap();
    let failed = update(&cluster, &[&BAD[..], &["--mount-rm=/needed"]].concat());
    let said = "Error: service rollback paused: rollback paused due to failure or early termination of task ";
    check_failed(&cluster, &failed, said, "rollback_paused");
    assert_eq!(cluster.names().unwrap().intersection(&restored).count(), 4);
}
