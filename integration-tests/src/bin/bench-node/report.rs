//! The document, and whether what it says is good enough.

use anyhow::{Context, Result, ensure};
use swarmlet_integration_tests::bench::Summary;

use crate::{
    ports::{AtOnce, Singly},
    upgrades::{RATE_BOUND, Replaced},
};

/// A published port is to accept within it, in milliseconds: each, and so the slowest.
const PORT_BOUND: f64 = 5.0;

/// Everything that was measured.
pub(crate) struct Measured {
    pub(crate) replaced: Replaced,
    pub(crate) at_once: AtOnce,
    pub(crate) singly: Singly,
}

impl Measured {
    /// The whole page.
    pub(crate) fn text(&self, about: &str) -> Result<String> {
        let flaws = self.flaws()?;
        let verdict = match &flaws[..] {
            [] => "Every bound is kept.\n".to_owned(),
            flaws => format!("Not as it should be:\n\n- {}\n", flaws.join("\n- ")),
        };
        Ok(format!(
            "# A node's balancer while its cluster changes\n\n\
             Written by `make bench-node`. {about}\n\n{verdict}\n{}\n{}\n{METHOD}",
            self.ports()?,
            self.upgrades()
        ))
    }

    /// Fails where the page says that something is not as it should be.
    pub(crate) fn verify(&self) -> Result<()> {
        let flaws = self.flaws()?;
        ensure!(flaws.is_empty(), "{}", flaws.join("; "));
        Ok(())
    }

    fn flaws(&self) -> Result<Vec<String>> {
        let mut flaws = Vec::new();
        let mut slowest = |what: &str, values: &[f64]| {
            let slowest = summary(values)?.greatest;
            if slowest > PORT_BOUND {
                flaws.push(format!(
                    "{} of {} {what} later than {PORT_BOUND} ms, the slowest after {slowest:.1} ms",
                    late(values),
                    values.len()
                ));
            }
            Ok::<_, anyhow::Error>(())
        };
        slowest("ports accepted", &self.singly.from_table)?;
        slowest("connects were answered", &self.at_once.connects)?;
        if self.at_once.answered < u64::from(self.at_once.ports) {
            flaws.push(format!(
                "{} of {} ports answered",
                self.at_once.answered, self.at_once.ports
            ));
        }
        flaws.extend(self.replaced.flaws());
        Ok(flaws)
    }

    fn ports(&self) -> Result<String> {
        let (singly, at_once) = (&self.singly, &self.at_once);
        Ok(format!(
            "## Published ports\n\n\
             Milliseconds: median (least-greatest). A bound is that of the slowest.\n\n\
             | | | bound | |\n|---|---|---|---|\n\
             | {count} ports, a service each: the node's balancer has the table → the port accepts | {} | {PORT_BOUND} | {} later |\n\
             | the same: `service create` is typed → the port accepts | {} | – | |\n\
             | {all} ports, one service: the balancer has the table → all ports accept | {:.1} | – | |\n\
             | then: a connect to each of them | {} | {PORT_BOUND} | {} later |\n\
             | requests answered, one through each | {} of {all} | all | |\n",
            summary(&singly.from_table)?,
            late(&singly.from_table),
            summary(&singly.from_command)?,
            at_once.in_force,
            summary(&at_once.connects)?,
            late(&at_once.connects),
            at_once.answered,
            count = singly.from_table.len(),
            all = at_once.ports,
        ))
    }

    fn upgrades(&self) -> String {
        let replaced = &self.replaced;
        let failed: u64 = replaced.failed.iter().map(|(_, count)| count).sum();
        let upgrades = replaced.upgrades;
        format!(
            "## Upgrades\n\n\
             | | | bound |\n|---|---|---|\n\
             | upgrades | {upgrades} | 20 |\n\
             | requests answered, each on a connection of its own | {} | |\n\
             | a second | {:.0} | ≥ {RATE_BOUND} |\n\
             | failed | {failed} | 0 |\n\
             | connections held open through an upgrade and answered after it | {} of {upgrades} | all |\n\
             | upgrades after which both processes told their counts | {} of {upgrades} | all |\n",
            replaced.answered, replaced.per_second, replaced.kept, replaced.both_counted,
        )
    }
}

fn summary(values: &[f64]) -> Result<Summary> {
    Summary::of(values.iter().copied()).context("no port was measured")
}

fn late(values: &[f64]) -> usize {
    values.iter().filter(|value| **value > PORT_BOUND).count()
}

const METHOD: &str = include_str!("method.md");

#[cfg(test)]
mod tests {
    use super::*;

    fn measured() -> Measured {
        Measured {
            replaced: Replaced {
                upgrades: 1,
                answered: 6_000,
                per_second: 6_000.0,
                failed: Vec::new(),
                both_counted: 1,
                kept: 1,
            },
            at_once: AtOnce {
                ports: 2,
                in_force: 12.0,
                connects: vec![0.1, 0.2],
                answered: 2,
            },
            singly: Singly {
                from_table: vec![1.0, 5.0],
                from_command: vec![20.0, 30.0],
            },
        }
    }

    #[test]
    fn the_slowest_port_decides_and_not_the_mean() {
        let mut measured = measured();
        measured.verify().unwrap();
        assert!(measured.text("x").unwrap().contains("Every bound is kept."));
        measured.singly.from_table.extend([0.1; 1_000]);
        measured.singly.from_table.push(5.1);
        let reason = measured.verify().unwrap_err().to_string();
        let expected = "1 of 1003 ports accepted later than 5 ms, the slowest after 5.1 ms";
        assert_eq!(reason, expected);
        assert!(measured.text("x").unwrap().contains(expected));
    }

    #[test]
    fn a_port_without_an_answer_and_a_lost_connection_fail() {
        let check = |change: fn(&mut Measured), expected: &str| {
            let mut measured = measured();
            change(&mut measured);
            assert_eq!(measured.verify().unwrap_err().to_string(), expected);
        };
        check(|all| all.at_once.answered = 1, "1 of 2 ports answered");
        check(
            |all| all.replaced.failed = vec![("connect refused".into(), 3)],
            "3 requests failed: connect refused",
        );
        check(
            |all| all.at_once.connects[0] = 7.0,
            "1 of 2 connects were answered later than 5 ms, the slowest after 7.0 ms",
        );
    }
}
