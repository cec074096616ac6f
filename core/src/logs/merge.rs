//! Several logs in, one in the order of time out.
//!
//! Each source is in order by itself, so the earliest of all heads comes next, once every source
//! has one. Waiting for all of them for ever would let a silent source hold up the others, so
//! there is a bound, which depends on what is read:
//!
//! ```text
//!            first line within `opening`          a line within `patience`
//!   added ───────────────────────────────▶ heard ──────────────────────────▶ heard …
//!     │ not: give up                         │ not:  Stalls   give up
//!     ▼                                      ▼       Follows  it holds nobody up until it is
//!   gone                                   …                  heard again
//! ```
//!
//! One that is read to its end must be read to its end, or it is a partial result that somebody
//! has to hear of. One that is followed is silent most of the time: that is no failure.

use std::collections::BTreeMap;
use std::time::Duration;

/// How long sources are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// For logs that are read to their end: a source that is silent for longer is given up.
    Stalls(Duration),
    /// For logs that are followed: a source that is silent for longer holds nobody up.
    Follows(Duration),
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The head of this source comes next.
    Take(u64),
    /// This source was silent for too long: it is to be removed, and its reader told.
    GiveUp(u64),
    /// Nothing before this moment, unless a source is heard of.
    WaitUntil(Duration),
    /// Nothing until a source is heard of.
    Wait,
    /// There are no sources.
    Nothing,
}

#[derive(Debug, Clone, Copy)]
struct Source {
    /// The moment of its first line that was not taken, in nanoseconds.
    head: Option<u64>,
    /// Since when a line is waited for.
    since: Duration,
    /// By when it must be heard of for the first time.
    opening: Option<Duration>,
}

/// The merger. Moments of its own clock are durations since any fixed point.
#[derive(Debug)]
pub struct Merge {
    patience: Patience,
    sources: BTreeMap<u64, Source>,
    /// A source in the middle of a long line: the rest of it comes before anything else.
    unfinished: Option<u64>,
}

impl Merge {
    /// A merger without sources.
    #[must_use]
    pub fn new(patience: Patience) -> Self {
        Self {
            patience,
            sources: BTreeMap::new(),
            unfinished: None,
        }
    }

    /// Adds a source, which must be heard of by `opening` for the first time.
    pub fn add(&mut self, id: u64, now: Duration, opening: Duration) {
        let source = Source {
            head: None,
            since: now,
            opening: Some(opening),
        };
        self.sources.insert(id, source);
    }

    /// Notes that a source is there, although it may have said nothing yet.
    pub fn opened(&mut self, id: u64, now: Duration) {
        if let Some(source) = self.sources.get_mut(&id) {
            source.opening = None;
            source.since = now;
        }
    }

    /// Notes the moment of a source's next line.
    pub fn head(&mut self, id: u64, at: u64) {
        if let Some(source) = self.sources.get_mut(&id) {
            source.opening = None;
            source.head = Some(at);
        }
    }

    /// Notes that a source's head was taken. `unfinished`: its line goes on in its next one.
    pub fn taken(&mut self, id: u64, now: Duration, unfinished: bool) {
        if let Some(source) = self.sources.get_mut(&id) {
            source.head = None;
            source.since = now;
        }
        self.unfinished = unfinished.then_some(id);
    }

    /// Removes a source.
    pub fn remove(&mut self, id: u64) {
        self.sources.remove(&id);
        if self.unfinished == Some(id) {
            self.unfinished = None;
        }
    }

    /// Whether there are no sources.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// What is to be done at this moment.
    #[must_use]
    pub fn next(&self, now: Duration) -> Next {
        if self.sources.is_empty() {
            return Next::Nothing;
        }
        if let Some(id) = self.unfinished
            && let Some(source) = self.sources.get(&id)
        {
            let until = source.since + self.limit();
            match source.head {
                Some(_) => return Next::Take(id),
                None if until > now => return Next::WaitUntil(until),
                None => {}
            }
        }
        let mut earliest: Option<(u64, u64)> = None;
        let mut until: Option<Duration> = None;
        for (&id, source) in &self.sources {
            if let Some(at) = source.head {
                earliest = Some(earliest.map_or((at, id), |other| other.min((at, id))));
                continue;
            }
            let limit = source.opening.unwrap_or(source.since + self.limit());
            if limit > now {
                until = Some(until.map_or(limit, |other| other.min(limit)));
            } else if source.opening.is_some() || matches!(self.patience, Patience::Stalls(_)) {
                return Next::GiveUp(id);
            }
        }
        match (until, earliest) {
            (Some(until), _) => Next::WaitUntil(until),
            (None, Some((_, id))) => Next::Take(id),
            (None, None) => Next::Wait,
        }
    }

    fn limit(&self) -> Duration {
        match self.patience {
            Patience::Stalls(limit) | Patience::Follows(limit) => limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALL: Patience = Patience::Stalls(Duration::from_millis(1000));
    const FOLLOW: Patience = Patience::Follows(Duration::from_millis(100));

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Two sources that are open at 0.
    fn two(patience: Patience) -> Merge {
        let mut merge = Merge::new(patience);
        for id in [1, 2] {
            merge.add(id, ms(0), ms(500));
            merge.opened(id, ms(0));
        }
        merge
    }

    #[test]
    fn the_earliest_of_all_heads_comes_first() {
        for patience in [STALL, FOLLOW] {
            let mut merge = two(patience);
            merge.head(1, 20);
            let Next::WaitUntil(_) = merge.next(ms(1)) else {
                panic!("it did not wait for the other source");
            };
            merge.head(2, 10);
            assert_eq!(merge.next(ms(1)), Next::Take(2));
            merge.taken(2, ms(1), false);
            merge.head(2, 30);
            assert_eq!(merge.next(ms(1)), Next::Take(1));
        }
    }

    #[test]
    fn lines_of_one_moment_come_by_source() {
        let mut merge = two(STALL);
        merge.head(2, 10);
        merge.head(1, 10);
        assert_eq!(merge.next(ms(0)), Next::Take(1));
    }

    #[test]
    fn a_source_that_never_opens_is_given_up() {
        for patience in [STALL, FOLLOW] {
            let mut merge = Merge::new(patience);
            merge.add(7, ms(0), ms(500));
            assert_eq!(merge.next(ms(499)), Next::WaitUntil(ms(500)));
            assert_eq!(merge.next(ms(500)), Next::GiveUp(7));
            merge.remove(7);
            assert_eq!(merge.next(ms(500)), Next::Nothing);
        }
    }

    #[test]
    fn one_that_is_read_to_its_end_must_not_stall() {
        let mut merge = two(STALL);
        merge.head(1, 5);
        assert_eq!(merge.next(ms(999)), Next::WaitUntil(ms(1000)));
        assert_eq!(merge.next(ms(1000)), Next::GiveUp(2));
        merge.remove(2);
        assert_eq!(merge.next(ms(1000)), Next::Take(1));
    }

    #[test]
    fn one_that_is_followed_may_be_silent() {
        let mut merge = two(FOLLOW);
        assert_eq!(merge.next(ms(100)), Next::Wait);
        merge.head(1, 5);
        // The other one has been silent for long: nobody waits for it.
        assert_eq!(merge.next(ms(200)), Next::Take(1));
        merge.taken(1, ms(200), false);
        merge.head(2, 6);
        // A moment ago the first one spoke: it may have something earlier to say.
        assert_eq!(merge.next(ms(210)), Next::WaitUntil(ms(300)));
        assert_eq!(merge.next(ms(300)), Next::Take(2));
    }

    #[test]
    fn a_long_line_is_not_broken_by_another_source() {
        let mut merge = two(FOLLOW);
        merge.head(1, 10);
        merge.head(2, 20);
        assert_eq!(merge.next(ms(1)), Next::Take(1));
        merge.taken(1, ms(1), true);
        assert_eq!(merge.next(ms(2)), Next::WaitUntil(ms(101)));
        merge.head(1, 30);
        assert_eq!(merge.next(ms(2)), Next::Take(1));
        merge.taken(1, ms(2), true);
        // The rest never comes: the others go on.
        assert_eq!(merge.next(ms(102)), Next::Take(2));
    }

    #[test]
    fn a_slow_taker_loses_nothing() {
        let mut merge = two(STALL);
        merge.head(1, 1);
        merge.head(2, 2);
        // Whoever takes the lines was away for an hour: the clock of a source runs only while
        // it is waited for.
        let late = ms(3_600_000);
        assert_eq!(merge.next(late), Next::Take(1));
        merge.taken(1, late, false);
        assert_eq!(merge.next(late), Next::WaitUntil(late + ms(1000)));
    }
}
