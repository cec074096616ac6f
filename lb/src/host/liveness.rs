//! Whether a host is there, judged by rounds of questions. Pure: outcomes in,
//! changes out.
//!
//! ```text
//!             three silent rounds in a row
//!   present --------------------------------> lost
//!      ^                                        |
//!      +----------------------------------------+
//!             two answered rounds in a row
//! ```
//!
//! The rule for what a round comes to:
//!
//! * Any answer is a sign of life, a refusal included: somebody refused. So it
//!   hardly matters which port is asked, and one that a firewall drops must not
//!   take down endpoints that others reach.
//! * For that reason silence at the host's own port is not enough. From the
//!   second round on one of the host's ready endpoints is asked as well, another
//!   one each time: the very way that clients' connections take. Not before, for
//!   an application has better to do than to wonder about connections that end
//!   before they have begun.
//! * A connect of a client that the host answered during the round counts as
//!   much as a question of ours.
//!
//! So a host is lost only if nothing of it answered anything for three rounds.
//! An endpoint whose own port is closed while its host lives is a matter of that
//! endpoint's [`Health`](crate::health::Health), by what clients' connects meet.

/// Rounds without any answer after which a host counts as lost. A lost packet
/// makes one round silent: a SYN is sent again only after a second.
const SILENT_LIMIT: u32 = 3;
/// Rounds with an answer after which it counts as present again.
const RISE: u32 = 2;

/// What is known about one host.
#[derive(Debug, Default)]
pub(super) struct Liveness {
    lost: bool,
    /// Silent rounds in a row while present, answered ones while lost.
    in_a_row: u32,
}

/// What a round came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Round {
    Answered,
    Silent,
}

/// A change that others must hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Lost,
    Back,
}

impl Liveness {
    /// Whether the next round asks one of the endpoints, too.
    pub(super) fn wants_witness(&self) -> bool {
        self.lost || self.in_a_row > 0
    }

    pub(super) fn observe(&mut self, round: Round) -> Option<Change> {
        let (expected, limit) = match self.lost {
            false => (Round::Silent, SILENT_LIMIT),
            true => (Round::Answered, RISE),
        };
        if round != expected {
            self.in_a_row = 0;
            return None;
        }
        self.in_a_row += 1;
        if self.in_a_row < limit {
            return None;
        }
        self.lost = !self.lost;
        self.in_a_row = 0;
        Some(if self.lost {
            Change::Lost
        } else {
            Change::Back
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `.` is an answered round, `x` a silent one. Of the changes `L` is lost,
    /// `B` is back; `w` tells that the round before it asked a witness.
    #[track_caller]
    fn check(rounds: &str, expected: &str) {
        let mut liveness = Liveness::default();
        let mut found = String::new();
        for round in rounds.chars() {
            if liveness.wants_witness() {
                found.push('w');
            }
            let round = if round == 'x' {
                Round::Silent
            } else {
                Round::Answered
            };
            found.push(match liveness.observe(round) {
                None => '-',
                Some(Change::Lost) => 'L',
                Some(Change::Back) => 'B',
            });
        }
        assert_eq!(found, expected, "{rounds}");
    }

    #[test]
    fn three_silent_rounds_lose_and_two_answers_bring_back() {
        check("....", "----");
        check("xxx", "-w-wL");
        check("xx.xx.", "-w-w--w-w-");
        check("xxxx", "-w-wLw-");
        check("xxx..", "-w-wLw-wB");
        check("xxx.x..", "-w-wLw-w-w-wB");
        check("xxx..xxx", "-w-wLw-wB-w-wL");
    }
}
