//! What a client has done.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::Load;

/// Counts what is done, in the window and in all.
pub(crate) struct Report {
    window_begins: Instant,
    window_ends: Instant,
    window: Duration,
    done: u64,
    done_in_window: u64,
    bytes: u64,
    bytes_in_window: u64,
    failed: BTreeMap<String, u64>,
    latencies_ns: Vec<u32>,
}

impl Report {
    /// The warm-up begins now.
    pub(crate) fn begin(load: &Load) -> Self {
        let window_begins = Instant::now() + load.warm_up();
        Self {
            window_begins,
            window_ends: window_begins + load.window(),
            window: load.window(),
            done: 0,
            done_in_window: 0,
            bytes: 0,
            bytes_in_window: 0,
            failed: BTreeMap::new(),
            latencies_ns: Vec::new(),
        }
    }

    /// When nothing new is begun any more.
    pub(crate) fn ends(&self) -> Instant {
        self.window_ends
    }

    /// A request that was due at `since` has its answer.
    pub(crate) fn done(&mut self, since: Instant, now: Instant) {
        self.done += 1;
        if (self.window_begins..self.window_ends).contains(&now) {
            self.done_in_window += 1;
            let latency = now.saturating_duration_since(since).as_nanos();
            // Four seconds and more count as four: beyond every limit that means something.
            self.latencies_ns
                .push(u32::try_from(latency).unwrap_or(u32::MAX));
        }
    }

    /// Bytes of bulk have come.
    pub(crate) fn received(&mut self, bytes: usize, now: Instant) {
        self.bytes += bytes as u64;
        if (self.window_begins..self.window_ends).contains(&now) {
            self.bytes_in_window += bytes as u64;
        }
    }

    /// Something did not work.
    pub(crate) fn failed(&mut self, what: impl Into<String>) {
        *self.failed.entry(what.into()).or_default() += 1;
    }

    pub(crate) fn into_json(mut self) -> Result<Value> {
        self.latencies_ns.sort_unstable();
        let seconds = self.window.as_secs_f64();
        Ok(json!({
            "done": self.done,
            "per_second": self.done_in_window as f64 / seconds,
            "bytes": self.bytes,
            "bytes_per_second": self.bytes_in_window as f64 / seconds,
            "failed": self.failed,
            "p50_us": self.latency_us(0.5),
            "p99_us": self.latency_us(0.99),
            "cpu_ns": own_cpu_ns()?,
        }))
    }

    /// The latency that this share of the requests stayed within.
    fn latency_us(&self, share: f64) -> Option<f64> {
        let last = self.latencies_ns.len().checked_sub(1)?;
        let index = (last as f64 * share).ceil() as usize;
        Some(f64::from(*self.latencies_ns.get(index)?) / 1e3)
    }
}

/// Time that this thread, the only one, has had of a processor.
fn own_cpu_ns() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/schedstat")?;
    let first = text.split(' ').next().unwrap_or_default();
    first
        .parse()
        .with_context(|| format!("/proc/self/schedstat has {text:?}"))
}
