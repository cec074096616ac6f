//! What the balancer is meant to reach, as ratios within a run.

use anyhow::Result;
use swarmlet_integration_tests::bench::Summary;

use crate::{cell::Figure, contender::Contender, idle, killed, results::Results};

/// One aim.
pub(crate) struct Target {
    /// What is to be reached.
    pub(crate) text: &'static str,
    pub(crate) cell: &'static str,
    pub(crate) figure: Figure,
    pub(crate) bound: Bound,
}

#[derive(Clone, Copy)]
pub(crate) enum Bound {
    /// A ratio to HAProxy in the same round; of its two configurations to the better one.
    RatioAtMost(f64),
    RatioAtLeast(f64),
    /// The figure itself.
    AtMost(f64),
    AtLeast(f64),
    /// In none of the rounds more than that.
    NeverMoreThan(f64),
}

/// How a target stands.
pub(crate) struct Verdict {
    pub(crate) wanted: String,
    pub(crate) measured: Summary,
    pub(crate) reached: bool,
    /// Whose figure it is a ratio to.
    pub(crate) beside: Option<Contender>,
}

impl Target {
    /// None where it was not measured.
    pub(crate) fn verdict(&self, results: &Results) -> Result<Option<Verdict>> {
        let own = results.summary(self.cell, Contender::Swarmlet, self.figure);
        let verdict = |wanted,
                       measured: Option<(Option<Contender>, Summary)>,
                       holds: &dyn Fn(Summary) -> bool| {
            measured.map(|(beside, measured)| Verdict {
                wanted,
                measured,
                reached: holds(measured),
                beside,
            })
        };
        let alone = own.map(|own| (None, own));
        Ok(match self.bound {
            Bound::RatioAtMost(most) => verdict(
                format!("≤ {most:.2} × HAProxy"),
                self.ratios(results)?.pop(),
                &|ratio| ratio.median <= most,
            ),
            Bound::RatioAtLeast(least) => verdict(
                format!("≥ {least:.2} × HAProxy"),
                self.ratios(results)?.into_iter().next(),
                &|ratio| ratio.median >= least,
            ),
            Bound::AtMost(most) => verdict(format!("≤ {most}"), alone, &|own| own.median <= most),
            Bound::AtLeast(least) => {
                verdict(format!("≥ {least}"), alone, &|own| own.median >= least)
            }
            Bound::NeverMoreThan(most) => {
                verdict(format!("≤ {most} in each round"), alone, &|own| {
                    own.greatest <= most
                })
            }
        })
    }

    /// To HAProxy's configurations, in ascending order.
    fn ratios(&self, results: &Results) -> Result<Vec<(Option<Contender>, Summary)>> {
        let mut ratios = Vec::new();
        for other in [Contender::HaProxy, Contender::HaProxyBuffers] {
            let ratio = results.ratio(self.cell, other, self.figure)?;
            ratios.extend(ratio.map(|ratio| (Some(other), ratio)));
        }
        ratios.sort_by(|one, other| one.1.median.total_cmp(&other.1.median));
        Ok(ratios)
    }
}

const fn target(text: &'static str, cell: &'static str, figure: Figure, bound: Bound) -> Target {
    Target {
        text,
        cell,
        figure,
        bound,
    }
}

/// All of them.
pub(crate) const TARGETS: [Target; 13] = [
    target(
        "W1: time of the balancer for a short connection, S",
        "W1 S",
        Figure::BalancerTime,
        Bound::RatioAtMost(0.80),
    ),
    target(
        "W2: time of the balancer for a request, S",
        "W2 S",
        Figure::BalancerTime,
        Bound::RatioAtMost(0.75),
    ),
    target(
        "W3: time of all processes for a gigabyte, S",
        "W3 S",
        Figure::AllTimePerGigabyte,
        Bound::RatioAtMost(0.85),
    ),
    target(
        "W3: Gbit/s, F",
        "W3 F",
        Figure::Gigabits,
        Bound::RatioAtLeast(1.3),
    ),
    target(
        "W4: bytes of memory for an idle connection",
        idle::CELL,
        Figure::IdleBytes,
        Bound::AtMost(256.0),
    ),
    target(
        "W4: the same after a message",
        idle::CELL,
        Figure::IdleBytesAfterMessage,
        Bound::AtMost(256.0),
    ),
    target(
        "W5: p50 of small requests beside bulk, X",
        "W5 X",
        Figure::P50,
        Bound::RatioAtMost(0.2),
    ),
    target(
        "W5: p99 of small requests beside bulk, X",
        "W5 X",
        Figure::P99,
        Bound::RatioAtMost(0.4),
    ),
    target(
        "W5: Gbit/s of that bulk, X",
        "W5 X",
        Figure::Gigabits,
        Bound::RatioAtLeast(1.1),
    ),
    target(
        "System calls for a short connection, S",
        "W1 S",
        Figure::Calls,
        Bound::AtMost(15.3),
    ),
    target(
        "Failed requests in W1, across hosts",
        "W1 S client closes first, across hosts",
        Figure::Failed,
        Bound::NeverMoreThan(0.0),
    ),
    target(
        "Short connections a second that the client closes first, across hosts, F",
        "W1 F client closes first, across hosts",
        Figure::Rate,
        Bound::AtLeast(10_000.0),
    ),
    target(
        "Failed connections before the first byte, endpoints SIGKILLed under load",
        killed::CELL,
        Figure::FailedBefore,
        Bound::NeverMoreThan(0.0),
    ),
];
