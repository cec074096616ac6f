//! W4: memory of the balancer for a connection that does nothing, before and after a message.

use std::{
    io::{BufRead as _, BufReader, Lines, Write as _},
    process::{Child, ChildStdout, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use swarmlet_integration_tests::bench::Route;

use crate::{
    Bench,
    cell::{Cell, Figure, Layout, Workload},
    contender::{Contender, Running},
    measure::{Servers, Setup, work},
    results::{Results, Sample},
};

/// The name of this measurement among the cells.
pub(crate) const CELL: &str = "W4";

/// Idle connections: as many as 20,000 open files allow the balancer, with room to spare.
pub(crate) const CONNECTIONS: usize = 8_000;

/// Memory is taken for settled once it has not changed for so long.
const SETTLED: Duration = Duration::from_millis(200);

/// Measures everybody who is a process.
pub(crate) fn round(bench: &mut Bench<'_>, round: u32, results: &mut Results) -> Result<()> {
    let turns = Contender::in_turn(Workload::Keep, round);
    for contender in turns.filter(|contender| contender.is_process()) {
        let cell = Cell {
            workload: Workload::Keep,
            layout: Layout::S,
            route: Route::Loopback,
        };
        let setup = Setup::new(bench, cell)?;
        let sample = measure(&setup, contender)
            .with_context(|| format!("{CELL} of {}", contender.name()))?;
        results.add(CELL.into(), contender, round, sample);
    }
    Ok(())
}

fn measure(setup: &Setup<'_>, contender: Contender) -> Result<Sample> {
    let servers = Servers::start(setup)?;
    let balancer = Running::start(setup, contender)?;
    // Code and buffers that every connection shares are there before it counts.
    work(setup, contender, &servers)?;
    let before = settled(&balancer)?;
    let mut crowd = Crowd::open(setup, contender)?;
    let open = settled(&balancer)?;
    crowd.exchange()?;
    let after = settled(&balancer)?;
    let each = |bytes: u64| bytes.saturating_sub(before) as f64 / CONNECTIONS as f64;
    Ok([
        (Figure::IdleBytes, each(open)),
        (Figure::IdleBytesAfterMessage, each(after)),
    ]
    .into())
}

fn settled(balancer: &Running<'_>) -> Result<u64> {
    let (mut bytes, mut since) = (balancer.resident_bytes()?, Instant::now());
    while since.elapsed() < SETTLED {
        thread::sleep(SETTLED / 10);
        let now = balancer.resident_bytes()?;
        if now != bytes {
            (bytes, since) = (now, Instant::now());
        }
    }
    Ok(bytes)
}

/// The process that holds the connections.
struct Crowd {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Crowd {
    fn open(setup: &Setup<'_>, contender: Contender) -> Result<Self> {
        let mut child = setup
            .client(contender, setup.small_port(), &["idle"], CONNECTIONS)?
            .stdin(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().context("no standard output")?;
        let mut crowd = Self {
            child,
            lines: BufReader::new(stdout).lines(),
        };
        crowd.expect("open")?;
        Ok(crowd)
    }

    fn exchange(&mut self) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("no standard input")?;
        stdin.write_all(b"ask\n")?;
        self.expect("answered")
    }

    fn expect(&mut self, expected: &str) -> Result<()> {
        let line = self.lines.next().context("the idle client ended")??;
        ensure!(line == expected, "the idle client said {line:?}");
        Ok(())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // Fails only for a process that has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
