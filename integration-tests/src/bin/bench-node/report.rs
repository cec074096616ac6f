//! The document.

use anyhow::{Context, Result};
use swarmlet_integration_tests::bench::Summary;

use crate::{
    ports::{AtOnce, Singly},
    upgrades::Replaced,
};

/// A published port is to accept within it, in milliseconds.
const PORT_BOUND: f64 = 5.0;

/// New connections a second under which balancers are to follow each other.
const RATE_BOUND: f64 = 5_000.0;

/// The whole page.
pub(crate) fn text(
    about: &str,
    replaced: &Replaced,
    at_once: &AtOnce,
    singly: &Singly,
) -> Result<String> {
    replaced.check()?;
    let summary = |values: &[f64]| {
        let summary = Summary::of(values.iter().copied());
        summary.context("no port was measured")
    };
    let (from_table, from_command) = (summary(&singly.from_table)?, summary(&singly.from_command)?);
    let connects = summary(&at_once.connects)?;
    let late = |values: &[f64]| values.iter().filter(|value| **value > PORT_BOUND).count();
    let failed: Vec<String> = replaced
        .failed
        .iter()
        .map(|(kind, count)| format!("{count} × {kind}"))
        .collect();
    let failed = if failed.is_empty() {
        "0".to_owned()
    } else {
        failed.join(", ")
    };
    Ok(format!(
        "# A node's balancer while its cluster changes\n\n\
         Written by `make bench-node`. {about}\n\n\
         ## Published ports\n\n\
         Milliseconds: median (least-greatest).\n\n\
         | | | bound | |\n|---|---|---|---|\n\
         | {count} ports, a service each: the node's balancer has the table → the port accepts | {from_table} | {PORT_BOUND} each | {late_singly} later |\n\
         | the same: `service create` is typed → the port accepts | {from_command} | – | |\n\
         | {at_once_count} ports, one service: the balancer has the table → all ports accept | {in_force:.1} in all, {each:.3} each | {PORT_BOUND} each | {verdict} |\n\
         | then: a connect to each of them | {connects} | {PORT_BOUND} each | {late_connects} later |\n\
         | requests answered, one through each | {answered_ports} of {at_once_count} | all | |\n\n\
         ## Balancers that follow each other\n\n\
         | | | bound |\n|---|---|---|\n\
         | `lb restart`, times | {upgrades} | 20 |\n\
         | requests answered, each on a connection of its own | {answered} | |\n\
         | a second | {rate:.0} | {RATE_BOUND} |\n\
         | failed | {failed} | 0 |\n\
         | connections held open through a restart and answered after it | {kept} of {upgrades} | all |\n\
         | restarts after which both processes told their counts | {both} of {upgrades} | all |\n\n\
         {flawless}\n\n{METHOD}",
        count = singly.from_table.len(),
        late_singly = late(&singly.from_table),
        at_once_count = at_once.ports,
        in_force = at_once.in_force,
        each = at_once.in_force / f64::from(at_once.ports),
        verdict = if at_once.in_force / f64::from(at_once.ports) <= PORT_BOUND {
            "met"
        } else {
            "missed"
        },
        late_connects = late(&at_once.connects),
        answered_ports = at_once.answered,
        upgrades = replaced.upgrades,
        answered = replaced.answered,
        rate = replaced.per_second,
        kept = replaced.kept,
        both = replaced.both_counted,
        flawless = match (replaced.is_flawless(), replaced.per_second >= RATE_BOUND) {
            (true, true) => "Nobody lost anything, at the rate that was asked for.",
            (true, false) => "Nobody lost anything; the rate was below the one that was asked for.",
            (false, _) => "Connections were lost.",
        },
    ))
}

const METHOD: &str = include_str!("method.md");
