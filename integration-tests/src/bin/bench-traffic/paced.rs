//! Requests at fixed moments, whether or not those before have their answers: a balancer that
//! stands still for a while makes all of them late that fell due meanwhile, as real clients'.

use std::{
    collections::VecDeque,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
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
    let mut clock = Clock::start(Duration::from_secs(1) / rate)?;
    let tick = channels.len();
    poller.add_source(&clock.timer, tick)?;
    let mut report = Report::begin(load);
    let mut due: VecDeque<Instant> = VecDeque::new();
    let mut free: VecDeque<usize> = VecDeque::new();
    while Instant::now() < report.ends() {
        for event in poller.wait(None)? {
            if event.key == tick {
                due.extend(clock.passed()?);
                continue;
            }
            let channel = &mut channels[event.key];
            if !channel.connected {
                channel.connected = event.writable();
                free.extend(channel.connected.then_some(event.key));
            } else if let Some(since) = channel.answer(event)? {
                report.done(since, Instant::now())?;
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

/// A timer of the kernel's: not the poller's timeout, which counts milliseconds.
struct Clock {
    timer: OwnedFd,
    begun: Instant,
    interval: Duration,
    ticks: u32,
}

impl Clock {
    fn start(interval: Duration) -> Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let every = Timespec {
            tv_sec: interval.as_secs() as i64,
            tv_nsec: interval.subsec_nanos().into(),
        };
        let value = Itimerspec {
            it_interval: every,
            it_value: every,
        };
        // Before the timer's own begin, never after it: however long this thread is kept from the
        // processor in between, no tick comes before the moment that it is taken for, and what
        // is late seems later by that time rather than too early.
        let begun = Instant::now();
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &value)?;
        Ok(Self {
            timer,
            begun,
            interval,
            ticks: 0,
        })
    }

    /// When those ticks were due that have come since the last call.
    fn passed(&mut self) -> Result<Vec<Instant>> {
        let mut count = [0; 8];
        match rustix::io::read(&self.timer, &mut count) {
            Ok(_) => {}
            Err(Errno::AGAIN) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
        let before = self.ticks;
        self.ticks += u32::try_from(u64::from_ne_bytes(count)).context("too many ticks")?;
        let due = |tick| self.begun + self.interval * tick;
        Ok((before + 1..=self.ticks).map(due).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_tick_comes_before_it_is_due_and_none_is_missed() {
        let mut clock = Clock::start(Duration::from_micros(100)).unwrap();
        let mut due = Vec::new();
        while due.len() < 500 {
            let passed = clock.passed().unwrap();
            let now = Instant::now();
            assert!(
                passed.iter().all(|due| *due <= now),
                "{passed:?} at {now:?}"
            );
            due.extend(passed);
        }
        let interval = Duration::from_micros(100);
        assert!(due.windows(2).all(|two| two[1] - two[0] == interval));
        assert_eq!(due[0], clock.begun + interval);
    }
}
