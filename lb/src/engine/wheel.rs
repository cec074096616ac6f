//! Coarse timers, one for each slot of a table: arming and disarming cost a few
//! memory accesses and no allocation. Pure: the time is passed in.
//!
//! A ring of lists, one for each tick of a turn; a deadline further away than a
//! turn waits at the far end and is put back in when that comes round.

/// Length of a tick. Timeouts here are of 250 ms and more, most of them far
/// more, and nobody minds one that is late by a tick.
pub(super) const TICK_MS: u64 = 100;

/// Ticks in a turn: nearly seven minutes, so that an idle hour costs nine visits.
const TURN: usize = 4096;
const WORDS: usize = TURN / 64;

/// No entry.
const NONE: u32 = u32::MAX;

/// The timers of the slots 0, 1, 2, ...
#[derive(Debug)]
pub(super) struct Wheel {
    /// First entry of each tick's list.
    heads: Box<[u32; TURN]>,
    /// One bit for each tick: whether its list has entries.
    occupied: [u64; WORDS],
    entries: Vec<Entry>,
    /// Every tick before this one has been visited.
    next_tick: u64,
    armed: usize,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    previous: u32,
    next: u32,
    /// Tick of the deadline; 0 when not armed.
    due: u32,
    /// The list it is in.
    place: u16,
}

const UNARMED: Entry = Entry {
    previous: NONE,
    next: NONE,
    due: 0,
    place: 0,
};

impl Wheel {
    pub(super) fn new(now_ms: u64) -> Self {
        Self {
            heads: Box::new([NONE; TURN]),
            occupied: [0; WORDS],
            entries: Vec::new(),
            next_tick: now_ms / TICK_MS + 1,
            armed: 0,
        }
    }

    /// Arms a slot's timer, in place of the one it has. It fires at `at_ms` or
    /// up to a tick later, never earlier.
    pub(super) fn arm(&mut self, slot: u32, at_ms: u64) {
        self.disarm(slot);
        let index = slot as usize;
        if index >= self.entries.len() {
            self.entries.resize(index + 1, UNARMED);
        }
        let due = at_ms.div_ceil(TICK_MS).max(self.next_tick);
        self.insert(slot, due);
        self.armed += 1;
    }

    pub(super) fn disarm(&mut self, slot: u32) {
        let Some(entry) = self.entries.get(slot as usize).copied() else {
            return;
        };
        if entry.due == 0 {
            return;
        }
        self.unlink(entry);
        self.entries[slot as usize] = UNARMED;
        self.armed -= 1;
    }

    /// Puts the slots whose time has come into `fired`, disarmed.
    pub(super) fn advance(&mut self, now_ms: u64, fired: &mut Vec<u32>) {
        let now = now_ms / TICK_MS;
        while self.next_tick <= now {
            let place = self.place_of(self.next_tick);
            let mut slot = self.heads[place];
            while slot != NONE {
                let entry = self.entries[slot as usize];
                if u64::from(entry.due) <= self.next_tick {
                    self.disarm(slot);
                    fired.push(slot);
                } else if self.is_far(entry.due, self.next_tick + 1) {
                    // Stays where it is: it waits for a whole turn again.
                } else {
                    self.unlink(entry);
                    self.insert(slot, u64::from(entry.due));
                }
                slot = entry.next;
            }
            // An empty wheel need not be turned tick by tick.
            self.next_tick = if self.armed == 0 {
                now + 1
            } else {
                self.next_tick + 1
            };
        }
    }

    /// How long until there is something to do; `None` for ever.
    pub(super) fn next_due_ms(&self, now_ms: u64) -> Option<u64> {
        if self.armed == 0 {
            return None;
        }
        let first = self.place_of(self.next_tick);
        let ahead = (0..=WORDS).find_map(|step| {
            let word = (first / 64 + step) % WORDS;
            let mut bits = self.occupied[word];
            if step == 0 {
                bits &= u64::MAX << (first % 64);
            }
            if step == WORDS {
                bits &= !(u64::MAX << (first % 64));
            }
            let bit = (bits != 0).then_some(bits.trailing_zeros() as usize)?;
            Some((word * 64 + bit + TURN - first) % TURN)
        })?;
        let at_ms = (self.next_tick + ahead as u64) * TICK_MS;
        Some(at_ms.saturating_sub(now_ms))
    }

    fn insert(&mut self, slot: u32, due: u64) {
        // A tick counts up for 13 years before it overflows.
        let due = u32::try_from(due).unwrap_or(u32::MAX);
        let visited = if self.is_far(due, self.next_tick) {
            self.next_tick + TURN as u64 - 1
        } else {
            u64::from(due)
        };
        let place = self.place_of(visited);
        let head = self.heads[place];
        if head != NONE {
            self.entries[head as usize].previous = slot;
        }
        self.entries[slot as usize] = Entry {
            previous: NONE,
            next: head,
            due,
            place: u16::try_from(place).unwrap_or(0),
        };
        self.heads[place] = slot;
        self.occupied[place / 64] |= 1 << (place % 64);
    }

    fn unlink(&mut self, entry: Entry) {
        let place = usize::from(entry.place);
        if entry.previous == NONE {
            self.heads[place] = entry.next;
            if entry.next == NONE {
                self.occupied[place / 64] &= !(1 << (place % 64));
            }
        } else {
            self.entries[entry.previous as usize].next = entry.next;
        }
        if entry.next != NONE {
            self.entries[entry.next as usize].previous = entry.previous;
        }
    }

    fn is_far(&self, due: u32, from: u64) -> bool {
        u64::from(due) >= from + TURN as u64
    }

    fn place_of(&self, tick: u64) -> usize {
        usize::try_from(tick % TURN as u64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_armed_is_nothing_due() {
        let mut wheel = Wheel::new(12_345);
        assert_eq!(wheel.next_due_ms(12_345), None);
        let mut fired = Vec::new();
        wheel.advance(99_999_999, &mut fired);
        assert_eq!(fired, [] as [u32; 0]);
        wheel.arm(3, 99_999_999 + 250);
        assert_eq!(wheel.next_due_ms(99_999_999), Some(301));
        wheel.disarm(3);
        assert_eq!(wheel.next_due_ms(99_999_999), None);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Arm(u32, u64),
        Disarm(u32),
        Wait(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let delay = prop_oneof![0..2_000_u64, 0..2_000_000_u64];
        let step = prop_oneof![
            (0..20_u32, delay.clone()).prop_map(|(slot, delay)| Step::Arm(slot, delay)),
            (0..20_u32).prop_map(Step::Disarm),
            delay.prop_map(Step::Wait),
        ];
        prop::collection::vec(step, 1..60)
    }

    proptest! {
        /// Against a map of deadlines: never early, late by less than a tick,
        /// and never asleep past a deadline.
        #[test]
        fn timers_fire_when_they_should(start in 0..10_000_000_u64, steps in steps()) {
            let mut now = start;
            let mut wheel = Wheel::new(now);
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Arm(slot, delay) => {
                        wheel.arm(slot, now + delay);
                        model.insert(slot, now + delay);
                    }
                    Step::Disarm(slot) => {
                        wheel.disarm(slot);
                        model.remove(&slot);
                    }
                    Step::Wait(time) => now += time,
                }
                let mut fired = Vec::new();
                wheel.advance(now, &mut fired);
                for slot in fired {
                    let deadline = model.remove(&slot).expect("it was armed");
                    prop_assert!(deadline <= now);
                }
                for deadline in model.values() {
                    prop_assert!(deadline + TICK_MS > now, "{deadline} at {now}");
                    let sleep = wheel.next_due_ms(now).expect("something is armed");
                    prop_assert!(now + sleep <= deadline + TICK_MS);
                }
                prop_assert_eq!(wheel.next_due_ms(now).is_none(), model.is_empty());
            }
        }
    }
}
