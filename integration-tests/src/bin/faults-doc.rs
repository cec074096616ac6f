//! Prints `docs/faults.md`, made of what the tests of faults, of the package and of nodes that
//! leave measured last.
//!
//! The names of the tests are read from standard input, as `--list` prints them. A test that
//! has measured nothing is an error: the page would be silent about it.

use std::{
    collections::BTreeMap,
    fs, io,
    io::{BufRead, Write},
    process::ExitCode,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use swarmlet_integration_tests::measured::{self, Figure};

/// Modules of the tests, in the order of the page, and what they are about.
const SECTIONS: [(&str, &str); 24] = [
    ("leader", "The leader is killed"),
    ("daemon", "Daemons are killed or paused"),
    ("paused", "The leader is paused"),
    ("balancer", "Balancers are killed"),
    ("containers", "A container dies"),
    ("engine", "The engine is killed or hangs"),
    ("hosts", "A host is lost"),
    ("alone", "All managers are gone"),
    ("headless", "All managers are gone, and more fails"),
    ("quorum", "Managers lose their majority"),
    ("writes", "Managers are killed while they write"),
    ("disks", "Disks are full, or fail"),
    ("networks", "Networks are cut"),
    ("loss", "Networks lose packets"),
    ("workers", "Workers are cut off"),
    ("closed_port", "A closed port explains itself"),
    ("explained", "More that explains itself"),
    ("clocks", "Clocks are wrong, or jump"),
    ("one_way", "A port that is closed one way explains itself"),
    ("limits", "Limits"),
    ("siege", "The balancer is attacked"),
    (UNNAMED, "Installing"),
    ("leave", "A node leaves"),
    ("boot", "A machine that systemd boots"),
];

/// The module of the tests that are in none: those of the package.
const UNNAMED: &str = "package";

const HEAD: &str = "# Faults, and what was measured

Written by the tests themselves: each breaks one thing on hosts of its own (network namespaces with
a container engine each) under load, measures how long its effect lasts, and fails where a bound is
missed. `make test-hosts` measures, and keeps the figures in the target directory; `make faults-doc`
makes this page of them. Where something was measured several times the worst is shown. A machine
that had more threads to run than processors meanwhile, or waited for its disk, is given as much
longer, which the figure then says.
";

fn main() -> ExitCode {
    match page() {
        Ok(page) => match io::stdout().write_all(page.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error.into()),
        },
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("faults-doc: {error:#}");
    ExitCode::FAILURE
}

fn page() -> Result<String> {
    let lines = io::stdin().lock().lines();
    let lines: Vec<String> = lines.collect::<io::Result<_>>()?;
    let tests: Vec<&str> = lines
        .iter()
        .filter_map(|line| line.strip_suffix(": test"))
        .collect();
    ensure!(!tests.is_empty(), "no test is named on standard input");
    let directory = measured::directory()?;
    let mut sections: BTreeMap<(usize, &str), String> = BTreeMap::new();
    let mut silent = Vec::new();
    for test in tests {
        let path = directory.join(format!("{}.json", test.replace("::", ".")));
        let Ok(record) = fs::read_to_string(&path) else {
            silent.push(test);
            continue;
        };
        let record: Value = serde_json::from_str(&record)
            .with_context(|| format!("{} is not JSON", path.display()))?;
        let module = test.rsplit_once("::").map_or(UNNAMED, |(module, _)| module);
        let order = SECTIONS.iter().position(|(name, _)| *name == module);
        let section = sections
            .entry((order.unwrap_or(SECTIONS.len()), module))
            .or_default();
        section.push_str(&table(test, &record)?);
    }
    if !silent.is_empty() {
        bail!(
            "these tests have measured nothing, run `make test-hosts`: {}",
            silent.join(", ")
        );
    }
    let mut page = format!("{HEAD}\n{}\n", machine()?);
    for ((order, module), text) in sections {
        let title = SECTIONS.get(order).map_or(module, |(_, title)| title);
        page.push_str(&format!("\n## {title}\n{text}"));
    }
    Ok(page)
}

/// One test with its figures.
fn table(test: &str, record: &Value) -> Result<String> {
    let name = test.rsplit("::").next().unwrap_or(test).replace('_', " ");
    let mut text = format!(
        "\n**{name}** (`{test}`)\n\n| what | bound | measured | times |\n|---|---|---|---|\n"
    );
    let figures = record["figures"].as_array().context("no figures")?;
    for figure in figures {
        let figure = Figure::from_json(figure).context("not a figure")?;
        let missed = if figure.missed { " **missed**" } else { "" };
        text.push_str(&format!(
            "| {} | {} | {}{missed} | {} |\n",
            figure.what, figure.bound, figure.worst, figure.times
        ));
    }
    Ok(text)
}

/// What it was measured on.
fn machine() -> Result<String> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let cores = std::thread::available_parallelism()?;
    Ok(format!(
        "Measured on {cores} cores with Linux {}, all hosts of a test on them.",
        kernel.trim()
    ))
}
