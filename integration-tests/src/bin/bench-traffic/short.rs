//! A connection for each request.

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use swarmlet_integration_tests::bench::monotonic_ns;

use crate::{
    ANSWER, Load, MESSAGE,
    client::{Received, ask, begin, receive},
    poller::{Event, Poller},
    report::Report,
};

/// Longest wait for the requests that are under way when the time is over.
const LAST_ANSWERS: Duration = Duration::from_secs(3);

struct Attempt {
    socket: OwnedFd,
    begun: Instant,
    begun_ns: u64,
    asked: bool,
    received: usize,
}

/// Does one after the other in each of the load's places.
pub(crate) fn run(load: &Load, request: u8) -> Result<Report> {
    let mut poller = Poller::new()?;
    let mut report = Report::begin(load);
    let mut attempts: Vec<Option<Attempt>> = Vec::new();
    for key in 0..load.connections {
        attempts.push(Some(attempt(&poller, load, key)?));
    }
    let mut open = attempts.len();
    while open > 0 {
        let events = poller.wait(Some(LAST_ANSWERS))?;
        let now = Instant::now();
        ensure!(
            now < report.ends() + LAST_ANSWERS,
            "{open} requests have no answer {LAST_ANSWERS:?} after the end"
        );
        for event in events {
            let slot = &mut attempts[event.key];
            let Some(under_way) = slot else { continue };
            let Some(outcome) = under_way.advance(event, request) else {
                continue;
            };
            match outcome {
                Ok(()) => report.done(under_way.begun, Instant::now())?,
                Err(reason) => report.failed(reason, under_way.begun_ns),
            }
            // Closed before the next one is opened: no more at a time than was said.
            *slot = None;
            if now < report.ends() {
                *slot = Some(attempt(&poller, load, event.key)?);
            } else {
                open -= 1;
            }
        }
    }
    Ok(report)
}

fn attempt(poller: &Poller, load: &Load, key: usize) -> Result<Attempt> {
    let (begun, begun_ns) = (Instant::now(), monotonic_ns());
    Ok(Attempt {
        socket: begin(poller, load.target, key)?,
        begun,
        begun_ns,
        asked: false,
        received: 0,
    })
}

impl Attempt {
    /// Goes on; how it ended, if it did.
    fn advance(&mut self, event: Event, request: u8) -> Option<Result<(), String>> {
        if !self.asked {
            if !event.writable() {
                return None;
            }
            if let Err(reason) = ask(&self.socket, request) {
                return Some(Err(reason));
            }
            self.asked = true;
        }
        if !event.readable() {
            return None;
        }
        let mut buffer = [0; 2 * MESSAGE];
        loop {
            match receive(&self.socket, &mut buffer) {
                Received::Bytes(count) => {
                    self.received += count;
                    if self.received > MESSAGE {
                        return Some(Err("answer too long".into()));
                    }
                    let complete = self.received == MESSAGE;
                    if complete && request == ANSWER {
                        return Some(Ok(()));
                    }
                    if !event.ended() {
                        return None;
                    }
                }
                Received::End if self.received == MESSAGE => return Some(Ok(())),
                Received::End => {
                    return Some(Err(format!("closed after {} bytes", self.received)));
                }
                Received::Nothing => return None,
                Received::Broken(reason) => return Some(Err(reason)),
            }
        }
    }
}
