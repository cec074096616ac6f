//! How much more work a machine has than processors.
//!
//! A bound of a few milliseconds or seconds is one of a machine that has the time. Where three
//! hosts share two processors with other programs, everything takes as much longer as there are
//! more runnable threads than processors, swarmlet and container engines alike. What was measured
//! meanwhile is compared with the bound times this factor.

use std::{
    collections::VecDeque,
    fs,
    sync::{Mutex, Once, PoisonError},
    thread,
    time::{Duration, Instant},
};

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
            let mut ticks = processor_ticks();
            loop {
                thread::sleep(PAUSE);
                let now = processor_ticks();
                let stolen = stolen(ticks, now);
                ticks = now;
                let Some(runnable) = runnable() else {
                    return;
                };
                let factor = factor(runnable, cores, stolen);
                let at = Instant::now();
                let mut samples = SAMPLES.lock().unwrap_or_else(PoisonError::into_inner);
                if samples.len() == KEPT {
                    samples.pop_front();
                }
                samples.push_back(Sample { at, factor });
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

/// Threads per processor, with what the machine under a virtual one takes for others.
fn factor(runnable: usize, cores: usize, stolen: f64) -> f64 {
    let shared = (runnable as f64 / cores as f64).max(1.0);
    shared / (1.0 - stolen.clamp(0.0, 0.75))
}

/// Threads that run or want to, without the one that asks.
fn runnable() -> Option<usize> {
    let line = fs::read_to_string("/proc/loadavg").ok()?;
    let (running, _) = line.split(' ').nth(3)?.split_once('/')?;
    Some(running.parse::<usize>().ok()?.saturating_sub(1))
}

/// All processors' ticks so far, and those among them that others got.
fn processor_ticks() -> (u64, u64) {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line
        .split_ascii_whitespace()
        .skip(1)
        .filter_map(|number| number.parse().ok())
        .collect();
    // user, nice, system, idle, iowait, irq, softirq, steal; guests are a part of user.
    let all = ticks.iter().take(8).sum();
    (all, ticks.get(7).copied().unwrap_or(0))
}

fn stolen(before: (u64, u64), now: (u64, u64)) -> f64 {
    match now.0.saturating_sub(before.0) {
        0 => 0.0,
        all => now.1.saturating_sub(before.1) as f64 / all as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_beyond_the_processors_stretch() {
        assert!((factor(1, 2, 0.0) - 1.0).abs() < 1e-9);
        assert!((factor(2, 2, 0.0) - 1.0).abs() < 1e-9);
        assert!((factor(6, 2, 0.0) - 3.0).abs() < 1e-9);
        assert!((factor(2, 2, 0.5) - 2.0).abs() < 1e-9);
        assert!((stolen((100, 10), (200, 35)) - 0.25).abs() < 1e-9);
        assert!(stolen((100, 10), (100, 10)).abs() < 1e-9);
    }

    #[test]
    fn this_machine_can_be_watched() {
        assert!(runnable().is_some());
        assert!(processor_ticks().0 > 0);
        watch();
        thread::sleep(PAUSE * 5);
        let factor = during(Duration::from_secs(1));
        assert!((1.0..=MOST).contains(&factor), "{factor}");
    }
}
