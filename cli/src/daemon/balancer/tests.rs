use std::collections::BTreeMap;

use swarmlet_agent::{RoutedEndpoint, RoutedListener};
use swarmlet_core::model::{LbPolicy, NodeId, Protocol, ProxyProtocol, TaskId};
use swarmlet_lb::proxy::Version;
use swarmlet_lb::status::{PortError, RemovedEndpoint, Summary};
use swarmlet_lb::table::{EndpointState, Policy};

use super::*;

fn task(number: u128) -> TaskId {
    TaskId::from_random(number)
}

#[test]
fn tables_are_translated() {
    let endpoint = |number, draining| RoutedEndpoint {
        task: task(number),
        node: (number == 2).then(|| NodeId::from_random(7)),
        address: "10.0.0.1:20000".parse().unwrap(),
        weight: 1,
        local: number == 1,
        proxy_protocol: Some(ProxyProtocol::V2).filter(|_| draining),
        draining,
    };
    let listener = |port, protocol| RoutedListener {
        port,
        protocol,
        service: "ng".to_owned(),
        policy: LbPolicy::LeastConn,
        prefer_local: true,
        accept_proxy: vec!["10.0.0.0/8".parse().unwrap()],
        endpoints: vec![endpoint(1, false), endpoint(2, true)],
    };
    let routed = RoutedTable {
        version: 7,
        listeners: vec![listener(80, Protocol::Tcp), listener(53, Protocol::Udp)],
    };
    let table = translate::table(&routed, 2378);
    assert_eq!((table.version, table.listeners.len()), (7, 1));
    let states: Vec<_> = table.listeners[0]
        .endpoints
        .iter()
        .map(|e| e.state)
        .collect();
    assert_eq!(states, [EndpointState::Ready, EndpointState::Draining]);
    let hosts: Vec<_> = table
        .hosts
        .iter()
        .map(|host| host.probe.to_string())
        .collect();
    assert_eq!(hosts, ["10.0.0.1:2378"]);
    assert_eq!(table.listeners[0].endpoints[0].host, None);
    let listener = &table.listeners[0];
    assert_eq!(
        (listener.policy, listener.prefer_local),
        (Policy::LeastConn, true)
    );
    assert_eq!(listener.accept_proxy, ["10.0.0.0/8".parse().unwrap()]);
    let (local, other) = (&listener.endpoints[0], &listener.endpoints[1]);
    assert_eq!((local.local, local.proxy_protocol), (true, None));
    assert_eq!(
        (other.local, other.proxy_protocol),
        (false, Some(Version::V2))
    );
    table.validate().unwrap();
}

#[test]
fn reports_sum_up_what_drains() {
    let leaving = |port, number, active| RemovedEndpoint {
        port,
        id: task(number).to_string(),
        address: "10.0.0.1:20000".parse().unwrap(),
        active,
    };
    let summary = |version| Summary {
        table_version: version,
        port_errors: vec![PortError {
            port: 81,
            reason: "address in use".to_owned(),
        }],
        leaving: vec![leaving(80, 2, 2), leaving(81, 2, 2), leaving(80, 3, 1)],
    };
    let report = translate::report(&[summary(9)]);
    assert_eq!(report.version, 9);
    assert_eq!(
        report.draining,
        BTreeMap::from([(task(2), 4), (task(3), 1)])
    );
    assert_eq!(report.port_problems.len(), 1);
    assert_eq!(report.port_problems[0].port, 81);

    // One that was replaced and has not taken the newest table yet.
    let report = translate::report(&[summary(9), summary(8)]);
    assert_eq!(report.version, 9);
    assert_eq!(
        report.draining,
        BTreeMap::from([(task(2), 8), (task(3), 2)])
    );
    assert_eq!(report.port_problems.len(), 1);
}
