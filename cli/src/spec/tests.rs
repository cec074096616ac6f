use std::time::Duration;

use clap::Parser;
use swarmlet_core::model::{
    Check, HealthTest, MountKind, PortMode, Probe, RestartCondition, RestartPolicy,
};

use super::settings::words;
use super::*;
use crate::args::{Cli, Command, ServiceCommand};

fn parse(line: &[&str]) -> CreateArgs {
    let line = ["swarmlet", "service", "create"].iter().chain(line);
    match Cli::try_parse_from(line).unwrap().command {
        Command::Service(ServiceCommand::Create(args)) => *args,
        other => panic!("{other:?}"),
    }
}

fn spec(line: &[&str]) -> Result<ServiceSpec, String> {
    service_spec(&parse(line)).map_err(|error| format!("{error:#}"))
}

#[test]
fn every_flag_finds_its_place() {
    let spec = spec(&[
        "--name=ng",
        "--replicas=3",
        "-p",
        "80:80",
        "--publish=target=53,mode=host,protocol=udp",
        "-e",
        "A=1",
        "--env=B=2",
        "--mount=type=bind,source=/srv,target=/data,readonly",
        "-l",
        "team=a",
        "--container-label=x=y",
        "--constraint=node.labels.zone==a",
        "--limit-cpu=1.5",
        "--limit-memory=64m",
        "--reserve-cpu=0.5",
        "--reserve-memory=32MiB",
        "--limit-pids=50",
        "--generic-resource=gpu=2",
        "--placement-pref=spread=node.labels.zone",
        "--replicas-max-per-node=3",
        "--placement-strategy=binpack",
        "--platform=linux/arm64",
        "whoami",
    ])
    .unwrap();
    assert_eq!(spec.name, "ng");
    assert_eq!(spec.mode.replicas(), Some(3));
    assert_eq!(spec.ports[0].published, 80);
    assert_eq!(spec.ports[1].mode, PortMode::Host);
    assert_eq!(spec.labels["team"], "a");
    assert_eq!(
        spec.task.placement.constraints[0].to_string(),
        "node.labels.zone==a"
    );
    let container = spec.task.container().unwrap();
    let resources = &spec.task.resources;
    assert_eq!(resources.limits.nano_cpus, 1_500_000_000);
    assert_eq!(resources.limits.memory_bytes, 64 << 20);
    assert_eq!(resources.reservations.nano_cpus, 500_000_000);
    assert_eq!(resources.reservations.memory_bytes, 32 << 20);
    assert_eq!(resources.limits.pids, 50);
    assert_eq!(resources.reservations.generic["gpu"], 2);
    let placement = &spec.task.placement;
    assert_eq!(
        serde_json::to_string(placement).unwrap(),
        "{\"Constraints\":[\"node.labels.zone==a\"],\
         \"Preferences\":[{\"Spread\":{\"SpreadDescriptor\":\"node.labels.zone\"}}],\
         \"MaxReplicas\":3,\"Platforms\":[{\"OS\":\"linux\",\"Architecture\":\"arm64\"}],\
         \"Strategy\":\"binpack\"}"
    );
    assert_eq!(
        serde_json::to_string(&resources.reservations).unwrap(),
        "{\"NanoCPUs\":500000000,\"MemoryBytes\":33554432,\"GenericResources\":\
         [{\"DiscreteResourceSpec\":{\"Kind\":\"gpu\",\"Value\":2}}]}"
    );
    assert_eq!(container.env, ["A=1", "B=2"]);
    assert_eq!(container.labels["x"], "y");
    assert_eq!(container.mounts[0].kind, MountKind::Bind);
    assert!(container.mounts[0].read_only);
}

#[test]
fn how_a_task_runs_and_ends() {
    let spec = spec(&[
        "--restart-condition=on-failure",
        "--restart-delay=2s",
        "--restart-max-attempts=3",
        "--restart-window=1m30s",
        "--stop-grace-period=500ms",
        "--stop-signal=SIGINT",
        "--drain-timeout=3s",
        "--health-cmd=true",
        "--health-interval=1s",
        "--health-start-interval=200ms",
        "--health-retries=2",
        "--hostname=h",
        "-u",
        "1:1",
        "-w",
        "/w",
        "--entrypoint",
        "sh -c 'a b'",
        "whoami",
        "--name",
        "-p",
        "x",
    ])
    .unwrap();
    let restart = spec.task.restart;
    assert_eq!(restart.condition, RestartCondition::OnFailure);
    assert_eq!(restart.delay, Duration::from_secs(2));
    assert_eq!(
        (restart.max_attempts, restart.window),
        (3, Duration::from_secs(90))
    );
    assert_eq!(spec.drain_timeout, Duration::from_secs(3));
    let container = spec.task.container().unwrap();
    assert_eq!(container.stop_grace_period, Duration::from_millis(500));
    assert_eq!(container.stop_signal.as_deref(), Some("SIGINT"));
    assert_eq!(container.hostname.as_deref(), Some("h"));
    assert_eq!(container.user.as_deref(), Some("1:1"));
    assert_eq!(container.workdir.as_deref(), Some("/w"));
    assert_eq!(container.entrypoint, ["sh", "-c", "a b"]);
    assert_eq!(
        container.args,
        ["--name", "-p", "x"],
        "what follows the image is the image's"
    );
    let health = container.health.as_ref().unwrap();
    assert_eq!(health.test, HealthTest::Shell("true".to_owned()));
    assert_eq!(health.start_interval, Some(Duration::from_millis(200)));
    assert_eq!(
        (health.interval, health.retries),
        (Some(Duration::from_secs(1)), Some(2))
    );
    assert!(spec.name.starts_with("whoami-"), "{}", spec.name);
}

#[test]
fn log_drivers_are_set_changed_and_taken_back() {
    let spec = spec(&["--log-driver=local", "--log-opt=max-size=1m", "x"]).unwrap();
    let driver = spec.task.log_driver.clone().unwrap();
    assert_eq!(driver.name, "local");
    assert_eq!(driver.options["max-size"], "1m");
    let changed = |line: &[&str]| {
        let mut spec = spec.clone();
        set_fields(&mut spec, &parse(line).flags).unwrap();
        spec.task.log_driver
    };
    assert_eq!(changed(&["x"]), Some(driver));
    let options = changed(&["--log-opt=max-file=3", "x"]).unwrap().options;
    assert_eq!(
        options.into_iter().collect::<Vec<_>>(),
        [("max-file".to_owned(), "3".to_owned())]
    );
    assert_eq!(
        changed(&["--log-driver=none", "x"]).unwrap().options.len(),
        0
    );
    assert_eq!(changed(&["--log-driver=", "x"]), None);
}

#[test]
fn defaults_are_dockers() {
    let spec = spec(&["--name=ng", "whoami"]).unwrap();
    assert_eq!(spec.mode.replicas(), Some(1));
    assert_eq!(spec.task.restart, RestartPolicy::default());
    let container = spec.task.container().unwrap();
    assert_eq!(container.stop_grace_period, Duration::from_secs(10));
    assert_eq!(container.health, None);
}

#[test]
fn health_flags_agree() {
    let health = |line: &[&str]| {
        let line: Vec<_> = line.iter().chain(&["whoami"]).copied().collect();
        spec(&line).map(|spec| {
            spec.task.containers[0]
                .health
                .as_ref()
                .map(|h| h.test.clone())
        })
    };
    assert_eq!(
        health(&["--no-healthcheck"]),
        Ok(Some(HealthTest::Disabled))
    );
    assert_eq!(
        health(&["--health-retries=1"]),
        Ok(Some(HealthTest::Inherit))
    );
    let conflict = Err("--no-healthcheck conflicts with --health-* options".to_owned());
    assert_eq!(health(&["--no-healthcheck", "--health-cmd=x"]), conflict);
    assert_eq!(
        health(&["--no-healthcheck", "--health-timeout=1s"]),
        conflict
    );
}

#[test]
fn check_flags_agree() {
    let check = |line: &[&str]| {
        let line: Vec<_> = line
            .iter()
            .chain(&["-p=80:80", "whoami"])
            .copied()
            .collect();
        spec(&line).map(|spec| spec.task.containers[0].check.clone())
    };
    let tcp = |port| Some(Check::new(Probe::Tcp { port }));
    assert_eq!(check(&[]), Ok(None));
    assert_eq!(check(&["--check-tcp"]), Ok(tcp(None)));
    assert_eq!(check(&["--check-tcp=80"]), Ok(tcp(Some(80))));
    assert_eq!(
        check(&["--check-http=/up", "--check-rise=1", "--check-fall=5"]),
        Ok(Some(Check {
            rise: 1,
            fall: 5,
            ..Check::new(Probe::http("/up").unwrap())
        }))
    );
    assert_eq!(
        check(&["--check-rise=1"]),
        Err("there is no check to time: name one with --check-http or --check-tcp".to_owned())
    );
    assert_eq!(
        check(&["--no-check", "--check-rise=1"]),
        Err("--no-check conflicts with --check-* options".to_owned())
    );
}

#[test]
fn mistakes_are_found_before_the_cluster_is_asked() {
    for (line, expected) in [
        (
            &["--log-opt=max-size=1m", "x"][..],
            "--log-opt needs --log-driver",
        ),
        (
            &["--name=a b", "x"][..],
            "invalid service name \"a b\": 1 to 63 letters, digits, '-' or '_', the first and last a letter or digit",
        ),
        (
            &["-p", "53:53/udp", "x"],
            "port 53:53/udp cannot be published through the ingress mesh: use mode=host",
        ),
        (
            &["--limit-memory=1m", "x"],
            "memory limit of 1048576 bytes is too small: at least 6MiB",
        ),
        (
            &["-e", "=1", "x"],
            "invalid environment variable: =1: expected NAME=VALUE",
        ),
        (
            &["--entrypoint", "a 'b", "x"],
            "invalid command \"a 'b\": a quote is not closed",
        ),
        (
            &["--env-file", "/nowhere", "x"],
            "cannot read the environment file /nowhere: No such file or directory (os error 2)",
        ),
    ] {
        assert_eq!(spec(line).unwrap_err(), expected, "{line:?}");
    }
}

#[test]
fn environment_files_come_before_flags() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("env");
    std::fs::write(&path, "# c\nA=1\nB=2\n").unwrap();
    let file = format!("--env-file={}", path.display());
    let spec = spec(&[&file, "-e", "A=3", "x"]).unwrap();
    assert_eq!(spec.task.containers[0].env, ["B=2", "A=3"]);
    std::fs::write(&path, "A B\n").unwrap();
    let error = service_spec(&parse(&[&file, "x"])).unwrap_err();
    assert_eq!(
        format!("{error:#}"),
        format!(
            "poorly formatted environment file {}: variable 'A B' contains whitespaces",
            path.display()
        )
    );
}

#[test]
fn entrypoints_are_split_as_a_shell_does() {
    for (text, expected) in [
        ("", &[][..]),
        ("  a  b ", &["a", "b"]),
        (
            "a 'b c' \"d\\\" e\" f\\ g ''",
            &["a", "b c", "d\" e", "f g", ""],
        ),
        ("'a\\b'", &["a\\b"]),
    ] {
        assert_eq!(words(text).unwrap(), expected, "{text}");
    }
}
