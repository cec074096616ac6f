//! What the connections that are ready may move before the kernel is asked again
//! who is: a small request waits no longer than that for those in front of it.

use crate::connection::MAX_RECEIVE;

/// Bytes of all together beside small requests: a tenth of a millisecond or so. Less
/// costs bulk more time of the processor, for each flow then moves in smaller
/// steps.
const BESIDE_OTHERS: usize = 512 * 1024;
/// The same where there is nothing but bulk, to which steps matter more.
const ALONE: usize = 8 * 1024 * 1024;
/// Bytes of one at most: a large step.
const MOST: usize = MAX_RECEIVE;
/// Bytes of one in any case, and what makes a connection one of bulk.
const LEAST: usize = 64 * 1024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// Of all bytes, those not moved yet.
    left: usize,
    /// Connections of bulk that are still to come, going by the last round.
    /// Those that move little leave what they do not need to the others.
    expected: usize,
    /// Connections of bulk, and others, that there were.
    bulk: usize,
    others: usize,
}

impl Round {
    /// The one before is over.
    pub(super) fn begin(&mut self) {
        let left = if self.others > 0 {
            BESIDE_OTHERS
        } else {
            ALONE
        };
        *self = Self {
            left,
            expected: self.bulk,
            ..Self::default()
        };
    }

    /// Bytes that the next connection may move.
    pub(super) fn turn(&self) -> u32 {
        let bytes = (self.left / self.expected.max(1)).clamp(LEAST, MOST);
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }

    /// It has moved so many.
    pub(super) fn note(&mut self, moved: u32) {
        let moved = moved as usize;
        self.left = self.left.saturating_sub(moved);
        if moved >= LEAST {
            self.bulk += 1;
            self.expected = self.expected.saturating_sub(1);
        } else {
            self.others += usize::from(moved > 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u32 = 1024;

    /// The turns, in KiB, of connections that would move so many KiB each.
    fn take(round: &mut Round, wanted: &[u32]) -> Vec<u32> {
        round.begin();
        let mut turns = Vec::new();
        for wanted in wanted {
            let turn = round.turn();
            turns.push(turn / KIB);
            round.note(turn.min(wanted * KIB));
        }
        turns
    }

    #[test]
    fn bulk_shares_what_small_requests_leave() {
        let mut round = Round::default();
        // A handful of flows move in large steps, however many requests there are.
        let mixed = [&[1; 60][..], &[9_999; 4]].concat();
        take(&mut round, &mixed);
        assert_eq!(take(&mut round, &mixed)[60..], [113; 4]);
        // More of them share, even though the first round comes as a surprise.
        let many = [&[1][..], &[9_999; 16]].concat();
        let turns = take(&mut round, &many);
        assert_eq!(turns[1..5], [127; 4]);
        assert_eq!(turns[5..], [64; 12]);
        assert_eq!(take(&mut round, &many)[1..], [64; 16]);
    }

    #[test]
    fn bulk_alone_moves_more() {
        let mut round = Round::default();
        take(&mut round, &[9_999; 16]);
        assert_eq!(take(&mut round, &[9_999; 16]), [512; 16]);
        take(&mut round, &[9_999; 32]);
        assert_eq!(take(&mut round, &[9_999; 32]), [256; 32]);
        // Nobody gets nothing.
        take(&mut round, &[9_999; 256]);
        assert_eq!(take(&mut round, &[9_999; 256]), [64; 256]);
        // It may be one of many.
        assert_eq!(take(&mut round, &[1, 9_999]), [64, 64]);
        assert_eq!(take(&mut round, &[1, 9_999]), [512, 511]);
    }
}
