//! Downloads without end.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::{
    BULK, CHUNK, Load,
    client::{Received, ask, begin_lasting, receive},
    poller::Poller,
    report::Report,
};

/// Without a byte for so long something stands still.
const STANDSTILL: Duration = Duration::from_secs(3);

/// Receives on all of the load's connections in turn.
pub(crate) fn run(load: &Load) -> Result<Report> {
    let mut poller = Poller::new()?;
    let mut report = Report::begin(load);
    let mut flows = Vec::new();
    for key in 0..load.connections {
        flows.push((begin_lasting(&poller, load.target, key)?, false));
    }
    let mut buffer = vec![0; CHUNK];
    let mut ready: BTreeSet<usize> = BTreeSet::new();
    loop {
        let timeout = if ready.is_empty() {
            STANDSTILL
        } else {
            Duration::ZERO
        };
        let events = poller.wait(Some(timeout))?;
        if events.is_empty() && ready.is_empty() {
            bail!("no byte for {STANDSTILL:?}");
        }
        for event in events {
            let (socket, asked) = &mut flows[event.key];
            if !*asked && event.writable() {
                ask(socket, BULK).map_err(anyhow::Error::msg)?;
                *asked = true;
            }
            if *asked && event.readable() {
                ready.insert(event.key);
            }
        }
        // One chunk of each, then the next: no flow has to wait for another one.
        for key in ready.clone() {
            match receive(&flows[key].0, &mut buffer) {
                Received::Bytes(count) => report.received(count, Instant::now()),
                Received::Nothing => {
                    ready.remove(&key);
                }
                Received::End => bail!("a download has ended"),
                Received::Broken(reason) => bail!(reason),
            }
        }
        if Instant::now() >= report.ends() {
            return Ok(report);
        }
    }
}
