//! Short connections through the mesh into a container, on another host and on the same one,
//! beside what else could be on the way there and beside no way at all: hosts with an engine each.
//!
//! `bench-lb` measures the balancer by itself; this is where it works. See `method.md`.

mod mesh;
mod report;
mod way;

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command, time::Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde_json::Value;
use swarmlet_integration_tests::{
    bench::{self, Machine},
    sibling_binary,
};

use mesh::Mesh;
use report::{Results, Sample};
use way::Way;

/// Connections at a time.
const CONNECTIONS: &str = "32";

/// Milliseconds before a measurement counts.
const WARM_UP_MS: &str = "200";

#[derive(Parser)]
#[command(about = "Compares ways into a container on another host; needs root")]
struct Options {
    /// Rounds; below nine nothing that is close can be told apart.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Milliseconds of each measurement.
    #[arg(long, default_value_t = 2_000)]
    window_ms: u64,
    /// Where mesh.md, mesh.svg and mesh.csv go.
    #[arg(long, default_value = "docs/bench")]
    out: PathBuf,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let machine = Machine::look()?;
    let mesh = Mesh::start()?;
    let processors = std::thread::available_parallelism()?.get() as f64;
    let mut results = Results::new(processors);
    bench::in_rounds(options.rounds, |round| {
        let mut samples = BTreeMap::new();
        for way in Way::in_turn(round) {
            let sample = measure(&mesh, way, options.window_ms, processors)
                .with_context(|| format!("{}, round {}", way.name(), round + 1))?;
            samples.insert(way, sample);
        }
        results.add(samples);
        Ok(())
    })?;
    fs::create_dir_all(&options.out)
        .with_context(|| format!("cannot make {}", options.out.display()))?;
    let about = format!(
        "{} Rounds: {}, of {} ms for each way. Engines: Docker {}.",
        machine.describe()?,
        options.rounds,
        options.window_ms,
        mesh.engine()?
    );
    results.write(&options.out, &about)?;
    eprintln!("{} written", options.out.join("mesh.md").display());
    Ok(())
}

/// One way, for one window.
fn measure(mesh: &Mesh, way: Way, window_ms: u64, processors: f64) -> Result<Sample> {
    let mut client: Command = mesh.client().command(sibling_binary("bench-traffic")?);
    client
        .args(["short", "--client-closes"])
        .args(["--target", &mesh.target(way).to_string()])
        .args(["--connections", CONNECTIONS, "--warm-up-ms", WARM_UP_MS])
        .args(["--window-ms", &window_ms.to_string()]);
    let before = bench::machine_time()?;
    let begun = Instant::now();
    let output = client.output().context("cannot start the client")?;
    let took = begun.elapsed();
    let busy = bench::busy_share(before, bench::machine_time()?);
    ensure!(
        output.status.success(),
        "the client ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let number = |key: &str| {
        let value = report[key].as_f64();
        value.with_context(|| format!("no {key} in {report}"))
    };
    let failed = report["failed"].as_object();
    let failed = failed.with_context(|| format!("no failures in {report}"))?;
    let done = number("done")?;
    Ok(Sample {
        per_second: number("per_second")?,
        processor_us: busy * processors * took.as_secs_f64() * 1e6 / done,
        done: done as u64,
        failed: failed.values().filter_map(Value::as_u64).sum(),
    })
}
