//! Time and memory of processes, as the kernel counts them.

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use rustix::process::Pid;

/// Time that a process has had of processors, all of the threads that it has together, to the nanosecond:
/// the ticks of `/proc/PID/stat` are too coarse for a measurement of a second.
///
/// # Errors
///
/// When it has ended.
pub fn cpu_time(pid: Pid) -> Result<Duration> {
    let tasks = format!("/proc/{}/task", pid.as_raw_nonzero());
    let mut sum = 0;
    for task in fs::read_dir(&tasks).with_context(|| format!("cannot read {tasks}"))? {
        let path = task?.path().join("schedstat");
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        sum += first_number(&text).with_context(|| format!("no time in {text:?}"))?;
    }
    Ok(Duration::from_nanos(sum))
}

/// The kernel's monotonic clock, which all processes have in common.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// Memory of a process that is really there.
///
/// # Errors
///
/// When it has ended.
pub fn resident_bytes(pid: Pid) -> Result<u64> {
    let path = format!("/proc/{}/status", pid.as_raw_nonzero());
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(first_number).context("no VmRSS")?;
    Ok(kibibytes * 1024)
}

/// Ticks of all processors since boot: busy, and all. What the host took away counts as busy:
/// whoever reads the share is to see that the machine was not free.
///
/// # Errors
///
/// When `/proc/stat` cannot be read.
pub fn machine_time() -> Result<(u64, u64)> {
    let [user, nice, system, idle, iowait, irq, softirq, steal] = processor_ticks()?;
    let busy = user + nice + system + irq + softirq + steal;
    Ok((busy, busy + idle + iowait))
}

/// Ticks of all processors since boot, as the kernel sorts them: user, nice, system, idle, iowait,
/// irq, softirq and steal. Guests are a part of user.
pub(crate) fn processor_ticks() -> Result<[u64; 8]> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().unwrap_or_default();
    let mut ticks = [0; 8];
    let mut fields = line.split_whitespace().skip(1);
    for tick in &mut ticks {
        let field = fields.next().and_then(|field| field.parse().ok());
        *tick = field.with_context(|| format!("not ticks: {line}"))?;
    }
    Ok(ticks)
}

/// The share of the whole machine that was busy between two looks at [`machine_time`].
#[must_use]
pub fn busy_share(before: (u64, u64), after: (u64, u64)) -> f64 {
    let all = after.1.saturating_sub(before.1).max(1);
    after.0.saturating_sub(before.0) as f64 / all as f64
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{process::Command, time::Instant};

    use super::*;

    #[test]
    fn a_process_takes_time_and_memory() {
        // Not this one: its threads come and go with other tests, and their time with them.
        let long = "i=0; while [ $i -lt 20000000 ]; do i=$((i+1)); done";
        let mut child = Command::new("sh").args(["-c", long]).spawn().unwrap();
        let pid = Pid::from_child(&child);
        let (before, machine) = (cpu_time(pid).unwrap(), machine_time().unwrap());
        let begun = Instant::now();
        while cpu_time(pid).unwrap() - before < Duration::from_millis(50) {
            assert!(begun.elapsed() < Duration::from_secs(20), "no time at all");
        }
        let share = busy_share(machine, machine_time().unwrap());
        let memory = resident_bytes(pid).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(share > 0.0 && share <= 1.0, "{share}");
        assert!(memory > 100_000, "{memory}");
    }
}
