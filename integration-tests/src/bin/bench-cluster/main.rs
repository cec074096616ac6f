//! Compares swarmlet with Docker Swarm: the same three hosts, the same engines, the same words.
//!
//! In each round both have their turn, the one first and then the other in the next round, so
//! that what the machine does besides hits both alike. What counts is what the engines show and
//! what commands answer; neither system is asked how it thinks it does. See [`story`] for what
//! is measured.

mod report;
mod story;
mod system;

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use clap::Parser;
use swarmlet_integration_tests::{
    Hosts, Image,
    bench::{Machine, in_rounds},
};

use system::System;

#[derive(Parser)]
#[command(about = "Compares swarmlet with Docker Swarm; needs root")]
struct Options {
    /// Rounds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Where cluster.md, cluster.svg and cluster.csv go.
    #[arg(long, default_value = "docs/bench")]
    out: PathBuf,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let machine = Machine::look()?;
    let hosts = Hosts::start(3, &Image::whoami()?)?;
    let version = hosts[0].docker(&["version", "--format", "{{.Server.Version}}"])?;
    let version = version.success()?.trim().to_owned();
    let mut results = report::Results::default();
    in_rounds(options.rounds, |round| {
        let mut systems = [System::Swarmlet, System::Swarm];
        systems.rotate_left(round as usize % 2);
        for system in systems {
            let told = story::tell(&hosts, system)
                .with_context(|| format!("{}, round {}", system.name(), round + 1));
            system.leave(&hosts)?;
            hosts.reset()?;
            results.add(system, told?);
        }
        Ok(())
    })?;
    fs::create_dir_all(&options.out)
        .with_context(|| format!("cannot make {}", options.out.display()))?;
    let about = format!(
        "{} Rounds: {}. Engines: Docker {version}.",
        machine.describe()?,
        options.rounds
    );
    report::write(&options.out, &results, &about)?;
    eprintln!("{} written", options.out.join("cluster.md").display());
    Ok(())
}
