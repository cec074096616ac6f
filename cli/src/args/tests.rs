use std::ffi::OsString;
use std::time::Duration;

use clap::{CommandFactory, Parser};

use super::*;

/// The first line of the error that a command line gives.
fn error(line: &[&str]) -> String {
    let error = Cli::try_parse_from(["swarmlet"].iter().chain(line)).unwrap_err();
    error
        .to_string()
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn command(line: &[&str]) -> Command {
    Cli::try_parse_from(["swarmlet"].iter().chain(line))
        .unwrap()
        .command
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn malformed_values_are_named() {
    for (line, expected) in [
        (
            &["service", "create", "-p", "80:x", "i"][..],
            "error: invalid value '80:x' for '--publish <PORT>': invalid containerPort: x: expected 1 to 65535",
        ),
        (
            &["service", "create", "--limit-memory", "1q", "i"],
            "error: invalid value '1q' for '--limit-memory <BYTES>': invalid size: '1q': expected a number and a unit, such as 512m or 2g",
        ),
        (
            &["service", "create", "--limit-cpu", "x", "i"],
            "error: invalid value 'x' for '--limit-cpu <CPUS>': failed to parse x as a rational number, such as 0.5",
        ),
        (
            &["service", "create", "--constraint", "zone=a", "i"],
            "error: invalid value 'zone=a' for '--constraint <CONSTRAINT>': invalid constraint \"zone=a\": expected KEY==VALUE or KEY!=VALUE with KEY one of node.id, node.hostname, node.role, node.ip, node.platform.os, node.platform.arch, node.labels.NAME, engine.labels.NAME",
        ),
        (
            &[
                "service",
                "update",
                "--constraint-add",
                "node.ip==10.0.0.300",
                "ng",
            ],
            "error: invalid value 'node.ip==10.0.0.300' for '--constraint-add <CONSTRAINT>': invalid constraint \"node.ip==10.0.0.300\": node.ip is compared with an address or a CIDR block, such as 10.0.0.7 or 10.0.0.0/24",
        ),
        (
            &["service", "create", "--stop-grace-period", "10", "i"],
            "error: invalid value '10' for '--stop-grace-period <DURATION>': missing unit in duration \"10\": write 10s for seconds",
        ),
        (
            &["service", "scale", "ng"],
            "error: invalid value 'ng' for '<SERVICE=REPLICAS>...': invalid scale specifier: expected SERVICE=REPLICAS",
        ),
        (
            &["service", "scale", "ng=-1"],
            "error: invalid value 'ng=-1' for '<SERVICE=REPLICAS>...': invalid replicas value -1: expected a whole number",
        ),
        (
            &["daemon", "--task-ports", "9-5"],
            "error: invalid value '9-5' for '--task-ports <FIRST-LAST>': expected FIRST-LAST, such as 20000-29999",
        ),
        (
            &["daemon", "--raft-election", "800ms-400ms"],
            "error: invalid value '800ms-400ms' for '--raft-election <SHORTEST-LONGEST>': the longest must be longer than the shortest, and neither zero",
        ),
        (&["nod", "ls"], "error: unrecognized subcommand 'nod'"),
        (
            &["join", "host"],
            "error: the following required arguments were not provided:",
        ),
    ] {
        assert_eq!(error(line), expected, "{line:?}");
    }
}

#[test]
fn scale_takes_several_services() {
    let Command::Service(ServiceCommand::Scale(args)) =
        command(&["service", "scale", "a=3", "b=5", "-d"])
    else {
        panic!();
    };
    assert_eq!(args.services, [("a".to_owned(), 3), ("b".to_owned(), 5)]);
    assert!(args.detach);
}

#[test]
fn daemon_settings_survive_the_way_to_a_daemon() {
    let line = [
        "--data-dir",
        "/d",
        "--hostname",
        "h",
        "--listen-addr",
        "127.0.0.1:2377",
        "--http-addr",
        "127.0.0.1:2378",
        "--ingress-addr",
        "127.0.0.1",
        "--ingress-addr",
        "::1",
        "--runtime",
        "process",
        "--docker-host",
        "unix:///x",
        "--task-ports",
        "20000-20010",
        "--reserve-system-cpu",
        "0.250000000",
        "--reserve-system-memory",
        "1048576",
        "--node-generic-resource",
        "gpu=a",
        "--node-generic-resource",
        "gpu=b",
        "--raft-heartbeat",
        "100ms",
        "--raft-election",
        "400ms-900ms",
    ];
    let Command::Daemon(args) = command(&[&["daemon"], &line[..]].concat()) else {
        panic!();
    };
    assert_eq!(
        args.flags.raft_election,
        Some((Duration::from_millis(400), Duration::from_millis(900)))
    );
    assert_eq!(args.flags.ingress_addr.len(), 2);
    assert_eq!(args.flags.to_args(), line);
    assert_eq!(DaemonFlags::default().to_args(), Vec::<OsString>::new());
}
