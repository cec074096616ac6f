//! One run of the harness: its directory, its reaper, and the duty to remove all.

use std::{
    fs,
    io::PipeWriter,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Instant,
};

use anyhow::{Context, Result};

use crate::{Process, cleanup, sibling_binary};

/// The directory of one run, its reaper, and the duty to remove all.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) name: String,
    pub(crate) directory: PathBuf,
    reaper: Child,
    /// Closes when this process ends: the reaper's signal.
    alive: Option<PipeWriter>,
}

impl Run {
    pub(crate) fn begin() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let pid = rustix::process::getpid();
        let own = Process::read(pid).context("cannot read the own process in /proc")?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{}-{number}", pid.as_raw_nonzero(), own.start_time);
        let directory = cleanup::runs_directory().join(&name);
        fs::create_dir_all(&directory)?;
        let (reader, writer) = std::io::pipe()?;
        // A process group of its own: Ctrl-C and a test runner that kills its group must not end it.
        let reaper = Command::new(sibling_binary("test-reaper")?)
            .arg(&directory)
            .stdin(Stdio::from(reader))
            .process_group(0)
            .spawn()
            .context("cannot start test-reaper")?;
        Ok(Self {
            name,
            directory,
            reaper,
            alive: Some(writer),
        })
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let mut clock = Clock::start();
        if let Err(error) = cleanup::remove_run(&self.directory) {
            eprintln!("hosts: {error:#}");
        }
        drop(self.alive.take());
        if let Err(error) = self.reaper.wait() {
            eprintln!("hosts: cannot wait for test-reaper: {error}");
        }
        clock.lap("clean-up");
    }
}

/// Prints how long each step took: a harness that becomes slow is noticed.
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn lap(&mut self, step: &str) {
        eprintln!("hosts: {step}: {:.2} s", self.0.elapsed().as_secs_f64());
        self.0 = Instant::now();
    }
}
