//! The document: table, plot and raw figures.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result};
use swarmlet_integration_tests::bench::{Bar, Chart, Panel, Summary, ratios};

use crate::way::Way;

/// Short connections a second through one endpoint that are wanted.
const WANTED: f64 = 10_000.0;

/// One way in one round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Connections a second.
    pub(crate) per_second: f64,
    /// Time of all processors, whoever had it, for one connection, in microseconds.
    pub(crate) processor_us: f64,
    /// Connections with their answer.
    pub(crate) done: u64,
    /// Those without.
    pub(crate) failed: u64,
}

/// All rounds.
pub(crate) struct Results {
    rounds: Vec<BTreeMap<Way, Sample>>,
    /// Of the machine.
    processors: f64,
}

impl Results {
    pub(crate) fn new(processors: f64) -> Self {
        Self {
            rounds: Vec::new(),
            processors,
        }
    }

    pub(crate) fn add(&mut self, round: BTreeMap<Way, Sample>) {
        self.rounds.push(round);
    }

    /// Writes `mesh.md`, `mesh.svg` and `mesh.csv`.
    pub(crate) fn write(&self, directory: &Path, about: &str) -> Result<()> {
        // First, so that whatever is wrong with the figures they can be looked at.
        fs::write(directory.join("mesh.csv"), self.to_csv())?;
        fs::write(directory.join("mesh.md"), self.to_text(about)?)?;
        fs::write(directory.join("mesh.svg"), self.chart()?.to_svg())?;
        Ok(())
    }

    fn samples(&self, way: Way) -> impl Iterator<Item = Sample> {
        self.rounds
            .iter()
            .filter_map(move |round| round.get(&way))
            .copied()
    }

    fn summary(&self, way: Way, figure: fn(Sample) -> f64) -> Result<Summary> {
        Summary::of(self.samples(way).map(figure))
            .with_context(|| format!("{} was not measured", way.name()))
    }

    fn to_csv(&self) -> String {
        let mut text = String::from("way,round,per_second,processor_us,done,failed\n");
        for way in Way::ALL {
            for (round, sample) in self.samples(way).enumerate() {
                let Sample {
                    per_second,
                    processor_us,
                    done,
                    failed,
                } = sample;
                // Writing to a string cannot fail.
                let _ = writeln!(
                    text,
                    "{},{},{per_second},{processor_us},{done},{failed}",
                    way.name(),
                    round + 1
                );
            }
        }
        text
    }

    fn to_text(&self, about: &str) -> Result<String> {
        let mut rows = String::new();
        let own: Vec<_> = self.rates(Way::Swarmlet);
        for way in Way::ALL {
            let beside = Summary::of(ratios(&own, &self.rates(way))?);
            let beside = beside.context("no round")?;
            let failed: u64 = self.samples(way).map(|sample| sample.failed).sum();
            // Writing to a string cannot fail.
            let _ = writeln!(
                rows,
                "| {} | {} | {} | {} | {failed} |",
                way.name(),
                self.summary(way, |sample| sample.per_second)?,
                match way {
                    Way::Swarmlet => "–".to_owned(),
                    _ => beside.to_string(),
                },
                self.summary(way, |sample| sample.processor_us)?,
            );
        }
        let all: u64 = self.samples(Way::Swarmlet).map(|sample| sample.done).sum();
        Ok(format!(
            "# Short connections through the mesh\n\n\
             Written by `make bench-mesh`. {about}\n\n\
             {}\n\n\
             {}\n\n\
             Medians over the rounds with the least and the greatest; ratios are those of a round.\n\n\
             | way | connections a second | swarmlet beside it | time of all processors for one, µs | failed |\n\
             |---|---|---|---|---|\n{rows}\n\
             Through swarmlet's one endpoint were {all} connections in all, each closed by the client first.\n\n\
             ![Plot](mesh.svg)\n\n{METHOD}",
            self.verdict()?,
            self.added()?
        ))
    }

    /// What the machine allows stands beside what is wanted: nobody is to take the one for the other.
    fn verdict(&self) -> Result<String> {
        let rate = |way| self.summary(way, |sample: Sample| sample.per_second);
        let own = rate(Way::Swarmlet)?.median;
        let verdict = if own >= WANTED { "reached" } else { "missed" };
        let mut text = format!(
            "Wanted: {WANTED} connections a second; {verdict}, with {own:.0}, and {:.0} into a \
             container of the same host.",
            rate(Way::SameHost)?.median
        );
        let short_too: Vec<String> = [Way::HaProxy, Way::Nft, Way::Direct]
            .into_iter()
            .map(|way| Ok((way, rate(way)?.median)))
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .filter(|(_, rate)| *rate < WANTED)
            .map(|(way, rate)| format!("{} ({rate:.0})", way.name()))
            .collect();
        if own < WANTED && !short_too.is_empty() {
            let _ = write!(text, " Short of it here as well: {}.", short_too.join(", "));
        }
        Ok(text)
    }

    /// What is swarmlet's own of the time for a connection, and what that leaves room for where
    /// the rest is not the same machine's.
    fn added(&self) -> Result<String> {
        let time = |way| self.samples(way).map(|sample| sample.processor_us);
        let differences = time(Way::Swarmlet)
            .zip(time(Way::Direct))
            .map(|(own, direct)| own - direct);
        let added = Summary::of(differences).context("no round")?;
        let processors = self.processors;
        Ok(format!(
            "Beside the direct way swarmlet adds {added} µs of a processor to a connection: with its \
             clients and containers on other machines, a host with {processors} of these has time for \
             {:.0} a second.",
            processors * 1e6 / added.median
        ))
    }

    fn rates(&self, way: Way) -> Vec<Option<f64>> {
        let rates = self.samples(way).map(|sample| Some(sample.per_second));
        rates.collect()
    }

    fn chart(&self) -> Result<Chart> {
        let panel = |title: &str, figure: fn(Sample) -> f64| {
            let bar = |way: Way| {
                Ok(Bar {
                    label: way.name().to_owned(),
                    summary: self.summary(way, figure)?,
                    own: matches!(way, Way::Swarmlet | Way::SameHost),
                })
            };
            Ok::<_, anyhow::Error>(Panel {
                title: title.to_owned(),
                bars: Way::ALL.into_iter().map(bar).collect::<Result<_>>()?,
            })
        };
        Ok(Chart {
            title: "short connections into a container".into(),
            note: "Bars: medians. Whiskers: least and greatest of the rounds.".into(),
            panels: vec![
                panel("connections a second (more is better)", |sample| {
                    sample.per_second
                })?,
                panel(
                    "time of all processors for one, µs (less is better)",
                    |sample| sample.processor_us,
                )?,
            ],
        })
    }
}

const METHOD: &str = include_str!("method.md");

#[cfg(test)]
mod tests {
    use super::*;

    /// One round with two processors.
    fn results(rates: [f64; 5]) -> Results {
        let sample = |per_second: f64| Sample {
            per_second,
            processor_us: 2e6 / per_second,
            done: 20_000,
            failed: 0,
        };
        let mut results = Results::new(2.0);
        results.add(Way::ALL.into_iter().zip(rates.map(sample)).collect());
        results
    }

    #[test]
    fn what_is_missed_is_said_with_who_else_misses_it() {
        let text = results([8_000.0, 9_500.0, 7_000.0, 9_000.0, 16_000.0]);
        let text = text.to_text("x").unwrap();
        let expected = "missed, with 8000, and 9500 into a container of the same host. Short of it \
                        here as well: HAProxy (7000), nft DNAT (9000).";
        assert!(text.contains(expected), "{text}");
        assert!(text.contains("| direct | 16000 (16000-16000) | 0.50 (0.50-0.50) |"));
        let text = results([10_000.0, 9_500.0, 7_000.0, 9_000.0, 16_000.0]);
        let text = text.to_text("x").unwrap();
        assert!(text.contains("reached, with 10000, and 9500"), "{text}");
    }

    #[test]
    fn what_swarmlet_adds_is_the_time_beyond_the_direct_way() {
        let text = results([8_000.0, 9_500.0, 7_000.0, 9_000.0, 16_000.0]);
        let text = text.to_text("x").unwrap();
        assert!(text.contains("adds 125 (125-125) µs"), "{text}");
        assert!(
            text.contains("with 2 of these has time for 16000 a second"),
            "{text}"
        );
    }

    #[test]
    fn a_way_that_was_not_measured_is_an_error() {
        let mut results = results([1.0; 5]);
        results.rounds[0].remove(&Way::Nft);
        assert!(results.to_text("x").is_err());
    }
}
