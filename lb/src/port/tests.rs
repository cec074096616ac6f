//! A port without sockets: tables, outcomes and leases in, choices and events out.

use std::net::SocketAddr;

use super::*;
use crate::table::Policy;

struct Subject {
    port: Port,
    next_key: u64,
}

impl Subject {
    fn new() -> Self {
        Self {
            port: Port::new(80, Hub::new()),
            next_key: 0,
        }
    }

    /// Endpoints with their hosts.
    fn listener(&self, endpoints: &[(&str, &str)]) -> Listener {
        let endpoints = endpoints.iter().map(|(id, host)| table::Endpoint {
            id: (*id).to_owned(),
            address: SocketAddr::from(([10, 0, 0, 1], 20000)),
            weight: 1,
            local: false,
            proxy_protocol: None,
            state: Ready,
            host: Some((*host).to_owned()),
        });
        Listener {
            port: self.port.number,
            service: "ng".to_owned(),
            policy: Policy::RoundRobin,
            prefer_local: false,
            accept_proxy: Vec::new(),
            endpoints: endpoints.collect(),
        }
    }

    fn update(&mut self, endpoints: &[(&str, EndpointState)]) -> Vec<Arc<Endpoint>> {
        let listener = Listener {
            port: 80,
            service: "ng".to_owned(),
            policy: Policy::RoundRobin,
            prefer_local: false,
            accept_proxy: Vec::new(),
            endpoints: endpoints
                .iter()
                .map(|(id, state)| table::Endpoint {
                    id: (*id).to_owned(),
                    address: SocketAddr::from(([10, 0, 0, 1], 20000)),
                    weight: 1,
                    local: false,
                    proxy_protocol: None,
                    state: *state,
                    host: None,
                })
                .collect(),
        };
        let next_key = &mut self.next_key;
        let events = self.port.events.clone();
        self.port.update(&listener, |listed| {
            *next_key += 1;
            Arc::new(Endpoint::new(
                EndpointKey(*next_key),
                80,
                listed,
                events.clone(),
            ))
        })
    }

    fn chosen(&self) -> Option<Lease> {
        self.port.choose(&[], || None)
    }

    fn condition(&self, id: &str) -> EndpointCondition {
        let found = self.port.endpoints().into_iter().find(|e| e.id == id);
        found.expect("the endpoint is listed").condition
    }
}

async fn next(events: &mut crate::event::Subscription) -> Event {
    tokio::time::timeout(std::time::Duration::from_secs(1), events.next())
        .await
        .expect("an event was published")
}

use EndpointState::{Draining, Ready};

#[tokio::test]
async fn drained_is_told_once_when_the_last_connection_ends() {
    let mut subject = Subject::new();
    let mut events = subject.port.events.subscribe();
    subject.update(&[("a", Ready)]);
    let (first, second) = (subject.chosen().unwrap(), subject.chosen().unwrap());
    subject.update(&[("a", Draining)]);
    assert!(subject.chosen().is_none());
    drop(first);
    subject.update(&[("a", Draining), ("b", Draining)]);
    // b never had a connection, so it is drained at once; a is not.
    assert_eq!(
        next(&mut events).await,
        Event::Drained {
            port: 80,
            id: "b".into()
        }
    );
    drop(second);
    assert_eq!(
        next(&mut events).await,
        Event::Drained {
            port: 80,
            id: "a".into()
        }
    );
    subject.update(&[]);
    subject.port.events.publish(Event::Missed { count: 7 });
    assert_eq!(
        next(&mut events).await,
        Event::Missed { count: 7 },
        "told only once"
    );
}

#[tokio::test]
async fn an_ejection_is_told_and_ends_with_two_successes() {
    let mut subject = Subject::new();
    let mut events = subject.port.events.subscribe();
    subject.update(&[("a", Ready), ("b", Ready)]);
    let key = EndpointKey(1);
    let target = subject
        .port
        .observe(key, Outcome::Refused, "refused")
        .expect("probe it");
    assert_eq!(subject.condition("a"), EndpointCondition::Ejected);
    assert_eq!(
        next(&mut events).await,
        Event::Ejected {
            port: 80,
            id: "a".into(),
            reason: "refused".into()
        }
    );
    assert!(subject.port.wants_probe(&target));
    for _ in 0..4 {
        assert_eq!(subject.chosen().unwrap().endpoint().id, "b");
    }
    assert!(subject.port.observe(key, Outcome::Connected, "").is_none());
    assert!(subject.port.wants_probe(&target));
    assert!(subject.port.observe(key, Outcome::Connected, "").is_none());
    assert_eq!(
        next(&mut events).await,
        Event::Restored {
            port: 80,
            id: "a".into()
        }
    );
    assert!(!subject.port.wants_probe(&target));
    assert_eq!(subject.condition("a"), EndpointCondition::Ready);
}

#[test]
fn draining_or_removing_ends_the_probing() {
    let mut subject = Subject::new();
    subject.update(&[("a", Ready), ("b", Ready)]);
    let first = subject
        .port
        .observe(EndpointKey(1), Outcome::Refused, "")
        .unwrap();
    let second = subject
        .port
        .observe(EndpointKey(2), Outcome::Refused, "")
        .unwrap();
    let removed = subject.update(&[("a", Draining)]);
    assert_eq!(removed.len(), 1);
    assert!(!subject.port.wants_probe(&first) && !subject.port.wants_probe(&second));
    subject.update(&[("a", Ready)]);
    assert_eq!(subject.condition("a"), EndpointCondition::Ready);
    assert_eq!(subject.chosen().unwrap().endpoint().id, "a");
    assert_eq!(subject.port.clear().len(), 1);
    assert!(subject.chosen().is_none());
}

/// Ready endpoints named by a letter each, which are on hosts of the same index.
fn on_hosts(subject: &mut Subject, endpoints: &[(&str, &str)]) -> Vec<Arc<Host>> {
    subject.update(
        &endpoints
            .iter()
            .map(|(id, _)| (*id, Ready))
            .collect::<Vec<_>>(),
    );
    let mut hosts: Vec<(&str, Arc<Host>)> = Vec::new();
    for (_, host) in endpoints {
        if !hosts.iter().any(|(id, _)| id == host) {
            let probe = SocketAddr::from(([10, 0, 0, 1], 2378));
            hosts.push((host, Arc::new(Host::new(host, probe))));
        }
    }
    let listener = subject.listener(endpoints);
    let find = |id: &str| {
        let found = hosts.iter().find(|(known, _)| *known == id);
        found.map(|(_, host)| Arc::clone(host))
    };
    subject.port.set_hosts(find, &listener);
    hosts.into_iter().map(|(_, host)| host).collect()
}

#[tokio::test]
async fn after_silence_the_next_try_is_at_another_host() {
    let mut subject = Subject::new();
    let endpoints = [("a", "x"), ("b", "x"), ("c", "x"), ("d", "y")];
    on_hosts(&mut subject, &endpoints);
    let [a, b, d] = [EndpointKey(1), EndpointKey(2), EndpointKey(4)];
    let next_after = |tried: &[EndpointKey]| {
        let lease = subject.port.choose(tried, || None);
        lease.map(|lease| lease.endpoint().id.clone())
    };
    let told = subject.port.observe(a, Outcome::Unanswered, "");
    assert!(told.is_none(), "one silence ejects nobody");
    for _ in 0..6 {
        assert_eq!(next_after(&[a]).as_deref(), Some("d"));
    }
    // Where there is no other host, its other endpoints are better than none.
    assert!(next_after(&[a, d]).is_some_and(|id| id == "b" || id == "c"));
    // A refusal says nothing about the host.
    subject.port.observe(a, Outcome::Connected, "");
    subject.port.observe(b, Outcome::Refused, "");
    let found: std::collections::BTreeSet<_> = (0..6).filter_map(|_| next_after(&[b])).collect();
    assert!(found.len() > 1, "{found:?}");
}

#[tokio::test]
async fn a_lost_host_and_what_an_endpoint_met_itself_are_kept_apart() {
    let mut subject = Subject::new();
    let endpoints = [("a", "x"), ("b", "x"), ("c", "y"), ("d", "y"), ("e", "y")];
    let hosts = on_hosts(&mut subject, &endpoints);
    let refused = |subject: &Subject, key| subject.port.observe(key, Outcome::Refused, "refused");
    let target = refused(&subject, EndpointKey(1)).expect("probe it");
    hosts[0].set_lost(true);
    subject.port.note_host(&hosts[0]);
    for id in ["a", "b"] {
        assert_eq!(subject.condition(id), EndpointCondition::Ejected);
    }
    for _ in 0..10 {
        let chosen = subject.chosen().expect("there are others");
        assert!(!["a", "b"].contains(&chosen.endpoint().id.as_str()));
    }
    // The host is back, and a still refuses.
    hosts[0].set_lost(false);
    subject.port.note_host(&hosts[0]);
    assert_eq!(subject.condition("a"), EndpointCondition::Ejected);
    assert_eq!(subject.condition("b"), EndpointCondition::Ready);
    assert!(subject.port.wants_probe(&target));

    // The other way round: a answers while its host counts as lost.
    hosts[0].set_lost(true);
    subject.port.note_host(&hosts[0]);
    for _ in 0..2 {
        subject.port.observe(EndpointKey(1), Outcome::Connected, "");
    }
    assert!(!subject.port.wants_probe(&target));
    assert_eq!(subject.condition("a"), EndpointCondition::Ejected);
    hosts[0].set_lost(false);
    subject.port.note_host(&hosts[0]);
    assert_eq!(subject.condition("a"), EndpointCondition::Ready);
}
