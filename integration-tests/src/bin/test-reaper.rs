//! Waits for the end of a test run and removes what it left. Its standard input
//! is a pipe whose other end only the test process has: however that one ends,
//! killed by signal 9 included, the pipe closes.

use std::{env, io, path::Path};

use anyhow::{Context, Result};
use swarmlet_integration_tests::cleanup;

fn main() -> Result<()> {
    let directory = env::args_os()
        .nth(1)
        .context("usage: test-reaper DIRECTORY-OF-THE-RUN")?;
    io::copy(&mut io::stdin().lock(), &mut io::sink())?;
    cleanup::remove_run(Path::new(&directory))
}
