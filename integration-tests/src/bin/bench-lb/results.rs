//! The figures of all rounds.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use swarmlet_integration_tests::bench::{Summary, ratios};

use crate::{cell::Figure, contender::Contender};

/// The figures of one measurement.
pub(crate) type Sample = BTreeMap<Figure, f64>;

/// By what was measured, of whom, and in which round.
#[derive(Default)]
pub(crate) struct Results {
    samples: BTreeMap<String, BTreeMap<Contender, BTreeMap<u32, Sample>>>,
}

impl Results {
    pub(crate) fn add(&mut self, cell: String, contender: Contender, round: u32, sample: Sample) {
        let rounds = self.samples.entry(cell).or_default();
        rounds
            .entry(contender)
            .or_default()
            .entry(round)
            .or_default()
            .extend(sample);
    }

    /// A figure by round; none where it was not measured.
    pub(crate) fn series(
        &self,
        cell: &str,
        contender: Contender,
        figure: Figure,
    ) -> Vec<Option<f64>> {
        let rounds = self.samples.get(cell).and_then(|of| of.get(&contender));
        let Some(rounds) = rounds else {
            return Vec::new();
        };
        let count = rounds.keys().max().map_or(0, |last| last + 1);
        (0..count)
            .map(|round| rounds.get(&round)?.get(&figure).copied())
            .collect()
    }

    /// A figure over all rounds.
    pub(crate) fn summary(
        &self,
        cell: &str,
        contender: Contender,
        figure: Figure,
    ) -> Option<Summary> {
        Summary::of(self.series(cell, contender, figure).into_iter().flatten())
    }

    /// A figure of swarmlet beside that of another in the same round; none where it was not
    /// measured of both.
    ///
    /// # Errors
    ///
    /// When one of them is zero, which is not what a figure with a ratio can be.
    pub(crate) fn ratio(
        &self,
        cell: &str,
        other: Contender,
        figure: Figure,
    ) -> Result<Option<Summary>> {
        let own = self.series(cell, Contender::Swarmlet, figure);
        let values = self.series(cell, other, figure);
        let ratios = ratios(&own, &values)
            .with_context(|| format!("{figure} of {cell}, beside {}", other.name()))?;
        Ok(Summary::of(ratios))
    }

    /// Every single figure, for those who want to calculate for themselves.
    pub(crate) fn to_csv(&self) -> String {
        let mut text = String::from("cell,contender,round,figure,value\n");
        for (cell, contenders) in &self.samples {
            for (contender, rounds) in contenders {
                for (round, sample) in rounds {
                    for (figure, value) in sample {
                        let key = figure.key();
                        let line = format!(
                            "\"{cell}\",{},{},{key},{value}\n",
                            contender.name(),
                            round + 1
                        );
                        text.push_str(&line);
                    }
                }
            }
        }
        text
    }
}
