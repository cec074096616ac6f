//! A page in Prometheus's text form. Everything is read when it is asked for; nothing is counted
//! here.
//!
//! The balancer by itself has such a page, and a node of a cluster, which knows more than its
//! balancer: so that a series has one name wherever it comes from, both are made here.

mod balancers;

use std::{fmt, sync::atomic::AtomicU64};

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// What an HTTP answer with such a page says of its content.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Names and values.
pub type Labels = Vec<(String, String)>;

/// Series, each with `swarmlet_` before its name.
#[derive(Debug)]
pub struct Page {
    registry: Registry,
}

impl Default for Page {
    fn default() -> Self {
        Self::new()
    }
}

impl Page {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self {
            registry: Registry::with_prefix("swarmlet"),
        }
    }

    /// The page as it is sent.
    ///
    /// # Errors
    /// The form cannot hold a value, which none of these is.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// What goes up and down.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Into<i64>) {
        let gauge: Gauge = Gauge::default();
        gauge.set(value.into());
        self.registry.register(name, help, gauge);
    }

    /// The same, of several things.
    pub fn gauges(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels, u64)>,
    ) {
        let family = Family::<Labels, Gauge>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).set(signed(value));
        }
        self.registry.register(name, help, family);
    }

    /// What only goes up; `_total` is added to its name.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        let counter: Counter = Counter::default();
        counter.inc_by(value);
        self.registry.register(name, help, counter);
    }

    /// The same, of several things.
    pub fn counters(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels, u64)>,
    ) {
        let family = Family::<Labels, Counter>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).inc_by(value);
        }
        self.registry.register(name, help, family);
    }

    /// Times that only go up.
    fn seconds(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, f64)>) {
        let family = Family::<Labels, Counter<f64, AtomicU64>>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).inc_by(value);
        }
        self.registry.register(name, help, family);
    }
}

/// A count as a gauge's value, which is signed; no count here comes near the limit.
#[must_use]
pub fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
