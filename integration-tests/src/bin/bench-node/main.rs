//! What one node's balancer does while its cluster changes: how soon a published port accepts,
//! and whether replacing the balancer costs anybody a connection.
//!
//! The node is a cluster of its own, with the process runtime, in a network namespace; everything
//! goes through the commands that a user types. See `method.md` for what is measured.

mod node;
mod ports;
mod report;
mod upgrades;

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use swarmlet_integration_tests::bench::Machine;

use node::Node;
use report::Measured;

#[derive(Parser)]
#[command(about = "Measures a node's balancer while its cluster changes; needs root")]
struct Options {
    /// Ports to publish one after the other, and as many again at once.
    #[arg(long, default_value_t = 1_000)]
    ports: u16,
    /// Upgrades of the program.
    #[arg(long, default_value_t = 20)]
    upgrades: usize,
    /// Where node.md goes.
    #[arg(long, default_value = "docs/bench")]
    out: PathBuf,
}

fn main() -> Result<()> {
    let options = Options::parse();
    ensure!(
        (1..=5_000).contains(&options.ports),
        "--ports must be between 1 and 5000"
    );
    let machine = Machine::look()?;
    let node = Node::start()?;
    let measured = Measured {
        replaced: upgrades::measure(&node, options.upgrades)?,
        at_once: ports::at_once(&node, options.ports)?,
        singly: ports::singly(&node, options.ports)?,
    };
    fs::create_dir_all(&options.out)
        .with_context(|| format!("cannot make {}", options.out.display()))?;
    let file = options.out.join("node.md");
    let text = measured.text(&machine.describe()?)?;
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    eprintln!("{} written", file.display());
    measured.verify()
}
