use std::time::Duration;

use clap::Parser;
use swarmlet_core::model::{FailureAction, UpdateConfig, UpdateOrder};

use super::*;
use crate::args::{Cli, Command, ServiceCommand};
use crate::spec::service_spec;

fn parse(line: &[&str]) -> ServiceUpdateArgs {
    let line = ["swarmlet", "service", "update", "ng"].iter().chain(line);
    match Cli::try_parse_from(line).unwrap().command {
        Command::Service(ServiceCommand::Update(args)) => *args,
        other => panic!("{other:?}"),
    }
}

fn created(line: &[&str]) -> ServiceSpec {
    let line = ["swarmlet", "service", "create", "--name=ng"]
        .iter()
        .chain(line);
    match Cli::try_parse_from(line).unwrap().command {
        Command::Service(ServiceCommand::Create(args)) => service_spec(&args).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// A service created with some flags and then updated is one created with others.
#[track_caller]
fn check(before: &[&str], update: &[&str], after: &[&str]) {
    let edited = edited(&created(before), &parse(update)).unwrap();
    assert_eq!(edited, created(after));
}

#[test]
fn nothing_given_changes_nothing() {
    let all = [
        "-p",
        "80:80",
        "-e",
        "A=1",
        "-l",
        "a=b",
        "--health-cmd=x",
        "i",
        "arg",
    ];
    check(&all, &[], &all);
}

#[test]
fn every_flag_finds_its_place() {
    check(
        &["a"],
        &["--image=b", "--args=-x \"y z\"", "--replicas=3"],
        &["--replicas=3", "b", "-x", "y z"],
    );
    check(
        &["-e", "A=1", "-e", "B=2", "-e", "C=3", "i"],
        &["--env-rm=A", "--env-add=B=4", "--env-add=D=5"],
        &["-e", "C=3", "-e", "B=4", "-e", "D=5", "i"],
    );
    check(
        &["-l", "a=1", "-l", "b=2", "--container-label=x=1", "i"],
        &[
            "--label-rm=a",
            "--label-add=b=3",
            "--container-label-rm=x",
            "--container-label-add=y=2",
        ],
        &["-l", "b=3", "--container-label=y=2", "i"],
    );
    check(
        &[
            "--mount=type=volume,source=v,target=/v",
            "--mount=type=tmpfs,target=/t",
            "i",
        ],
        &[
            "--mount-rm=/t",
            "--mount-add=type=volume,source=w,target=/v",
        ],
        &["--mount=type=volume,source=w,target=/v", "i"],
    );
    check(
        &["-p", "80:80", "-p", "81:81", "i"],
        &["--publish-rm=81", "--publish-add=82:82"],
        &["-p", "80:80", "-p", "82:82", "i"],
    );
    check(
        &["-p", "80:80", "i"],
        &[
            "--publish-add=80:80,proxy-protocol=v2,accept-proxy=10.0.0.0/8",
            "--lb-policy=least-conn",
            "--lb-prefer-local",
        ],
        &[
            "-p",
            "80:80,proxy-protocol=v2,accept-proxy=10.0.0.0/8",
            "--lb-policy=least-conn",
            "--lb-prefer-local=true",
            "i",
        ],
    );
    check(
        &["--lb-policy=source-hash", "i"],
        &["--lb-policy=round-robin", "--lb-prefer-local=false"],
        &["i"],
    );
    check(
        &["--constraint=node.role==worker", "i"],
        &[
            "--constraint-rm=node.role==worker",
            "--constraint-add=node.labels.zone==a",
        ],
        &["--constraint=node.labels.zone==a", "i"],
    );
}

#[test]
fn settings_are_set_alike_by_both_commands() {
    let settings = [
        "--limit-pids=100",
        "--replicas-max-per-node=2",
        "--placement-strategy=binpack",
        "--limit-cpu=2",
        "--limit-memory=64m",
        "--reserve-cpu=1",
        "--reserve-memory=32m",
        "--restart-condition=on-failure",
        "--restart-delay=1s",
        "--restart-max-attempts=3",
        "--restart-window=10s",
        "--stop-grace-period=20s",
        "--stop-signal=SIGINT",
        "--drain-timeout=30s",
        "--health-cmd=check",
        "--health-interval=1s",
        "--health-timeout=2s",
        "--health-start-period=3s",
        "--health-retries=4",
        "--check-http=80/up",
        "--check-interval=3s",
        "--check-timeout=2s",
        "--check-rise=1",
        "--check-fall=2",
        "--check-start-period=5s",
        "--unhealthy-action=eject",
        "--hostname=h",
        "--user=u",
        "--workdir=/w",
        "--entrypoint=run it",
        "--update-parallelism=2",
        "--update-delay=1s",
        "--update-monitor=2s",
        "--update-max-failure-ratio=0.5",
        "--update-failure-action=rollback",
        "--update-order=start-first",
        "--update-progress-deadline=1m",
        "--rollback-parallelism=0",
        "--rollback-failure-action=continue",
    ];
    let mut with: Vec<&str> = settings.to_vec();
    with.extend(["-p=80:80", "i"]);
    check(&["-p=80:80", "i"], &settings, &with);
    check(&with, &["--no-healthcheck", "--health-cmd="][..1], &{
        let mut line: Vec<&str> = settings
            .iter()
            .copied()
            .filter(|flag| !flag.starts_with("--health"))
            .collect();
        line.extend(["--no-healthcheck", "-p=80:80", "i"]);
        line
    });
}

#[test]
fn placement_flags_find_their_place() {
    check(
        &[
            "--placement-pref=spread=node.labels.zone",
            "--placement-pref=spread=node.labels.rack",
            "--platform=linux/amd64",
            "--generic-resource=gpu=1",
            "--generic-resource=disc=2",
            "i",
        ],
        &[
            "--placement-pref-rm=spread=node.labels.zone",
            "--placement-pref-add=spread=node.labels.row",
            "--platform-rm=linux/amd64",
            "--platform-add=linux/arm64",
            "--generic-resource-rm=disc",
            "--generic-resource-add=gpu=3",
        ],
        &[
            "--placement-pref=spread=node.labels.rack",
            "--placement-pref=spread=node.labels.row",
            "--platform=linux/arm64",
            "--generic-resource=gpu=3",
            "i",
        ],
    );
}

#[test]
fn force_makes_new_tasks() {
    let before = created(&["i"]);
    let after = edited(&before, &parse(&["--force"])).unwrap();
    assert_eq!(after.task.force_update, before.task.force_update + 1);
}

#[test]
fn update_settings_are_dockers_unless_given() {
    let spec = created(&[
        "--update-order=start-first",
        "--update-failure-action=rollback",
        "i",
    ]);
    assert_eq!(
        spec.update,
        UpdateConfig {
            order: UpdateOrder::StartFirst,
            failure_action: FailureAction::Rollback,
            parallelism: 1,
            monitor: Duration::from_secs(5),
            ..UpdateConfig::default()
        }
    );
    assert_eq!(spec.rollback, UpdateConfig::default());
}

#[test]
fn what_could_never_move_is_refused() {
    let args = parse(&[
        "--update-min-healthy-percent=100",
        "--update-max-percent=100",
    ]);
    let error = edited(&created(&["i"]), &args).unwrap_err().to_string();
    assert!(error.starts_with("the update could never move"), "{error}");
    let back = parse(&["--update-order=stop-first"]);
    let percents = parse(&["--update-max-percent=150", "--replicas=4"]);
    let spec = edited(&created(&["i"]), &percents).unwrap();
    assert_eq!(
        edited(&spec, &back).unwrap().update,
        UpdateConfig::default()
    );
}
