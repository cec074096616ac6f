//! One published port: which endpoint is next, and what is known of each.
//!
//! All that a choice depends on is under one lock, shared by every thread. This
//! is what makes the round robin exact, and an acknowledged table binding: once
//! `update` has returned, no connection is chosen by the table before.

mod endpoint;
mod times;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::{ArcSwap, Guard};

use self::endpoint::Counters;
pub(crate) use self::endpoint::{Endpoint, Lease};
use crate::{
    clock::now_ms,
    event::{Event, Hub},
    health::{Change, Ejection, Health, Outcome},
    host::{Host, REASON as HOST_LOST},
    network::Network,
    proxy,
    random::random,
    select::{Candidate, EndpointKey, Rotation, hash},
    status::{ConnectTimes, EndpointCondition, EndpointStatus, RemovedEndpoint, Traffic},
    table::{self, EndpointState, Listener, Policy},
};

/// One published port, shared by its listeners and connections.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    counters: Arc<Counters>,
    accepted: AtomicU64,
    unserved: AtomicU64,
    refused: AtomicU64,
    shed: AtomicU64,
    /// Apart from the choice, for it is asked for before there is one to make.
    edge: ArcSwap<Edge>,
    events: Hub,
    choice: Mutex<Choice>,
}

/// What a table says of a port apart from its endpoints.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Edge {
    pub(crate) service: String,
    /// Who must say, by a PROXY header, whose connection it is.
    pub(crate) accept_proxy: Vec<Network>,
}

/// What a choice depends on.
#[derive(Debug)]
struct Choice {
    policy: Policy,
    prefer_local: bool,
    rotation: Rotation,
    /// In the order of the table.
    endpoints: Vec<EndpointKey>,
    tracked: HashMap<EndpointKey, Tracked>,
}

#[derive(Debug)]
struct Tracked {
    endpoint: Arc<Endpoint>,
    weight: u32,
    local: bool,
    proxy_protocol: Option<proxy::Version>,
    state: EndpointState,
    health: Health,
    /// Since when its condition is what it is.
    since_ms: u64,
    /// Why it is ejected.
    reason: String,
    /// Where it is, and whether it was left out because that was lost.
    host: Option<Arc<Host>>,
    host_lost: bool,
    /// The last connect met no answer.
    silent: bool,
}

/// An endpoint to be probed, and why.
#[derive(Debug, Clone)]
pub(crate) struct ProbeTarget {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) ejection: Ejection,
}

impl Port {
    pub(crate) fn new(number: u16, events: Hub) -> Self {
        Self {
            number,
            counters: Arc::default(),
            accepted: AtomicU64::new(0),
            unserved: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            shed: AtomicU64::new(0),
            edge: ArcSwap::default(),
            events,
            choice: Mutex::new(Choice {
                policy: Policy::default(),
                prefer_local: false,
                rotation: Rotation::new(random()),
                endpoints: Vec::new(),
                tracked: HashMap::new(),
            }),
        }
    }

    /// Takes over what a table says of this port. `make` gives the record of an
    /// endpoint that was not listed before. Returns those no longer listed.
    pub(crate) fn update(
        &self,
        listener: &Listener,
        mut make: impl FnMut(&table::Endpoint) -> Arc<Endpoint>,
    ) -> Vec<Arc<Endpoint>> {
        let edge = Edge {
            service: listener.service.clone(),
            accept_proxy: listener.accept_proxy.clone(),
        };
        if **self.edge.load() != edge {
            self.edge.store(Arc::new(edge));
        }
        let mut guard = self.lock();
        let choice = &mut *guard;
        let mut known: HashMap<_, _> = choice
            .tracked
            .drain()
            .map(|(_, tracked)| {
                (
                    (tracked.endpoint.id.clone(), tracked.endpoint.address),
                    tracked,
                )
            })
            .collect();
        choice.policy = listener.policy;
        choice.prefer_local = listener.prefer_local;
        choice.endpoints.clear();
        for listed in &listener.endpoints {
            let mut tracked = known
                .remove(&(listed.id.clone(), listed.address))
                .unwrap_or_else(|| Tracked {
                    endpoint: make(listed),
                    weight: listed.weight,
                    local: listed.local,
                    proxy_protocol: listed.proxy_protocol,
                    state: listed.state,
                    health: Health::default(),
                    since_ms: now_ms(),
                    reason: String::new(),
                    host: None,
                    host_lost: false,
                    silent: false,
                });
            tracked.weight = listed.weight;
            tracked.local = listed.local;
            tracked.proxy_protocol = listed.proxy_protocol;
            if tracked.state != listed.state {
                tracked.state = listed.state;
                tracked.since_ms = now_ms();
                tracked.reason.clear();
            }
            let key = tracked.endpoint.key;
            if listed.state == EndpointState::Draining {
                tracked.health.reset();
                choice.rotation.restore(key);
            }
            choice.endpoints.push(key);
            choice.tracked.insert(key, tracked);
        }
        choice.rotation.update(&choice.candidates());
        for tracked in choice.tracked.values() {
            match tracked.state {
                EndpointState::Ready => tracked.endpoint.stay(),
                EndpointState::Draining => tracked.endpoint.leave(),
            }
        }
        let removed: Vec<_> = known
            .into_values()
            .map(|tracked| tracked.endpoint)
            .collect();
        for endpoint in &removed {
            endpoint.leave();
        }
        removed
    }

    /// Takes the port out of the table. Returns the endpoints it had.
    pub(crate) fn clear(&self) -> Vec<Arc<Endpoint>> {
        let mut choice = self.lock();
        choice.endpoints.clear();
        choice.rotation.update(&[]);
        let removed: Vec<_> = choice.tracked.drain().map(|(_, t)| t.endpoint).collect();
        for endpoint in &removed {
            endpoint.leave();
        }
        removed
    }

    /// Chooses an endpoint for a connection that already failed at `tried`.
    /// `source` tells where it is from, if that should matter.
    pub(crate) fn choose(
        &self,
        tried: &[EndpointKey],
        source: impl FnOnce() -> Option<IpAddr>,
    ) -> Option<Lease> {
        let mut guard = self.lock();
        let choice = &mut *guard;
        let source = match choice.policy {
            Policy::SourceHash => source().map_or(0, hash_of),
            Policy::RoundRobin | Policy::LeastConn => 0,
        };
        let with_mates = choice.with_mates_of_silent(tried);
        let elsewhere = match &with_mates {
            Some(avoided) => choice.choose(avoided, source),
            None => None,
        };
        let key = elsewhere.or_else(|| choice.choose(tried, source))?;
        let tracked = choice.tracked.get(&key)?;
        Some(Lease::new(
            Arc::clone(&tracked.endpoint),
            tracked.proxy_protocol,
            Arc::clone(&self.counters),
        ))
    }

    /// Takes in what came of a connect. `Some` asks for a prober. `reason` goes
    /// into the report of an ejection.
    pub(crate) fn observe(
        &self,
        key: EndpointKey,
        outcome: Outcome,
        reason: &str,
    ) -> Option<ProbeTarget> {
        let mut guard = self.lock();
        let choice = &mut *guard;
        let tracked = choice.tracked.get_mut(&key)?;
        if tracked.state == EndpointState::Draining {
            return None;
        }
        let endpoint = &tracked.endpoint;
        tracked.silent = outcome == Outcome::Unanswered;
        if let Some(host) = &tracked.host
            && outcome != Outcome::Unanswered
        {
            host.note_answer();
        }
        let change = tracked.health.observe(outcome)?;
        tracked.since_ms = now_ms();
        match change {
            Change::Ejected(ejection) => {
                choice.rotation.eject(key);
                reason.clone_into(&mut tracked.reason);
                tracing::warn!(
                    port = self.number,
                    endpoint = endpoint.id,
                    address = %endpoint.address,
                    reason,
                    "endpoint left out"
                );
                self.events.publish(Event::Ejected {
                    port: self.number,
                    id: endpoint.id.clone(),
                    reason: reason.to_owned(),
                });
                Some(ProbeTarget {
                    endpoint: Arc::clone(endpoint),
                    ejection,
                })
            }
            Change::Restored if tracked.host_lost => {
                HOST_LOST.clone_into(&mut tracked.reason);
                None
            }
            Change::Restored => {
                choice.rotation.restore(key);
                tracked.reason.clear();
                tracing::info!(
                    port = self.number,
                    endpoint = endpoint.id,
                    address = %endpoint.address,
                    "endpoint answers again"
                );
                self.events.publish(Event::Restored {
                    port: self.number,
                    id: endpoint.id.clone(),
                });
                None
            }
        }
    }

    /// Tells which host each endpoint is on.
    pub(crate) fn set_hosts(&self, find: impl Fn(&str) -> Option<Arc<Host>>, listener: &Listener) {
        let mut guard = self.lock();
        let choice = &mut *guard;
        let keys = choice.endpoints.iter().copied();
        for (key, listed) in keys.zip(&listener.endpoints) {
            if let Some(tracked) = choice.tracked.get_mut(&key) {
                tracked.host = listed.host.as_deref().and_then(&find);
                tracked.heed_host(&mut choice.rotation, self.number, &self.events);
            }
        }
    }

    /// A host is lost or back.
    pub(crate) fn note_host(&self, host: &Arc<Host>) {
        let mut guard = self.lock();
        let choice = &mut *guard;
        for tracked in choice.tracked.values_mut() {
            if tracked
                .host
                .as_ref()
                .is_some_and(|own| Arc::ptr_eq(own, host))
            {
                tracked.heed_host(&mut choice.rotation, self.number, &self.events);
            }
        }
    }

    /// Whether an ejected endpoint still waits for its prober's findings.
    pub(crate) fn wants_probe(&self, target: &ProbeTarget) -> bool {
        self.lock()
            .tracked
            .get(&target.endpoint.key)
            .is_some_and(|tracked| tracked.health.is_ejected_by(target.ejection))
    }

    /// How an endpoint is told whose connection it is, if it is.
    pub(crate) fn proxy_protocol(&self, key: EndpointKey) -> Option<proxy::Version> {
        let choice = self.lock();
        choice.tracked.get(&key)?.proxy_protocol
    }

    pub(crate) fn count_accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_unserved(&self) {
        self.unserved.fetch_add(1, Ordering::Relaxed);
    }

    /// A client was turned away for what it did, or was too many.
    pub(crate) fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    /// What matters before there is a choice to make.
    pub(crate) fn edge(&self) -> Guard<Arc<Edge>> {
        self.edge.load()
    }

    /// A connection was reset for the memory that it held.
    pub(crate) fn count_shed(&self) {
        self.shed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn shed(&self) -> u64 {
        self.shed.load(Ordering::Relaxed)
    }

    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    pub(crate) fn unserved(&self) -> u64 {
        self.unserved.load(Ordering::Relaxed)
    }

    pub(crate) fn traffic(&self) -> Traffic {
        self.counters.read()
    }

    /// The endpoints that the table calls draining.
    pub(crate) fn draining(&self) -> Vec<RemovedEndpoint> {
        let choice = self.lock();
        let tracked = choice.tracked.values();
        tracked
            .filter(|tracked| tracked.state == EndpointState::Draining)
            .map(|tracked| tracked.endpoint.to_removed())
            .collect()
    }

    pub(crate) fn connect_times(&self) -> ConnectTimes {
        self.counters.connect_times.read()
    }

    /// Whether ejections are ignored, for too few endpoints would be left.
    pub(crate) fn is_panicking(&self) -> bool {
        self.lock().rotation.is_panicking()
    }

    /// The endpoints in the order of the table.
    pub(crate) fn endpoints(&self) -> Vec<EndpointStatus> {
        let choice = self.lock();
        choice
            .endpoints
            .iter()
            .filter_map(|key| choice.tracked.get(key))
            .map(Tracked::status)
            .collect()
    }

    /// No code that can panic leaves the choice half changed, so that a lock
    /// poisoned by one connection must not take the port down with it.
    fn lock(&self) -> MutexGuard<'_, Choice> {
        self.choice.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An IPv4 address is the same whichever family it comes in.
fn hash_of(source: IpAddr) -> u64 {
    match source.to_canonical() {
        IpAddr::V4(ip) => hash(&ip.octets()),
        IpAddr::V6(ip) => hash(&ip.octets()),
    }
}

impl Choice {
    fn choose(&mut self, tried: &[EndpointKey], source: u64) -> Option<EndpointKey> {
        let tracked = &self.tracked;
        let load = |key| tracked.get(&key).map_or(0, |one| one.endpoint.active());
        // A retry goes anywhere, and a source has its one endpoint.
        let local_first =
            self.prefer_local && tried.is_empty() && self.policy != Policy::SourceHash;
        if local_first && let Some(local) = self.rotation.choose_local(load) {
            return Some(local);
        }
        match self.policy {
            Policy::RoundRobin => self.rotation.choose(tried),
            Policy::LeastConn => self.rotation.choose_less_loaded(tried, random(), load),
            Policy::SourceHash => self.rotation.choose_by_source(tried, source),
        }
    }

    /// What was tried, and all that shares a host with one of it that did not
    /// answer; `None` if that is no more. Silence may be the host's, and a client
    /// has only so many tries: the next one goes elsewhere.
    fn with_mates_of_silent(&self, tried: &[EndpointKey]) -> Option<Vec<EndpointKey>> {
        let silent: Vec<&Arc<Host>> = tried
            .iter()
            .filter_map(|key| self.tracked.get(key))
            .filter(|tracked| tracked.silent)
            .filter_map(|tracked| tracked.host.as_ref())
            .collect();
        if silent.is_empty() {
            return None;
        }
        let is_mate = |tracked: &&Tracked| {
            let host = tracked.host.as_ref();
            host.is_some_and(|own| silent.iter().any(|other| Arc::ptr_eq(own, other)))
        };
        let mates = self.tracked.values().filter(is_mate);
        let mut avoided: Vec<_> = mates.map(|tracked| tracked.endpoint.key).collect();
        avoided.extend(
            tried
                .iter()
                .filter(|key| !avoided.contains(key))
                .copied()
                .collect::<Vec<_>>(),
        );
        Some(avoided)
    }

    fn candidates(&self) -> Vec<Candidate> {
        self.endpoints
            .iter()
            .filter_map(|key| self.tracked.get(key))
            .map(|tracked| Candidate {
                key: tracked.endpoint.key,
                identity: hash(tracked.endpoint.id.as_bytes()),
                weight: tracked.weight,
                local: tracked.local,
                state: tracked.state,
            })
            .collect()
    }
}

impl Tracked {
    /// Leaves it out, or takes it back, as its host is lost or there.
    fn heed_host(&mut self, rotation: &mut Rotation, port: u16, events: &Hub) {
        let ready = self.state == EndpointState::Ready;
        let lost = ready && self.host.as_ref().is_some_and(|host| host.is_lost());
        if lost == self.host_lost {
            return;
        }
        self.host_lost = lost;
        if self.health.is_ejected() || !ready {
            // What it met itself counts on.
            return;
        }
        self.since_ms = now_ms();
        let key = self.endpoint.key;
        let id = self.endpoint.id.clone();
        if lost {
            rotation.eject(key);
            HOST_LOST.clone_into(&mut self.reason);
            events.publish(Event::Ejected {
                port,
                id,
                reason: HOST_LOST.to_owned(),
            });
        } else {
            rotation.restore(key);
            self.reason.clear();
            events.publish(Event::Restored { port, id });
        }
    }

    fn status(&self) -> EndpointStatus {
        let condition = match self.state {
            EndpointState::Draining => EndpointCondition::Draining,
            EndpointState::Ready if self.health.is_ejected() || self.host_lost => {
                EndpointCondition::Ejected
            }
            EndpointState::Ready => EndpointCondition::Ready,
        };
        EndpointStatus {
            id: self.endpoint.id.clone(),
            address: self.endpoint.address,
            weight: self.weight,
            condition,
            since_ms: self.since_ms,
            reason: self.reason.clone(),
            traffic: self.endpoint.counters.read(),
            connect_times: self.endpoint.counters.connect_times.read(),
        }
    }
}

#[cfg(test)]
mod tests;
