use swarmlet_core::model::{
    Check, PortMode, PortSpec, Probe, ProxyProtocol, Task, TaskId, TaskPort,
};

use super::*;
use crate::worker::entry::Outcome;
use crate::worker::fake::task;

const NOW: Timestamp = Timestamp(1_000);

fn container(state: ContainerState, address: Option<&str>) -> Container {
    Container {
        task: TaskId::from_random(1),
        id: "c1".to_owned(),
        pid: 7,
        address: address.map(|address| address.parse().unwrap()),
        ports: vec![TaskPort {
            target: 80,
            host: 20_000,
            protocol: Protocol::Tcp,
            mode: PortMode::Ingress,
        }],
        state,
        failing: None,
    }
}

fn checked(action: UnhealthyAction) -> Task {
    task(1, |task| {
        let container = &mut task.spec.containers[0];
        container.check = Some(Check::new(Probe::Tcp { port: None }));
        container.unhealthy_action = action;
        task.ports = vec![PortSpec {
            target: 80,
            published: 8080,
            protocol: Protocol::Tcp,
            mode: PortMode::Ingress,
            proxy_protocol: None,
            accept_proxy: Vec::new(),
        }];
    })
}

/// An entry whose container runs, as far as its engine says.
fn running(action: UnhealthyAction, engine: Health) -> Entry {
    let mut entry = Entry::assigned(checked(action), NOW);
    entry.look = false;
    let found = container(ContainerState::Running(engine), None);
    entry.finished(Outcome::Found(Some(found)), NOW);
    entry
}

fn says(entry: &mut Entry, health: check::Health) {
    let report = Report {
        task: entry.id.clone(),
        container: "c1".to_owned(),
        health,
        reason: (health != check::Health::Healthy).then(|| "check tcp: refused".to_owned()),
    };
    entry.report(report, NOW);
}

fn stands(entry: &Entry) -> (TaskState, bool, bool, Option<&str>) {
    (
        entry.status.state,
        entry.is_ejected(),
        entry.serving().is_some(),
        entry.status.error.as_deref(),
    )
}

const UNHEALTHY: Option<&str> = Some("unhealthy container: check tcp: refused");

#[test]
fn it_takes_connections_once_the_check_has_passed() {
    let mut entry = running(UnhealthyAction::Restart, Health::Unchecked);
    assert_eq!(stands(&entry), (TaskState::Starting, false, false, None));
    says(&mut entry, check::Health::Healthy);
    assert_eq!(stands(&entry), (TaskState::Running, false, true, None));
}

#[test]
fn a_task_that_is_not_healthy_yet_says_why() {
    let mut entry = running(UnhealthyAction::Restart, Health::Unchecked);
    says(&mut entry, check::Health::Starting);
    let error = Some("not healthy yet: check tcp: refused");
    assert_eq!(stands(&entry), (TaskState::Starting, false, false, error));
    says(&mut entry, check::Health::Healthy);
    assert_eq!(stands(&entry), (TaskState::Running, false, true, None));

    // The engine's own check has no event for it, but another look finds the reason.
    let mut entry = running(UnhealthyAction::Restart, Health::Starting);
    says(&mut entry, check::Health::Healthy);
    assert_eq!(stands(&entry), (TaskState::Starting, false, false, None));
    let mut found = container(ContainerState::Running(Health::Starting), None);
    found.failing = Some("health check: exit code 1".to_owned());
    entry.finished(Outcome::Found(Some(found.clone())), NOW);
    let error = Some("not healthy yet: health check: exit code 1");
    assert_eq!(stands(&entry), (TaskState::Starting, false, false, error));
    found.state = ContainerState::Running(Health::Unhealthy);
    entry.finished(Outcome::Found(Some(found)), NOW);
    let error = Some("unhealthy container: health check: exit code 1");
    assert_eq!(stands(&entry), (TaskState::Failed, false, false, error));
}

#[test]
fn the_engines_check_and_the_nodes_own_must_both_pass() {
    let mut entry = running(UnhealthyAction::Restart, Health::Starting);
    says(&mut entry, check::Health::Healthy);
    assert_eq!(stands(&entry).0, TaskState::Starting);
    let found = container(ContainerState::Running(Health::Healthy), None);
    entry.finished(Outcome::Found(Some(found)), NOW);
    assert_eq!(stands(&entry).0, TaskState::Running);
}

#[test]
fn an_unhealthy_task_is_replaced_or_waited_for() {
    let mut entry = running(UnhealthyAction::Restart, Health::Unchecked);
    says(&mut entry, check::Health::Healthy);
    says(&mut entry, check::Health::Unhealthy);
    assert_eq!(stands(&entry), (TaskState::Failed, false, false, UNHEALTHY));

    let mut entry = running(UnhealthyAction::Eject, Health::Unchecked);
    says(&mut entry, check::Health::Healthy);
    says(&mut entry, check::Health::Unhealthy);
    assert_eq!(stands(&entry), (TaskState::Running, true, false, UNHEALTHY));
    // Another look at the container changes nothing of it.
    let found = container(ContainerState::Running(Health::Unchecked), None);
    entry.finished(Outcome::Found(Some(found)), NOW);
    assert_eq!(stands(&entry), (TaskState::Running, true, false, UNHEALTHY));
    says(&mut entry, check::Health::Healthy);
    assert_eq!(stands(&entry), (TaskState::Running, false, true, None));
}

#[test]
fn a_task_that_was_never_healthy_fails_whatever_the_action() {
    let mut entry = running(UnhealthyAction::Eject, Health::Unchecked);
    says(&mut entry, check::Health::Unhealthy);
    assert_eq!(stands(&entry), (TaskState::Failed, false, false, UNHEALTHY));
}

#[test]
fn the_engines_check_ejects_as_well() {
    let mut entry = running(UnhealthyAction::Eject, Health::Healthy);
    says(&mut entry, check::Health::Healthy);
    let found = container(ContainerState::Running(Health::Unhealthy), None);
    entry.finished(Outcome::Found(Some(found)), NOW);
    let error = Some("unhealthy container");
    assert_eq!(stands(&entry), (TaskState::Running, true, false, error));
}

#[test]
fn an_agent_that_is_started_again_goes_on_from_what_was_known() {
    for (before, expected) in [
        (check::Health::Healthy, check::Health::Healthy),
        (check::Health::Unhealthy, check::Health::Unhealthy),
    ] {
        let mut entry = running(UnhealthyAction::Eject, Health::Unchecked);
        says(&mut entry, check::Health::Healthy);
        says(&mut entry, before);
        let mut again = Entry::assigned(entry.to_keep().unwrap(), NOW);
        let found = container(ContainerState::Running(Health::Unchecked), None);
        again.finished(Outcome::Found(Some(found)), NOW);
        assert_eq!(again.status, entry.status);
        let subject = again.to_check("10.0.0.1".parse().unwrap()).unwrap();
        assert_eq!(subject.health, expected);
    }
}

#[test]
fn the_containers_own_address_is_asked_before_the_port_of_the_node() {
    let asked = |address: Option<&str>| {
        let mut entry = Entry::assigned(checked(UnhealthyAction::Restart), NOW);
        let found = container(ContainerState::Running(Health::Unchecked), address);
        entry.finished(Outcome::Found(Some(found)), NOW);
        let subject = entry.to_check("10.0.0.1".parse().unwrap()).unwrap();
        subject.address.to_string()
    };
    assert_eq!(asked(Some("172.17.0.2")), "172.17.0.2:80");
    assert_eq!(asked(None), "10.0.0.1:20000");
}

#[test]
fn a_port_is_asked_as_its_balancer_speaks_to_it() {
    let asked = |version| {
        let mut task = checked(UnhealthyAction::Restart);
        task.ports[0].proxy_protocol = version;
        // Another port of the container, which the check does not ask.
        task.ports.push(PortSpec {
            target: 81,
            published: 8081,
            proxy_protocol: Some(ProxyProtocol::V1),
            ..task.ports[0].clone()
        });
        let mut entry = Entry::assigned(task, NOW);
        let found = container(ContainerState::Running(Health::Unchecked), None);
        entry.finished(Outcome::Found(Some(found)), NOW);
        entry
            .to_check("10.0.0.1".parse().unwrap())
            .unwrap()
            .proxy_protocol
    };
    for version in [None, Some(ProxyProtocol::V2)] {
        assert_eq!(asked(version), version);
    }
}

#[test]
fn what_is_to_stop_is_not_checked() {
    let mut entry = running(UnhealthyAction::Restart, Health::Unchecked);
    let advertise = "10.0.0.1".parse().unwrap();
    assert!(entry.to_check(advertise).is_some());
    entry.unassign();
    assert!(entry.to_check(advertise).is_none());
}
