use std::collections::BTreeMap;

use swarmlet_agent::{RoutedEndpoint, RoutedListener};
use swarmlet_core::model::{LbPolicy, Protocol, TaskId};
use swarmlet_lb::status::{
    ConnectTimes, EndpointCondition, EndpointStatus, ListenerStatus, RemovedEndpoint, Status,
    Traffic,
};
use swarmlet_lb::table::EndpointState;

use super::*;

fn task(number: u128) -> TaskId {
    TaskId::from_random(number)
}

#[test]
fn tables_are_translated() {
    let endpoint = |number, draining| RoutedEndpoint {
        task: task(number),
        address: "10.0.0.1:20000".parse().unwrap(),
        weight: 1,
        draining,
    };
    let listener = |port, protocol| RoutedListener {
        port,
        protocol,
        service: "ng".to_owned(),
        policy: LbPolicy::RoundRobin,
        endpoints: vec![endpoint(1, false), endpoint(2, true)],
    };
    let table = translate::table(&RoutedTable {
        version: 7,
        listeners: vec![listener(80, Protocol::Tcp), listener(53, Protocol::Udp)],
    });
    assert_eq!((table.version, table.listeners.len()), (7, 1));
    let states: Vec<_> = table.listeners[0]
        .endpoints
        .iter()
        .map(|e| e.state)
        .collect();
    assert_eq!(states, [EndpointState::Ready, EndpointState::Draining]);
    table.validate().unwrap();
}

#[test]
fn reports_sum_up_what_drains() {
    let endpoint = |number, condition, active| EndpointStatus {
        id: task(number).to_string(),
        address: "10.0.0.1:20000".parse().unwrap(),
        weight: 1,
        condition,
        since_ms: 0,
        reason: String::new(),
        traffic: Traffic {
            active,
            ..Traffic::default()
        },
        connect_times: ConnectTimes::default(),
    };
    let listener = |port, error: Option<&str>| ListenerStatus {
        port,
        service: "ng".to_owned(),
        bound: Vec::new(),
        error: error.map(str::to_owned),
        accepted: 0,
        unserved: 0,
        traffic: Traffic::default(),
        connect_times: ConnectTimes::default(),
        endpoints: vec![
            endpoint(1, EndpointCondition::Ready, 5),
            endpoint(2, EndpointCondition::Draining, 2),
        ],
    };
    let status = |version| Status {
        table_version: version,
        program: String::new(),
        pid: 1,
        started_at_ms: 0,
        shutting_down: false,
        listeners: vec![listener(80, None), listener(81, Some("address in use"))],
        removed: vec![RemovedEndpoint {
            port: 80,
            id: task(3).to_string(),
            address: "10.0.0.1:20001".parse().unwrap(),
            active: 1,
        }],
    };
    let report = translate::report(&[status(9)]);
    assert_eq!(report.version, 9);
    assert_eq!(
        report.draining,
        BTreeMap::from([(task(2), 4), (task(3), 1)])
    );
    assert_eq!(report.port_problems.len(), 1);
    assert_eq!(report.port_problems[0].port, 81);

    // One that was replaced and has not taken the newest table yet.
    let report = translate::report(&[status(9), status(8)]);
    assert_eq!(report.version, 9);
    assert_eq!(
        report.draining,
        BTreeMap::from([(task(2), 8), (task(3), 2)])
    );
    assert_eq!(report.port_problems.len(), 1);
}
