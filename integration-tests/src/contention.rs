//! How much more work a machine has than processors.
//!
//! A bound of a few milliseconds or seconds is one of a machine that has the time. Where three
//! hosts share two processors with other programs, everything takes as much longer as there are
//! more runnable threads than processors, swarmlet and container engines alike; and where a disk
//! is busy with what a build has written, whoever records something durably waits for it. What was
//! measured meanwhile is compared with the bound times this factor.

use std::{
    collections::VecDeque,
    fs,
    sync::{Mutex, Once, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crate::bench::processor_ticks;

/// Pause between two samples.
const PAUSE: Duration = Duration::from_millis(20);

/// Samples that are kept: those of two minutes.
const KEPT: usize = 6_000;

/// On a machine that is busier than this nothing is measured any more, only excused.
const MOST: f64 = 4.0;

/// Runnable threads per processor at a moment.
struct Sample {
    at: Instant,
    factor: f64,
}

static SAMPLES: Mutex<VecDeque<Sample>> = Mutex::new(VecDeque::new());

/// Begins to take samples, once in a process.
pub(crate) fn watch() {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        thread::spawn(|| {
            let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
            let mut ticks = [0; 8];
            let mut looked = (Instant::now(), disk_waits().unwrap_or_default());
            // A machine that does not tell is taken for an idle one.
            while let (Some(runnable), Ok(now)) = (runnable(), processor_ticks()) {
                let stolen = stolen(ticks, now);
                ticks = now;
                let at = Instant::now();
                let waits = disk_waits().unwrap_or_default();
                let waited = share(waits.saturating_sub(looked.1), at.duration_since(looked.0));
                looked = (at, waits);
                let factor = factor(runnable, cores, stolen, waited);
                let mut samples = SAMPLES.lock().unwrap_or_else(PoisonError::into_inner);
                if samples.len() == KEPT {
                    samples.pop_front();
                }
                samples.push_back(Sample { at, factor });
                drop(samples);
                thread::sleep(PAUSE);
            }
        });
    });
}

/// By how much things took longer in the last `window`, at least 1; without samples 1.
pub(crate) fn during(window: Duration) -> f64 {
    let samples = SAMPLES.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    let recent = samples
        .iter()
        .rev()
        .take_while(|sample| now.duration_since(sample.at) <= window)
        .map(|sample| sample.factor);
    let (count, sum) = recent.fold((0_u32, 0.0), |(count, sum), factor| {
        (count + 1, sum + factor)
    });
    match count {
        0 => 1.0,
        _ => (sum / f64::from(count)).clamp(1.0, MOST),
    }
}

/// Threads per processor, with what the machine under a virtual one takes for others, and the
/// share of the time in which somebody waits for a disk.
fn factor(runnable: usize, cores: usize, stolen: f64, waited: f64) -> f64 {
    let shared = (runnable as f64 / cores as f64).max(1.0);
    let left = |taken: f64| 1.0 - taken.clamp(0.0, 0.75);
    shared / left(stolen) / left(waited)
}

/// For how long somebody has waited for a disk since boot; none where the kernel does not count it.
fn disk_waits() -> Option<Duration> {
    let text = fs::read_to_string("/proc/pressure/io").ok()?;
    let some = text.lines().find(|line| line.starts_with("some "))?;
    let (_, total) = some.split_once("total=")?;
    Some(Duration::from_micros(total.trim().parse().ok()?))
}

fn share(part: Duration, whole: Duration) -> f64 {
    part.as_secs_f64() / whole.as_secs_f64().max(1e-6)
}

/// Threads that run or want to, without the one that asks.
fn runnable() -> Option<usize> {
    let line = fs::read_to_string("/proc/loadavg").ok()?;
    let (running, _) = line.split(' ').nth(3)?.split_once('/')?;
    Some(running.parse::<usize>().ok()?.saturating_sub(1))
}

/// Which share of the processors' time others got between two looks at their ticks.
fn stolen(before: [u64; 8], now: [u64; 8]) -> f64 {
    let passed = |ticks: [u64; 8]| ticks.iter().sum::<u64>();
    match passed(now).saturating_sub(passed(before)) {
        0 => 0.0,
        all => now[7].saturating_sub(before[7]) as f64 / all as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_beyond_the_processors_stretch() {
        assert!((factor(1, 2, 0.0, 0.0) - 1.0).abs() < 1e-9);
        assert!((factor(2, 2, 0.0, 0.0) - 1.0).abs() < 1e-9);
        assert!((factor(6, 2, 0.0, 0.0) - 3.0).abs() < 1e-9);
        assert!((factor(2, 2, 0.5, 0.0) - 2.0).abs() < 1e-9);
        assert!((factor(1, 2, 0.0, 0.5) - 2.0).abs() < 1e-9);
        let (before, now) = ([50, 0, 40, 0, 0, 0, 0, 10], [70, 0, 95, 0, 0, 0, 0, 35]);
        assert!((stolen(before, now) - 0.25).abs() < 1e-9);
        assert!(stolen(now, now).abs() < 1e-9);
    }

    #[test]
    fn this_machine_can_be_watched() {
        assert!(runnable().is_some());
        assert!(processor_ticks().unwrap()[0] > 0);
        watch();
        thread::sleep(PAUSE * 5);
        let factor = during(Duration::from_secs(1));
        assert!((1.0..=MOST).contains(&factor), "{factor}");
    }
}
