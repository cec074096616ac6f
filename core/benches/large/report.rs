//! Where the figures go, and what they are figures of.

#[path = "../../../integration-tests/src/bench/machine.rs"]
#[allow(
    unreachable_pub,
    reason = "the library that the file belongs to exports it"
)]
mod machine;

use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;
use std::{env, fs};

use anyhow::Result;
use criterion::Throughput;
use criterion::measurement::{Measurement, ValueFormatter};
use rustix::time::{ClockId, clock_gettime};

pub(crate) use machine::Machine;

/// Prints a table, and makes a page of it in the directory that `SWARMLET_BENCH_OUT` names.
pub(crate) fn publish(
    (page, title): (&str, &str),
    machine: &Machine,
    explanation: &str,
    table: &str,
) -> Result<()> {
    io::stdout().lock().write_all(table.as_bytes())?;
    let Some(directory) = env::var_os("SWARMLET_BENCH_OUT") else {
        return Ok(());
    };
    fs::create_dir_all(&directory)?;
    let text = format!(
        "# {title}\n\nWritten by `make bench-core`. {}\n\n{explanation}\n\n{table}",
        machine.describe()?
    );
    fs::write(Path::new(&directory).join(page), text)?;
    Ok(())
}

/// Measures the time that this thread had a processor. What else the machine does meanwhile lets
/// a pass take longer by the clock on the wall, and says nothing about it.
pub(crate) struct ProcessorTime;

impl ProcessorTime {
    pub(crate) fn now() -> Duration {
        let spent = clock_gettime(ClockId::ThreadCPUTime);
        let parts = u64::try_from(spent.tv_sec)
            .ok()
            .zip(u32::try_from(spent.tv_nsec).ok());
        let (seconds, nanoseconds) = parts.expect("no thread has spent less than nothing");
        Duration::new(seconds, nanoseconds)
    }
}

impl Measurement for ProcessorTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        Self::now()
    }

    fn end(&self, begun: Duration) -> Duration {
        Self::now() - begun
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_secs_f64() * 1e9
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        &Milliseconds
    }
}

/// Everything here is best read in milliseconds.
struct Milliseconds;

impl ValueFormatter for Milliseconds {
    fn scale_values(&self, _typical: f64, values: &mut [f64]) -> &'static str {
        values.iter_mut().for_each(|value| *value /= 1e6);
        "ms"
    }

    fn scale_throughputs(
        &self,
        typical: f64,
        _throughput: &Throughput,
        values: &mut [f64],
    ) -> &'static str {
        self.scale_values(typical, values)
    }

    fn scale_for_machines(&self, _values: &mut [f64]) -> &'static str {
        "ns"
    }
}
