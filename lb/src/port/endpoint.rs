//! One endpoint's counters, and the lease that keeps them true.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use super::times::Times;
use crate::{
    connection::Moved,
    event::{Event, Hub},
    proxy,
    select::EndpointKey,
    status::{RemovedEndpoint, Traffic},
    table,
};

/// Counters of a port or an endpoint, as they are counted.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) active: AtomicU64,
    pub(crate) connections: AtomicU64,
    pub(crate) connect_failures: AtomicU64,
    pub(crate) bytes_to_endpoint: AtomicU64,
    pub(crate) bytes_to_client: AtomicU64,
    pub(crate) connect_times: Times,
}

impl Counters {
    pub(crate) fn read(&self) -> Traffic {
        Traffic {
            active: self.active.load(Ordering::SeqCst),
            connections: self.connections.load(Ordering::Relaxed),
            connect_failures: self.connect_failures.load(Ordering::Relaxed),
            bytes_to_endpoint: self.bytes_to_endpoint.load(Ordering::Relaxed),
            bytes_to_client: self.bytes_to_client.load(Ordering::Relaxed),
        }
    }

    fn add(&self, moved: Moved) {
        if moved.to_endpoint > 0 {
            self.bytes_to_endpoint
                .fetch_add(moved.to_endpoint, Ordering::Relaxed);
        }
        if moved.to_client > 0 {
            self.bytes_to_client
                .fetch_add(moved.to_client, Ordering::Relaxed);
        }
    }
}

/// An endpoint for as long as a table lists it or a connection uses it.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) key: EndpointKey,
    pub(crate) port: u16,
    pub(crate) id: String,
    pub(crate) address: SocketAddr,
    pub(crate) counters: Counters,
    /// Draining or removed: the last connection's end is to be told.
    leaving: AtomicBool,
    /// That it has ended was told.
    drained: AtomicBool,
    events: Hub,
}

impl Endpoint {
    pub(crate) fn new(key: EndpointKey, port: u16, listed: &table::Endpoint, events: Hub) -> Self {
        Self {
            key,
            port,
            id: listed.id.clone(),
            address: listed.address,
            counters: Counters::default(),
            leaving: AtomicBool::new(false),
            drained: AtomicBool::new(false),
            events,
        }
    }

    pub(crate) fn active(&self) -> u64 {
        self.counters.active.load(Ordering::SeqCst)
    }

    /// What is told of it once it gets no more connections.
    pub(crate) fn to_removed(&self) -> RemovedEndpoint {
        RemovedEndpoint {
            port: self.port,
            id: self.id.clone(),
            address: self.address,
            active: self.active(),
        }
    }

    /// It gets no more connections; tells when those it has are gone, now if
    /// there are none.
    pub(crate) fn leave(&self) {
        self.leaving.store(true, Ordering::SeqCst);
        self.tell_if_drained();
    }

    /// It may get connections again.
    pub(crate) fn stay(&self) {
        self.leaving.store(false, Ordering::SeqCst);
        self.drained.store(false, Ordering::SeqCst);
    }

    /// Called after both of the writes that can make it true, `leaving` and
    /// `active`, and all are sequentially consistent: of two that race at least
    /// one sees the whole, and the swap lets only one tell.
    fn tell_if_drained(&self) {
        if self.leaving.load(Ordering::SeqCst)
            && self.active() == 0
            && !self.drained.swap(true, Ordering::SeqCst)
        {
            self.events.publish(Event::Drained {
                port: self.port,
                id: self.id.clone(),
            });
        }
    }
}

/// A connection's hold on its endpoint, from the choice to the end.
#[derive(Debug)]
pub(crate) struct Lease {
    endpoint: Arc<Endpoint>,
    proxy_protocol: Option<proxy::Version>,
    port: Arc<Counters>,
    begun: Instant,
}

impl Lease {
    /// To be called under the port's lock only: a table taken over under the
    /// same lock then finds every connection either counted or not yet chosen.
    pub(super) fn new(
        endpoint: Arc<Endpoint>,
        proxy_protocol: Option<proxy::Version>,
        port: Arc<Counters>,
    ) -> Self {
        endpoint.counters.active.fetch_add(1, Ordering::SeqCst);
        port.active.fetch_add(1, Ordering::SeqCst);
        Self {
            endpoint,
            proxy_protocol,
            port,
            begun: Instant::now(),
        }
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// How the endpoint is told whose connection it is, if it is.
    pub(crate) fn proxy_protocol(&self) -> Option<proxy::Version> {
        self.proxy_protocol
    }

    pub(crate) fn count_connected(&self) {
        let took = self.begun.elapsed();
        for counters in [&self.endpoint.counters, &*self.port] {
            counters.connections.fetch_add(1, Ordering::Relaxed);
            counters.connect_times.count(took);
        }
    }

    pub(crate) fn count_failure(&self) {
        self.endpoint
            .counters
            .connect_failures
            .fetch_add(1, Ordering::Relaxed);
        self.port.connect_failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_moved(&self, moved: Moved) {
        for counters in [&self.endpoint.counters, &*self.port] {
            counters.add(moved);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.port.active.fetch_sub(1, Ordering::SeqCst);
        self.endpoint.counters.active.fetch_sub(1, Ordering::SeqCst);
        self.endpoint.tell_if_drained();
    }
}
