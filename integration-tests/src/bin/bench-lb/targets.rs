//! What the balancer is meant to reach, as ratios within a run.

use swarmlet_integration_tests::bench::Summary;

use crate::{cell::Figure, contender::Contender, idle, results::Results};

/// One aim.
pub(crate) struct Target {
    /// What is to be reached.
    pub(crate) text: &'static str,
    cell: &'static str,
    figure: Figure,
    bound: Bound,
}

enum Bound {
    /// A ratio to HAProxy in the same round; of its two configurations to the better one.
    RatioAtMost(f64),
    RatioAtLeast(f64),
    /// The figure itself.
    AtMost(f64),
}

/// How a target stands.
pub(crate) struct Verdict {
    pub(crate) wanted: String,
    pub(crate) measured: Summary,
    pub(crate) reached: bool,
}

impl Target {
    /// None where it was not measured.
    pub(crate) fn verdict(&self, results: &Results) -> Option<Verdict> {
        let mut ratios: Vec<Summary> = [Contender::HaProxy, Contender::HaProxyBuffers]
            .into_iter()
            .filter_map(|other| results.ratio(self.cell, other, self.figure))
            .collect();
        ratios.sort_by(|one, other| one.median.total_cmp(&other.median));
        let (wanted, measured, reached) = match self.bound {
            Bound::RatioAtMost(most) => {
                let measured = *ratios.last()?;
                (
                    format!("≤ {most:.2} × HAProxy"),
                    measured,
                    measured.median <= most,
                )
            }
            Bound::RatioAtLeast(least) => {
                let measured = *ratios.first()?;
                (
                    format!("≥ {least:.2} × HAProxy"),
                    measured,
                    measured.median >= least,
                )
            }
            Bound::AtMost(most) => {
                let measured = results.summary(self.cell, Contender::Swarmlet, self.figure)?;
                (format!("≤ {most}"), measured, measured.median <= most)
            }
        };
        Some(Verdict {
            wanted,
            measured,
            reached,
        })
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
pub(crate) const TARGETS: [Target; 11] = [
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
        Bound::AtMost(0.0),
    ),
];
