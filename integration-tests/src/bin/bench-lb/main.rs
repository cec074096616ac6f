//! Compares the balancer with HAProxy, nginx, the kernel's address translation (nft) and no
//! balancer at all.
//!
//! Figures of one run are only worth something beside others of the same run, and on a shared
//! machine even the same program differs from itself by more than many a gain: so everything is
//! measured in rounds, in each of which all contenders have their turn, in an order that moves
//! on; ratios are those of a round; and swarmlet takes part twice, so that it can be seen what
//! a difference means. See [`cell`] for what is measured and [`contender`] for the balancers.

mod calls;
mod cell;
mod configuration;
mod contender;
mod idle;
mod killed;
mod measure;
mod missed;
mod report;
mod results;
mod targets;

use std::{fs, path::PathBuf, time::Instant};

use anyhow::{Context, Result};
use clap::Parser;
use swarmlet_integration_tests::bench::{Machine, Testbed, in_rounds};

use cell::Cell;
use contender::Contender;
use results::Results;

/// Rounds of the measurements that differ little from one to the next, system calls and memory.
const STEADY_ROUNDS: u32 = 3;

#[derive(Parser)]
#[command(about = "Compares swarmlet's balancer with others; needs root")]
struct Options {
    /// Rounds; below nine nothing that is close can be told apart.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Milliseconds of each measurement.
    #[arg(long, default_value_t = 700)]
    window_ms: u64,
    /// Only cells whose name begins like this: "W1", "W3 S".
    #[arg(long, default_value = "")]
    only: String,
    /// Where lb.md, lb.svg and lb.csv go.
    #[arg(long, default_value = "docs/bench")]
    out: PathBuf,
}

fn main() -> Result<()> {
    let options = Options::parse();
    contender::check_programs()?;
    let machine = Machine::look()?;
    let begun = Instant::now();
    let testbed = Testbed::start()?;
    let mut results = Results::default();
    let mut bench = Bench {
        testbed: &testbed,
        window_ms: options.window_ms,
        number: 0,
    };
    let cells: Vec<Cell> = cell::all()
        .into_iter()
        .filter(|cell| cell.name().starts_with(&options.only))
        .collect();
    in_rounds(options.rounds, |round| {
        for cell in &cells {
            bench.round(*cell, round, &mut results)?;
        }
        Ok(())
    })?;
    for round in 0..options.rounds.min(STEADY_ROUNDS) {
        if "W4".starts_with(&options.only) || options.only.starts_with("W4") {
            idle::round(&mut bench, round, &mut results)?;
        }
        if options.only.is_empty() || options.only.starts_with("calls") {
            calls::round(&mut bench, round, &mut results)?;
        }
        if options.only.is_empty() || options.only.starts_with(killed::CELL) {
            killed::round(&mut bench, round, &mut results)?;
        }
    }
    fs::create_dir_all(&options.out)
        .with_context(|| format!("cannot make {}", options.out.display()))?;
    report::write(&options.out, &results, &machine, &options)?;
    eprintln!(
        "{} written after {:.0} s",
        options.out.join("lb.md").display(),
        begun.elapsed().as_secs_f64()
    );
    report::verify(&results)
}

/// What all measurements need.
pub(crate) struct Bench<'a> {
    pub(crate) testbed: &'a Testbed,
    pub(crate) window_ms: u64,
    number: u16,
}

impl Bench<'_> {
    /// The number of the next measurement: addresses that no earlier one has used.
    pub(crate) fn next(&mut self) -> Result<u16> {
        self.number = self
            .number
            .checked_add(1)
            .context("too many measurements in one run")?;
        Ok(self.number)
    }

    fn round(&mut self, cell: Cell, round: u32, results: &mut Results) -> Result<()> {
        for contender in Contender::in_turn(cell.workload, round) {
            let setup = measure::Setup::new(self, cell)?;
            let sample = measure::measure(&setup, contender).with_context(|| {
                format!(
                    "{} of {}, round {}",
                    cell.name(),
                    contender.name(),
                    round + 1
                )
            })?;
            results.add(cell.name(), contender, round, sample);
        }
        Ok(())
    }
}
