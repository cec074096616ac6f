//! Beside each target that was missed: what it would have been in this run, and what it is without
//! any balancer and with the kernel's alone. A target beyond those two is out of any balancer's
//! reach on this machine.

use anyhow::Result;
use swarmlet_integration_tests::bench::three_figures;

use crate::{
    contender::Contender,
    results::Results,
    targets::{Bound, TARGETS, Target, Verdict},
};

/// The section; empty where every target was reached.
pub(crate) fn section(results: &Results) -> Result<String> {
    let mut text = String::new();
    for target in &TARGETS {
        let verdict = target.verdict(results)?;
        let Some(verdict) = verdict.filter(|verdict| !verdict.reached) else {
            continue;
        };
        if let Some(line) = line(results, target, &verdict) {
            text += &line;
        }
    }
    if text.is_empty() {
        return Ok(text);
    }
    Ok(format!(
        "### Missed\n\n{text}\nWhere the time goes, by a profile: \
         [balancer.md](../balancer.md#where-the-time-goes).\n\n"
    ))
}

/// None for a figure of the balancer alone, which was measured of it or nobody.
fn line(results: &Results, target: &Target, verdict: &Verdict) -> Option<String> {
    let median = |contender| {
        let summary = results.summary(target.cell, contender, target.figure);
        summary.map(|summary| summary.median)
    };
    let figure = target.figure;
    let own = three_figures(median(Contender::Swarmlet)?);
    let (factor, less_is_better) = match target.bound {
        Bound::RatioAtMost(most) => (most, true),
        Bound::RatioAtLeast(least) => (least, false),
        Bound::AtMost(wanted) | Bound::AtLeast(wanted) | Bound::NeverMoreThan(wanted) => {
            return Some(format!(
                "- {}: {own} instead of {}.\n",
                target.text,
                three_figures(wanted)
            ));
        }
    };
    let other = verdict.beside?;
    let theirs = median(other)?;
    let wanted = factor * theirs;
    let mut text = format!(
        "- {}: {factor} × {}'s {} is {} ({figure}); swarmlet has {own}",
        target.text,
        other.name(),
        three_figures(theirs),
        three_figures(wanted)
    );
    let ideals = [
        ("a direct connection", Contender::Direct),
        ("the kernel's address translation", Contender::Nft),
    ];
    for (name, contender) in ideals {
        let Some(ideal) = median(contender) else {
            continue;
        };
        let beyond = (ideal > wanted) == less_is_better && ideal != wanted;
        text += &format!(
            ", {name} {}{}",
            three_figures(ideal),
            if beyond { " (short of it as well)" } else { "" }
        );
    }
    Some(text + ".\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::Figure;

    #[test]
    fn a_missed_target_is_shown_beside_what_can_be_had() {
        let mut results = Results::default();
        let mut add = |contender, p50: f64| {
            let sample = [(Figure::P50, p50)].into();
            results.add("W5 X".into(), contender, 0, sample);
        };
        add(Contender::Swarmlet, 994.0);
        add(Contender::HaProxy, 600.0);
        add(Contender::HaProxyBuffers, 50_000.0);
        add(Contender::Nft, 147.0);
        add(Contender::Direct, 112.0);
        let text = section(&results).unwrap();
        assert!(
            text.contains(
                "- W5: p50 of small requests beside bulk, X: 0.2 × HAProxy's 600 is 120 (p50 µs); \
                 swarmlet has 994, a direct connection 112, \
                 the kernel's address translation 147 (short of it as well).\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn a_reached_target_needs_no_words() {
        let mut results = Results::default();
        let sample = [(Figure::IdleBytes, 250.0)].into();
        results.add("W4".into(), Contender::Swarmlet, 0, sample);
        assert_eq!(section(&results).unwrap(), "");
        let sample = [(Figure::IdleBytes, 266.0)].into();
        results.add("W4".into(), Contender::Swarmlet, 0, sample);
        let text = section(&results).unwrap();
        assert!(
            text.contains("idle connection: 266 instead of 256."),
            "{text}"
        );
    }
}
