//! Requests on connections that stay, as fast as they are answered.

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::{
    ANSWER, Load, MESSAGE,
    client::{Received, ask, begin_lasting, receive},
    poller::{Event, Poller},
    report::Report,
};

/// Without any answer for so long something stands still.
const STANDSTILL: Duration = Duration::from_secs(3);

/// A connection with at most one request under way.
pub(crate) struct Channel {
    pub(crate) socket: OwnedFd,
    pub(crate) connected: bool,
    /// When the request under way was due.
    pub(crate) since: Option<Instant>,
    received: usize,
}

impl Channel {
    pub(crate) fn begin(poller: &Poller, load: &Load, key: usize) -> Result<Self> {
        Ok(Self {
            socket: begin_lasting(poller, load.target, key)?,
            connected: false,
            since: None,
            received: 0,
        })
    }

    /// Sends a request that was due at `since`.
    pub(crate) fn ask(&mut self, since: Instant) -> Result<()> {
        self.since = Some(since);
        ask(&self.socket, ANSWER).map_err(anyhow::Error::msg)
    }

    /// Receives what there is; when the answered request was due, if it is complete now.
    pub(crate) fn answer(&mut self, event: Event) -> Result<Option<Instant>> {
        if !event.readable() {
            return Ok(None);
        }
        let mut buffer = [0; 2 * MESSAGE];
        match receive(&self.socket, &mut buffer) {
            Received::Bytes(count) => self.received += count,
            Received::Nothing => return Ok(None),
            Received::End => bail!("the connection was closed"),
            Received::Broken(reason) => bail!(reason),
        }
        if self.received < MESSAGE {
            return Ok(None);
        }
        self.received -= MESSAGE;
        Ok(self.since.take())
    }
}

/// Each connection asks again once it has its answer.
pub(crate) fn run(load: &Load) -> Result<Report> {
    let mut poller = Poller::new()?;
    let mut report = Report::begin(load);
    let mut channels = Vec::new();
    for key in 0..load.connections {
        channels.push(Channel::begin(&poller, load, key)?);
    }
    loop {
        let events = poller.wait(Some(STANDSTILL))?;
        if events.is_empty() {
            bail!("no answer for {STANDSTILL:?}");
        }
        for event in events {
            let channel = &mut channels[event.key];
            if !channel.connected {
                if !event.writable() {
                    continue;
                }
                channel.connected = true;
                channel.ask(Instant::now())?;
            } else if let Some(since) = channel.answer(event)? {
                let now = Instant::now();
                report.done(since, now)?;
                channel.ask(now)?;
            }
        }
        if Instant::now() >= report.ends() {
            return Ok(report);
        }
    }
}
