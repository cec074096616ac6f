//! The document: table, plot and raw times.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use anyhow::Result;
use swarmlet_integration_tests::bench::{Bar, Chart, Panel, Summary, ratios};

use crate::{story::Measure, system::System};

/// The times of all rounds, in seconds.
#[derive(Default)]
pub(crate) struct Results(BTreeMap<System, Vec<BTreeMap<Measure, f64>>>);

impl Results {
    pub(crate) fn add(&mut self, system: System, times: BTreeMap<Measure, f64>) {
        self.0.entry(system).or_default().push(times);
    }

    fn series(&self, system: System, measure: Measure) -> Vec<Option<f64>> {
        let rounds = self.0.get(&system).into_iter().flatten();
        rounds.map(|times| times.get(&measure).copied()).collect()
    }

    fn summary(&self, system: System, measure: Measure) -> Option<Summary> {
        Summary::of(self.series(system, measure).into_iter().flatten())
    }

    fn to_csv(&self) -> String {
        let mut text = String::from("system,round,measure,seconds\n");
        for (system, rounds) in &self.0 {
            for (round, times) in rounds.iter().enumerate() {
                for (measure, seconds) in times {
                    let line = format!("{},{},{measure},{seconds}\n", system.name(), round + 1);
                    text.push_str(&line);
                }
            }
        }
        text
    }
}

/// What Docker Swarm took on an idle machine with two processors, and is to be beaten, in seconds.
fn to_beat(measure: Measure) -> f64 {
    match measure {
        Measure::Create => 0.83,
        Measure::ScaleToTen => 2.6,
        Measure::ScaleToFifty => 12.1,
        Measure::AttachedScale => 5.7,
        Measure::HostLost => 18.6,
        Measure::LeaderKilled => 11.1,
    }
}

/// Writes `cluster.md`, `cluster.svg` and `cluster.csv`.
pub(crate) fn write(directory: &Path, results: &Results, about: &str) -> Result<()> {
    // First, so that whatever is wrong with the figures they can be looked at.
    fs::write(directory.join("cluster.csv"), results.to_csv())?;
    let mut text = format!(
        "# swarmlet beside Docker Swarm\n\n\
         Written by `make bench-cluster`. {about}\n\n\
         Seconds: medians over the rounds with the least and the greatest; the ratio is taken within a round.\n\n\
         ![Plot](cluster.svg)\n\n\
         | | swarmlet | Docker Swarm | ratio | to beat | |\n|---|---|---|---|---|---|\n"
    );
    for measure in Measure::ALL {
        let cell = |summary: Option<Summary>| {
            summary.map_or_else(|| "–".to_owned(), |summary| summary.to_string())
        };
        let own = results.summary(System::Swarmlet, measure);
        let other = results.summary(System::Swarm, measure);
        let ratio = Summary::of(ratios(
            &results.series(System::Swarmlet, measure),
            &results.series(System::Swarm, measure),
        )?);
        let bound = to_beat(measure);
        let verdict = match own {
            Some(own) if own.median < bound => "beaten",
            Some(_) => "missed",
            None => "not measured",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {measure} | {} | {} | {} | {bound} | {verdict} |",
            cell(own),
            cell(other),
            cell(ratio)
        );
    }
    text.push_str(METHOD);
    fs::write(directory.join("cluster.md"), text)?;
    fs::write(directory.join("cluster.svg"), chart(results).to_svg())?;
    Ok(())
}

fn chart(results: &Results) -> Chart {
    let panel = |measure: Measure| {
        let bars = System::ALL.into_iter().filter_map(|system| {
            Some(Bar {
                label: system.name().to_owned(),
                summary: results.summary(system, measure)?,
                own: system == System::Swarmlet,
            })
        });
        Panel {
            title: format!("{measure}, seconds"),
            bars: bars.collect(),
        }
    };
    Chart {
        title: "swarmlet beside Docker Swarm".into(),
        note: "Bars: medians. Whiskers: least and greatest of the rounds. Less is better.".into(),
        panels: Measure::ALL.map(panel).into(),
    }
}

const METHOD: &str = include_str!("method.md");
