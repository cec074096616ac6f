//! The document: tables, targets, plot and raw figures.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Result, ensure};
use swarmlet_integration_tests::bench::{Bar, Chart, Machine, Panel};

use crate::{
    Options,
    calls::{self, Counter},
    cell::{self, Cell, Figure, Workload},
    contender::Contender,
    idle, killed, missed,
    results::Results,
    targets::TARGETS,
};

/// Writes `lb.md`, `lb.svg` and `lb.csv`.
pub(crate) fn write(
    directory: &Path,
    results: &Results,
    machine: &Machine,
    options: &Options,
) -> Result<()> {
    // First, so that whatever is wrong with the figures they can be looked at.
    fs::write(directory.join("lb.csv"), results.to_csv())?;
    let mut text = head(machine, options)?;
    targets(&mut text, results)?;
    text += &missed::section(results)?;
    ratios(&mut text, results)?;
    for cell in cell::all() {
        table(
            &mut text,
            results,
            &cell.name(),
            &describe(cell),
            figures(cell.workload),
        );
    }
    let memory = format!(
        "{} connections that do nothing, then a message on each.",
        idle::CONNECTIONS
    );
    let figures = [Figure::IdleBytes, Figure::IdleBytesAfterMessage];
    table(&mut text, results, idle::CELL, &memory, &figures);
    let figures = [Figure::FailedBefore, Figure::FailedInFlight, Figure::Rate];
    table(&mut text, results, killed::CELL, KILLED, &figures);
    system_calls(&mut text, results);
    text.push_str(METHOD);
    fs::write(directory.join("lb.md"), text)?;
    fs::write(directory.join("lb.svg"), chart(results).to_svg())?;
    Ok(())
}

const KILLED: &str = "A connection for each request, 32 at a time, to four endpoints with a process each, which \
    are killed by SIGKILL one after the other and started again; failed connections of all four kills.";

/// Of the system calls of those who are said to splice.
const LEAST_SPLICE_SHARE: f64 = 0.3;

/// Fails where bulk was not moved in the way that the document says.
pub(crate) fn verify(results: &Results) -> Result<()> {
    let [_, _, bulk] = calls::cells().map(|cell| cell.name());
    for contender in [
        Contender::Swarmlet,
        Contender::SwarmletAgain,
        Contender::HaProxy,
    ] {
        let share = results.summary(&bulk, contender, Figure::SpliceShare);
        ensure!(
            share.is_none_or(|share| share.least > LEAST_SPLICE_SHARE),
            "{} does not splice bulk: its share of system calls is {}, which should be above {LEAST_SPLICE_SHARE}",
            contender.name(),
            share.map_or_else(String::new, |share| share.to_string())
        );
    }
    Ok(())
}

fn head(machine: &Machine, options: &Options) -> Result<String> {
    Ok(format!(
        "# The balancer beside others\n\n\
         Written by `make bench-lb`. {} Rounds: {}, {} ms each.\n\n\
         Figures are medians over the rounds with the least and the greatest; ratios are taken within a \
         round. \"swarmlet (again)\" is the same program a second time: a difference that is no greater than \
         that between these two is none.\n\n\
         ![Plot](lb.svg)\n\n",
        machine.describe()?,
        options.rounds,
        options.window_ms
    ))
}

fn targets(text: &mut String, results: &Results) -> Result<()> {
    text.push_str("## Targets\n\n| what | wanted | measured | |\n|---|---|---|---|\n");
    for target in &TARGETS {
        let line = match target.verdict(results)? {
            Some(verdict) => format!(
                "| {} | {} | {} | {} |\n",
                target.text,
                verdict.wanted,
                verdict.measured,
                if verdict.reached { "reached" } else { "missed" }
            ),
            None => format!("| {} | | not measured | |\n", target.text),
        };
        text.push_str(&line);
    }
    text.push('\n');
    Ok(())
}

/// The figure that decides a workload.
fn main_figure(cell: Cell) -> Figure {
    match cell.workload {
        Workload::Short { .. } | Workload::Keep => Figure::BalancerTime,
        Workload::Bulk => Figure::AllTimePerGigabyte,
        Workload::Mixed => Figure::P50,
    }
}

fn ratios(text: &mut String, results: &Results) -> Result<()> {
    text.push_str(
        "## Ratios\n\nswarmlet's figure divided by the other's.\n\n\
         | | figure | to itself (again) | to HAProxy | to HAProxy (buffers) | to nginx |\n\
         |---|---|---|---|---|---|\n",
    );
    for cell in cell::all() {
        let name = cell.name();
        let mut figures = vec![main_figure(cell)];
        match cell.workload {
            Workload::Mixed => figures.extend([Figure::P99, Figure::Gigabits]),
            Workload::Bulk => figures.push(Figure::Gigabits),
            _ => figures.push(Figure::Rate),
        }
        for figure in figures {
            let ratio = |other| {
                let ratio = results.ratio(&name, other, figure)?;
                Ok::<_, anyhow::Error>(ratio.map_or_else(String::new, |ratio| ratio.to_string()))
            };
            let again = ratio(Contender::SwarmletAgain)?;
            if again.is_empty() {
                continue;
            }
            push(
                text,
                format_args!(
                    "| {name} | {figure} | {again} | {} | {} | {} |\n",
                    ratio(Contender::HaProxy)?,
                    ratio(Contender::HaProxyBuffers)?,
                    ratio(Contender::Nginx)?
                ),
            );
        }
    }
    text.push('\n');
    Ok(())
}

fn figures(workload: Workload) -> &'static [Figure] {
    match workload {
        Workload::Short { .. } | Workload::Keep => &[
            Figure::Rate,
            Figure::P50,
            Figure::P99,
            Figure::BalancerTime,
            Figure::AllTime,
            Figure::MachineBusy,
            Figure::ClientBusy,
            Figure::Resident,
            Figure::Failed,
        ],
        Workload::Bulk => &[
            Figure::Gigabits,
            Figure::BalancerTimePerGigabyte,
            Figure::AllTimePerGigabyte,
            Figure::MachineBusy,
            Figure::ClientBusy,
            Figure::Resident,
        ],
        Workload::Mixed => &[
            Figure::P50,
            Figure::P99,
            Figure::Rate,
            Figure::Gigabits,
            Figure::BalancerTimePerGigabyte,
            Figure::MachineBusy,
            Figure::ClientBusy,
            Figure::Resident,
            Figure::Failed,
        ],
    }
}

fn describe(cell: Cell) -> String {
    let workload = match cell.workload {
        Workload::Short {
            client_closes: false,
        } => "A connection for each request, 32 at a time; the server closes first.",
        Workload::Short {
            client_closes: true,
        } => "A connection for each request, 32 at a time; the client closes first.",
        Workload::Keep => "Messages of 100 bytes to and fro on 64 connections.",
        Workload::Bulk => "Eight downloads.",
        Workload::Mixed => "1000 requests a second on 16 connections beside four downloads.",
    };
    let layout = match cell.layout {
        cell::Layout::S => "Balancer, client and server share a processor.",
        cell::Layout::X => "The balancer has a processor, client and server share another one.",
        cell::Layout::F => "Two threads of the balancer; nothing is pinned.",
    };
    format!("{workload} {layout}")
}

fn table(text: &mut String, results: &Results, cell: &str, about: &str, figures: &[Figure]) {
    let shown = |contender, figure| results.summary(cell, contender, figure);
    let measured = |contender: &Contender| {
        figures
            .iter()
            .any(|figure| shown(*contender, *figure).is_some())
    };
    let contenders: Vec<Contender> = Contender::ALL.into_iter().filter(measured).collect();
    if contenders.is_empty() {
        return;
    }
    let names: Vec<String> = figures.iter().map(ToString::to_string).collect();
    push(
        text,
        format_args!(
            "## {cell}\n\n{about}\n\n| | {} |\n|---|{}\n",
            names.join(" | "),
            "---|".repeat(figures.len())
        ),
    );
    for contender in contenders {
        let values: Vec<String> = figures
            .iter()
            .map(|figure| {
                let summary = shown(contender, *figure);
                summary.map_or_else(|| "–".into(), |summary| summary.to_string())
            })
            .collect();
        push(
            text,
            format_args!("| {} | {} |\n", contender.name(), values.join(" | ")),
        );
    }
    text.push('\n');
}

fn system_calls(text: &mut String, results: &Results) {
    text.push_str("## System calls\n\n");
    match calls::counter() {
        Some(Counter::Perf) => text.push_str("Counted by perf, in a run of their own.\n\n"),
        Some(Counter::Strace) => text.push_str("Counted by strace, in a run of their own.\n\n"),
        None => {
            text.push_str("Not counted: there is neither perf nor strace on this machine.\n\n");
            return;
        }
    }
    text.push_str(
        "| | W1 S, for a connection | W2 S, for a request | W3 S, share of splice |\n|---|---|---|---|\n",
    );
    let processes = Contender::ALL.into_iter().filter(|one| one.is_process());
    for contender in processes {
        let [short, keep, bulk] = calls::cells().map(|cell| cell.name());
        let value = |cell: &str, figure| {
            let summary = results.summary(cell, contender, figure);
            summary.map_or_else(|| "–".into(), |summary| summary.to_string())
        };
        push(
            text,
            format_args!(
                "| {} | {} | {} | {} |\n",
                contender.name(),
                value(&short, Figure::Calls),
                value(&keep, Figure::Calls),
                value(&bulk, Figure::SpliceShare)
            ),
        );
    }
    text.push('\n');
}

fn chart(results: &Results) -> Chart {
    let panel = |cell: String, figure: Figure| {
        let bars: Vec<Bar> = Contender::ALL
            .into_iter()
            .filter_map(|contender| {
                Some(Bar {
                    label: contender.name().to_owned(),
                    summary: results.summary(&cell, contender, figure)?,
                    own: contender == Contender::Swarmlet,
                })
            })
            .collect();
        let title = format!("{cell}: {figure}");
        (!bars.is_empty()).then_some(Panel { title, bars })
    };
    let mut panels = Vec::new();
    for cell in cell::all() {
        panels.extend(panel(cell.name(), main_figure(cell)));
        let second = match cell.workload {
            Workload::Short { .. } | Workload::Keep => Figure::Rate,
            Workload::Bulk => Figure::Gigabits,
            Workload::Mixed => Figure::P99,
        };
        panels.extend(panel(cell.name(), second));
    }
    panels.extend(panel(idle::CELL.into(), Figure::IdleBytes));
    panels.extend(panel(idle::CELL.into(), Figure::IdleBytesAfterMessage));
    Chart {
        title: "swarmlet's balancer beside others".into(),
        note: "Bars: medians. Whiskers: least and greatest of the rounds. More is better for \
               requests/s and Gbit/s, less for all else."
            .into(),
        panels,
    }
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = text.write_fmt(line);
}

const METHOD: &str = include_str!("method.md");
