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

    fn update(&mut self, endpoints: &[(&str, EndpointState)]) -> Vec<Arc<Endpoint>> {
        let listener = Listener {
            port: 80,
            service: "ng".to_owned(),
            policy: Policy::RoundRobin,
            endpoints: endpoints
                .iter()
                .map(|(id, state)| table::Endpoint {
                    id: (*id).to_owned(),
                    address: SocketAddr::from(([10, 0, 0, 1], 20000)),
                    weight: 1,
                    state: *state,
                })
                .collect(),
        };
        let next_key = &mut self.next_key;
        self.port.update(&listener, |listed| {
            *next_key += 1;
            Arc::new(Endpoint::new(
                EndpointKey(*next_key),
                80,
                listed.id.clone(),
                listed.address,
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
