use swarmlet_core::model::{ServiceMode, ServiceSpec};

use super::*;
use crate::args::{Cli, Command, ServiceCommand};
use crate::spec::{edited, service_spec};
use clap::Parser;

fn create(line: &[&str]) -> Result<ServiceSpec, String> {
    let line = ["swarmlet", "service", "create"].iter().chain(line);
    match Cli::try_parse_from(line).unwrap().command {
        Command::Service(ServiceCommand::Create(args)) => {
            service_spec(&args).map_err(|error| format!("{error:#}"))
        }
        other => panic!("{other:?}"),
    }
}

fn update(spec: &ServiceSpec, line: &[&str]) -> Result<ServiceSpec, String> {
    let line = ["swarmlet", "service", "update", "ng"].iter().chain(line);
    match Cli::try_parse_from(line).unwrap().command {
        Command::Service(ServiceCommand::Update(args)) => {
            edited(spec, &args).map_err(|error| format!("{error:#}"))
        }
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn check(line: &[&str], expected: Result<ServiceMode, &str>) {
    let found = create(&[line, &["whoami"]].concat()).map(|spec| spec.mode);
    assert_eq!(found, expected.map_err(str::to_owned), "{line:?}");
}

const NOT_COUNTED: &str = "replicas can only be used with replicated or replicated-job mode";
const NOT_LIMITED: &str = "max-concurrent can only be used with replicated-job mode";
const NOT_UPDATED: &str = "update and rollback configuration is not supported for jobs";

fn job(max_concurrent: u32, total_completions: u32) -> ServiceMode {
    ServiceMode::ReplicatedJob {
        max_concurrent,
        total_completions,
    }
}

#[test]
fn modes_have_the_numbers_that_they_can_have() {
    check(&[], Ok(ServiceMode::Replicated { replicas: 1 }));
    check(&["--mode=global"], Ok(ServiceMode::Global {}));
    check(&["--mode=replicated-job"], Ok(job(0, 1)));
    check(
        &[
            "--mode=replicated-job",
            "--replicas=5",
            "--max-concurrent=2",
        ],
        Ok(job(2, 5)),
    );
    check(&["--mode=global-job"], Ok(ServiceMode::GlobalJob {}));
    check(&["--mode=global", "--replicas=2"], Err(NOT_COUNTED));
    check(&["--mode=global-job", "--replicas=2"], Err(NOT_COUNTED));
    check(&["--max-concurrent=2"], Err(NOT_LIMITED));
    check(&["--mode=global", "--max-concurrent=2"], Err(NOT_LIMITED));
}

#[test]
fn jobs_are_restarted_after_failures_only_and_never_updated() {
    let spec = create(&["--mode=global-job", "whoami"]).unwrap();
    let condition = spec.task.restart.condition;
    assert_eq!(condition, RestartCondition::OnFailure);
    let refused = create(&["--mode=global-job", "--restart-condition=any", "whoami"]).unwrap_err();
    assert!(
        refused.starts_with("restart condition any is not supported for jobs"),
        "{refused}"
    );
    check(
        &["--mode=replicated-job", "--update-parallelism=2"],
        Err(NOT_UPDATED),
    );
    check(
        &["--mode=global-job", "--rollback-delay=2s"],
        Err(NOT_UPDATED),
    );
}

#[test]
fn an_update_keeps_the_mode() {
    let spec = create(&["--mode=replicated-job", "--replicas=3", "whoami"]).unwrap();
    let more = update(&spec, &["--replicas=7", "--max-concurrent=2"]).unwrap();
    assert_eq!(more.mode, job(2, 7));
    let global = create(&["--mode=global", "whoami"]).unwrap();
    let refused = update(&global, &["--replicas=7"]);
    assert_eq!(refused, Err(NOT_COUNTED.to_owned()));
    let refused = update(&global, &["--max-concurrent=7"]);
    assert_eq!(refused, Err(NOT_LIMITED.to_owned()));
}
