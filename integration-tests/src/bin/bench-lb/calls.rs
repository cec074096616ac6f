//! System calls of the balancer for a request, and whether it splices: counted by perf, whose
//! tracepoints cost a balancer little, or by strace where there is no perf. In a run of their
//! own, since being counted costs time.

use std::{
    fs,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use swarmlet_integration_tests::{Pid, bench::Route};

use crate::{
    Bench,
    cell::{Cell, Figure, Layout, Workload},
    contender::{Contender, Running},
    measure::{Servers, Setup, work},
    results::{Results, Sample},
};

/// A counter has taken hold of the processes after this time: it says nothing when it has.
const TAKE_HOLD: Duration = Duration::from_millis(300);

/// Who counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counter {
    Perf,
    Strace,
}

/// The counter of this machine; none if there is none.
pub(crate) fn counter() -> Option<Counter> {
    let works = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).arg("true");
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if works("perf", &["stat", "-e", "raw_syscalls:sys_enter"]) {
        Some(Counter::Perf)
    } else if works("strace", &["-c", "-o", "/dev/null"]) {
        Some(Counter::Strace)
    } else {
        None
    }
}

/// The workloads in which calls are counted, under the names of their cells.
pub(crate) fn cells() -> [Cell; 3] {
    let short = Workload::Short {
        client_closes: false,
    };
    [short, Workload::Keep, Workload::Bulk].map(|workload| Cell {
        workload,
        layout: Layout::S,
        route: Route::Loopback,
    })
}

/// Counts for everybody who is a process.
pub(crate) fn round(bench: &mut Bench<'_>, round: u32, results: &mut Results) -> Result<()> {
    let Some(counter) = counter() else {
        return Ok(());
    };
    for cell in cells() {
        let turns = Contender::in_turn(cell.workload, round);
        for contender in turns.filter(|contender| contender.is_process()) {
            let setup = Setup::new(bench, cell)?;
            let sample = measure(&setup, contender, counter).with_context(|| {
                format!("system calls of {} in {}", contender.name(), cell.name())
            })?;
            results.add(cell.name(), contender, round, sample);
        }
    }
    Ok(())
}

fn measure(setup: &Setup<'_>, contender: Contender, counter: Counter) -> Result<Sample> {
    let servers = Servers::start(setup)?;
    let balancer = Running::start(setup, contender)?;
    let counting = Counting::start(counter, setup, balancer.pids())?;
    let outcome = work(setup, contender, &servers)?;
    let (all, spliced) = counting.stop()?;
    let mut sample = Sample::new();
    if setup.cell.workload == Workload::Bulk {
        sample.insert(Figure::SpliceShare, spliced / all.max(1.0));
    } else {
        sample.insert(Figure::Calls, all / outcome.done()?);
    }
    Ok(sample)
}

struct Counting {
    counter: Counter,
    child: Child,
    path: std::path::PathBuf,
}

impl Counting {
    fn start(counter: Counter, setup: &Setup<'_>, pids: &[Pid]) -> Result<Self> {
        let path = setup.testbed.directory().join("calls");
        let pids: Vec<String> = pids
            .iter()
            .map(|pid| pid.as_raw_nonzero().to_string())
            .collect();
        let mut command;
        match counter {
            Counter::Perf => {
                command = Command::new("perf");
                command
                    .args(["stat", "-x", ",", "-e"])
                    .arg("raw_syscalls:sys_enter,syscalls:sys_enter_splice")
                    .args(["-p", &pids.join(","), "-o"]);
            }
            Counter::Strace => {
                command = Command::new("strace");
                command.args(["-f", "-c"]);
                for pid in &pids {
                    command.args(["-p", pid]);
                }
                command.arg("-o");
            }
        }
        command.arg(&path).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().context("cannot start the counter")?;
        thread::sleep(TAKE_HOLD);
        Ok(Self {
            counter,
            child,
            path,
        })
    }

    /// All calls, and those to splice.
    fn stop(mut self) -> Result<(f64, f64)> {
        let interrupt = rustix::process::Signal::INT;
        rustix::process::kill_process(Pid::from_child(&self.child), interrupt)?;
        self.child.wait()?;
        let text = fs::read_to_string(&self.path)?;
        let counts = match self.counter {
            Counter::Perf => perf_counts(&text),
            Counter::Strace => strace_counts(&text),
        };
        counts.with_context(|| format!("no counts in {text:?}"))
    }
}

/// `29,,raw_syscalls:sys_enter,870577,100.00,,`
fn perf_counts(text: &str) -> Option<(f64, f64)> {
    let count = |event: &str| {
        let line = text.lines().find(|line| line.contains(event))?;
        line.split(',').next()?.parse().ok()
    };
    Some((
        count("raw_syscalls:sys_enter")?,
        count("syscalls:sys_enter_splice")?,
    ))
}

/// `  0.00    0.000000           0         3           splice`, and a last line `total`.
fn strace_counts(text: &str) -> Option<(f64, f64)> {
    let count = |name: &str| -> Option<f64> {
        let line = text
            .lines()
            .find(|line| line.ends_with(&format!(" {name}")))?;
        line.split_whitespace().nth(3)?.parse().ok()
    };
    Some((count("total")?, count("splice").unwrap_or(0.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_perf_writes_is_read() {
        let text = "# started on Mon\n\n2950,,raw_syscalls:sys_enter,8,100.00,,\n\
                    12,,syscalls:sys_enter_splice,8,100.00,,\n";
        assert_eq!(perf_counts(text), Some((2950.0, 12.0)));
        assert_eq!(perf_counts("nothing"), None);
    }

    #[test]
    fn what_strace_writes_is_read() {
        let text = "% time     seconds  usecs/call     calls    errors syscall\n\
                    ------ ----------- ----------- --------- --------- ----------------\n\
                    \x2060.00    0.000003           0        20         2 splice\n\
                    \x2040.00    0.000002           0        10           read\n\
                    ------ ----------- ----------- --------- --------- ----------------\n\
                    100.00    0.000005           0        30         2 total\n";
        assert_eq!(strace_counts(text), Some((30.0, 20.0)));
    }
}
