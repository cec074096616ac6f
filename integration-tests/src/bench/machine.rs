//! What the figures were measured on.

use std::{fmt, fs, process::Command, thread};

use anyhow::{Context, Result};

/// The machine, and how busy it was before the run.
#[derive(Clone, Debug)]
pub struct Machine {
    processors: usize,
    model: String,
    kernel: String,
    load: String,
    date: String,
}

impl Machine {
    /// Looks around.
    ///
    /// # Errors
    ///
    /// When `/proc` cannot be read.
    pub fn look() -> Result<Self> {
        let model = fs::read_to_string("/proc/cpuinfo")?
            .lines()
            .find_map(|line| line.strip_prefix("model name"))
            .map_or("unknown", |rest| rest.trim_start_matches(['\t', ' ', ':']))
            .to_owned();
        let date = Command::new("date").args(["-u", "+%F %R UTC"]).output()?;
        Ok(Self {
            processors: thread::available_parallelism()?.get(),
            model,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?
                .trim()
                .to_owned(),
            load: load_average()?,
            date: String::from_utf8_lossy(&date.stdout).trim().to_owned(),
        })
    }

    /// A sentence on it for the head of a document that is written now.
    ///
    /// # Errors
    ///
    /// When `/proc` cannot be read.
    pub fn describe(&self) -> Result<String> {
        Ok(format!("{self}, {} at the end.", load_average()?))
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "Measured from {} on {} processors ({}), Linux {}. Load average (1, 5, 15 min) {} at the start",
            self.date, self.processors, self.model, self.kernel, self.load
        )
    }
}

fn load_average() -> Result<String> {
    let text = fs::read_to_string("/proc/loadavg")?;
    let fields: Vec<&str> = text.split(' ').take(3).collect();
    (fields.len() == 3)
        .then(|| fields.join(", "))
        .with_context(|| format!("no load average in {text:?}"))
}
