//! A table of slots that are used again, each use with a tag of its own, so that
//! an event of an earlier use is told from one of the present.

/// Generations go up to here, and then begin anew. What is past it an engine can use for tokens
/// that are not of slots: a busy thread uses one slot ten thousand times a second, and so comes
/// around in days.
pub(super) const GENERATIONS: u32 = u32::MAX - 15;

/// Names one use of one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) index: u32,
    pub(super) generation: u32,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Slab<T> {
    slots: Vec<Slot<T>>,
    /// Indexes of free slots; the last one freed is used first, for its memory
    /// is warm.
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Slab<T> {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    pub(super) fn insert(&mut self, value: T) -> Key {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                value: None,
            });
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let slot = &mut self.slots[index as usize];
        slot.value = Some(value);
        Key {
            index,
            generation: slot.generation,
        }
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation == key.generation {
            slot.value.as_mut()
        } else {
            None
        }
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation != key.generation {
            return None;
        }
        let value = slot.value.take()?;
        // Nobody keeps a key for four thousand million uses.
        slot.generation = (slot.generation + 1) % GENERATIONS;
        self.free.push(key.index);
        Some(value)
    }

    pub(super) fn for_each(&self, mut look: impl FnMut(Key, &T)) {
        for (index, slot) in (0..).zip(&self.slots) {
            if let Some(value) = &slot.value {
                let generation = slot.generation;
                look(Key { index, generation }, value);
            }
        }
    }

    /// The key of the slot's present use.
    pub(super) fn key_at(&self, index: u32) -> Option<Key> {
        let slot = self.slots.get(index as usize)?;
        slot.value.as_ref().map(|_| Key {
            index,
            generation: slot.generation,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_good_for_one_use() {
        let mut slab = Slab::new();
        let (a, b) = (slab.insert("a"), slab.insert("b"));
        assert_eq!(slab.get_mut(a), Some(&mut "a"));
        assert_eq!(slab.remove(a), Some("a"));
        assert_eq!(slab.get_mut(a), None);
        assert_eq!(slab.remove(a), None);
        assert_eq!(slab.key_at(a.index), None);
        let c = slab.insert("c");
        assert_eq!(c.index, a.index);
        assert_eq!(slab.get_mut(a), None);
        assert_eq!(slab.key_at(c.index), Some(c));
        assert_eq!(slab.remove(b), Some("b"));
    }

    #[test]
    fn generations_come_around_before_the_tokens_of_others() {
        let mut slab = Slab::new();
        slab.insert("a");
        slab.slots[0].generation = GENERATIONS - 1;
        let last = slab.key_at(0).unwrap();
        assert_eq!(slab.remove(last), Some("a"));
        let first = slab.insert("b");
        assert_eq!((first.index, first.generation), (0, 0));
        assert_eq!(slab.get_mut(last), None);
    }
}
