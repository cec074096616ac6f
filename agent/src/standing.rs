//! Whether the managers still take this node for one of theirs, and which of two swarms it
//! follows where one has become of the other.

use swarmlet_proto::expelled;
use tonic::Status;

/// Rounds through all managers that have to end with a refusal before it counts. A manager that
/// lags behind refuses a node that joined a moment ago, and knows it half a second later.
const ROUNDS: u32 = 3;

/// What was heard of it.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    /// The greatest incarnation of the cluster that a manager has named.
    incarnation: u64,
    /// Why this round's managers refused the node, where one did.
    refusal: Option<String>,
    /// Rounds in a row in which one did.
    rounds: u32,
}

/// A manager that was left behind, and does not know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Past;

impl Standing {
    pub(crate) fn new(incarnation: u64) -> Self {
        Self {
            incarnation,
            ..Self::default()
        }
    }

    /// Takes note of a welcome; returns the incarnation to keep where it is a new one.
    ///
    /// # Errors
    /// [`Past`] where the manager's state is one.
    pub(crate) fn welcomed(&mut self, incarnation: u64) -> Result<Option<u64>, Past> {
        if incarnation < self.incarnation {
            return Err(Past);
        }
        self.refusal = None;
        self.rounds = 0;
        let later = incarnation > self.incarnation;
        self.incarnation = incarnation;
        Ok(later.then_some(incarnation))
    }

    /// Takes note of what a manager said instead of a welcome.
    pub(crate) fn refused(&mut self, status: &Status) {
        if expelled::is_expelled(status) {
            self.refusal = Some(status.message().to_owned());
        }
    }

    /// Ends a round; returns why the node is none of the cluster's any more, once that is certain.
    pub(crate) fn end_round(&mut self) -> Option<String> {
        let refusal = self.refusal.take()?;
        self.rounds = self.rounds.saturating_add(1);
        (self.rounds >= ROUNDS).then_some(refusal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_counts_once_it_comes_again_and_again() {
        let mut standing = Standing::default();
        let refusal = expelled::expelled("it was removed");
        for expected in [None, None, Some("it was removed".to_owned())] {
            standing.refused(&refusal);
            // Of the others nobody answers.
            standing.refused(&Status::unavailable("no"));
            assert_eq!(standing.end_round(), expected);
        }
        standing.refused(&Status::unavailable("no"));
        assert_eq!(standing.end_round(), None);
        assert_eq!(standing.welcomed(0), Ok(None));
        standing.refused(&refusal);
        assert_eq!(standing.end_round(), None);
    }

    #[test]
    fn the_later_incarnation_is_followed() {
        let mut standing = Standing::new(5);
        assert_eq!(standing.welcomed(5), Ok(None));
        assert_eq!(standing.welcomed(4), Err(Past));
        assert_eq!(standing.welcomed(9), Ok(Some(9)));
        assert_eq!(standing.welcomed(5), Err(Past));
    }
}
