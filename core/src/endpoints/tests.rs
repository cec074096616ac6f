use super::*;
use crate::command::Command;
use crate::model::{ContainerStatus, ProxyProtocol};
use crate::testing::{World, ingress, node_id, observed, service_id, spec};

/// `80 ng 10.0.0.1:20001 10.0.0.2:20002(draining)`, for every listener.
fn lines(world: &World) -> Vec<String> {
    let table = derive(&world.state);
    assert_eq!(table.version, world.state.version());
    let lines = table.listeners.iter().map(|listener| {
        let mut line = format!("{} {}", listener.port, listener.service_name);
        let mut endpoints: Vec<String> = listener
            .endpoints
            .iter()
            .map(|endpoint| {
                let draining = match endpoint.state {
                    EndpointState::Ready => "",
                    EndpointState::Draining => "(draining)",
                };
                format!(" {}{draining}", endpoint.address)
            })
            .collect();
        endpoints.sort();
        line.extend(endpoints);
        line
    });
    lines.collect()
}

fn placed() -> World {
    let mut world = World::new(1);
    let mut ng = spec("ng", 2);
    ng.ports = vec![ingress(8080, 81), ingress(80, 80)];
    world.create(1, ng);
    world.settle();
    world
}

#[test]
fn endpoints_are_the_tasks_that_run() {
    let mut world = placed();
    assert_eq!(lines(&world), ["80 ng", "8080 ng"]);
    let first = world.members().into_iter().find(|t| t.slot == 1).unwrap();
    world.report(&first.id, TaskState::Starting);
    assert_eq!(lines(&world)[0], "80 ng", "it is not known to be healthy");
    world.run_all();
    let both = "10.0.0.1:20001 10.0.0.1:20002";
    assert_eq!(
        lines(&world),
        [format!("80 ng {both}"), format!("8080 ng {both}")]
    );
    world.report(&first.id, TaskState::Failed);
    assert_eq!(lines(&world)[0], "80 ng 10.0.0.1:20002");
}

#[test]
fn draining_ones_are_marked_and_stopping_ones_gone() {
    let mut world = placed();
    world.run_all();
    world.scale(1, 1);
    world.settle();
    assert_eq!(
        lines(&world)[0],
        "80 ng 10.0.0.1:20001 10.0.0.1:20002(draining)"
    );
    let draining = world
        .state
        .tasks()
        .find(|task| task.draining.is_some())
        .unwrap();
    let id = draining.id.clone();
    world.ok(Command::SetDesired {
        id,
        desired: TaskState::Shutdown,
    });
    assert_eq!(lines(&world)[0], "80 ng 10.0.0.1:20001");
}

#[test]
fn nodes_that_are_silent_have_none() {
    let mut world = placed();
    world.run_all();
    for (state, expected) in [
        (NodeState::Unknown, "80 ng"),
        (NodeState::Ready, "80 ng 10.0.0.1:20001 10.0.0.1:20002"),
        (NodeState::Down, "80 ng"),
    ] {
        world.node_is(1, state);
        assert_eq!(lines(&world)[0], expected);
    }
}

#[test]
fn a_removed_service_has_no_listener() {
    let mut world = placed();
    world.run_all();
    let task = world.members().remove(0);
    world.ok(Command::RemoveService { id: service_id(1) });
    assert_eq!(lines(&world), [""; 0]);
    assert!(
        is_routable(&world.state, &task),
        "its connections are still there"
    );
}

#[test]
fn a_task_whose_checks_fail_gets_no_new_connections() {
    let mut world = placed();
    let task = world.members().remove(0);
    let mut state_after = |ejected| {
        let mut status = observed(&task, TaskState::Running);
        status.container = Some(ContainerStatus {
            ejected,
            ..ContainerStatus::default()
        });
        world.ok(Command::ReportTask {
            id: task.id.clone(),
            by: Some(node_id(1)),
            status: Box::new(status),
        });
        derive(&world.state).listeners[0].endpoints[0].state
    };
    assert_eq!(state_after(false), EndpointState::Ready);
    assert_eq!(state_after(true), EndpointState::Draining);
    assert_eq!(state_after(false), EndpointState::Ready);
}

#[test]
fn the_way_on_the_own_node_is_the_containers_address() {
    let mut world = placed();
    let task = world.members().remove(0);
    let mut status = observed(&task, TaskState::Running);
    status.container = Some(ContainerStatus {
        address: Some([172, 17, 0, 2].into()),
        ..ContainerStatus::default()
    });
    world.ok(Command::ReportTask {
        id: task.id,
        by: Some(node_id(1)),
        status: Box::new(status),
    });
    let table = derive(&world.state);
    let local = |listener: usize| table.listeners[listener].endpoints[0].local.unwrap();
    assert_eq!(local(0).to_string(), "172.17.0.2:80");
    assert_eq!(local(1).to_string(), "172.17.0.2:81");
    assert_eq!(table.listeners[0].endpoints[0].weight, WEIGHT);
}

fn service(world: &World) -> Service {
    world.state.service(&service_id(1)).unwrap().clone()
}

/// While an update goes on there are tasks that expect a header and tasks that do not.
#[test]
fn a_task_is_told_what_was_asked_for_when_it_was_made() {
    let mut world = placed();
    world.run_all();
    world.update(1, |ng| {
        assert_eq!(ng.ports[1].published, 80);
        ng.ports[1].proxy_protocol = Some(ProxyProtocol::V2);
    });
    let table = derive(&world.state);
    let mut endpoints = table.listeners.iter().flat_map(|one| &one.endpoints);
    assert!(
        endpoints.all(|one| one.proxy_protocol.is_none()),
        "all are old"
    );
    let service = service(&world);
    let old = world.members();
    assert!(old.iter().all(|task| service.is_outdated(task)));
    let mut new = old[0].clone();
    new.ports.clone_from(&service.spec.ports);
    let [other, changed] = &service.spec.ports[..] else {
        panic!("two ports");
    };
    assert_eq!(proxy_protocol(&new, changed), Some(ProxyProtocol::V2));
    assert_eq!(proxy_protocol(&new, other), None);
    assert_eq!(proxy_protocol(&old[0], changed), None);
    // A port that it does not know leads where another one leads.
    let unknown = PortSpec {
        published: 90,
        proxy_protocol: None,
        ..changed.clone()
    };
    assert_eq!(proxy_protocol(&new, &unknown), Some(ProxyProtocol::V2));
}

#[test]
fn what_is_believed_of_clients_replaces_no_task() {
    let mut world = placed();
    world.run_all();
    let trusted = "10.0.0.0/8".parse().unwrap();
    world.update(1, |ng| ng.ports[0].accept_proxy = vec![trusted]);
    let service = service(&world);
    assert!(!world.members().iter().any(|task| service.is_outdated(task)));
    assert_eq!(service.update_status, None);
    let table = derive(&world.state);
    assert_eq!(table.listeners[1].accept_proxy, [trusted]);
    assert_eq!(table.listeners[0].accept_proxy, []);
}
