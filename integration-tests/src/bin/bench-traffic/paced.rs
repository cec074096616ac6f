//! Requests at fixed moments, whether or not those before have their answers: a balancer that
//! stands still for a while makes all of them late that fell due meanwhile, as real clients'.

use std::{
    collections::VecDeque,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use rustix::{
    io::Errno,
    time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    },
};

use crate::{Load, keep::Channel, poller::Poller, report::Report};

/// Requests that may wait for a free connection: seconds at the rates that are measured.
const MOST_WAITING: usize = 10_000;

/// Sends `rate` requests a second over the load's connections.
pub(crate) fn run(load: &Load, rate: u32) -> Result<Report> {
    let mut poller = Poller::new()?;
    let mut channels = Vec::new();
    for key in 0..load.connections {
        channels.push(Channel::begin(&poller, load, key)?);
    }
    // Not the poller's timeout, which counts milliseconds.
    let clock = ticking(Duration::from_secs(1) / rate)?;
    let tick = channels.len();
    poller.add_source(&clock, tick)?;
    let mut report = Report::begin(load);
    let begun = Instant::now();
    let mut ticks = 0;
    let mut due: VecDeque<Instant> = VecDeque::new();
    let mut free: VecDeque<usize> = VecDeque::new();
    while Instant::now() < report.ends() {
        for event in poller.wait(None)? {
            if event.key == tick {
                for _ in 0..passed(&clock)? {
                    ticks += 1;
                    due.push_back(begun + Duration::from_secs(1) * ticks / rate);
                }
                continue;
            }
            let channel = &mut channels[event.key];
            if !channel.connected {
                channel.connected = event.writable();
                free.extend(channel.connected.then_some(event.key));
            } else if let Some(since) = channel.answer(event)? {
                report.done(since, Instant::now());
                free.push_back(event.key);
            }
        }
        while let (Some(&since), Some(&key)) = (due.front(), free.front()) {
            channels[key].ask(since)?;
            due.pop_front();
            free.pop_front();
        }
        if due.len() > MOST_WAITING {
            bail!("{MOST_WAITING} requests wait for a connection");
        }
    }
    Ok(report)
}

fn ticking(interval: Duration) -> Result<OwnedFd> {
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    let clock = timerfd_create(TimerfdClockId::Monotonic, flags)?;
    let interval = Timespec {
        tv_sec: interval.as_secs() as i64,
        tv_nsec: interval.subsec_nanos().into(),
    };
    let value = Itimerspec {
        it_interval: interval,
        it_value: interval,
    };
    timerfd_settime(&clock, TimerfdTimerFlags::empty(), &value)?;
    Ok(clock)
}

/// Ticks since the last call.
fn passed(clock: &OwnedFd) -> Result<u64> {
    let mut count = [0; 8];
    match rustix::io::read(clock, &mut count) {
        Ok(_) => Ok(u64::from_ne_bytes(count)),
        Err(Errno::AGAIN) => Ok(0),
        Err(error) => Err(error.into()),
    }
}
