//! Which slots are in use: a set of small numbers that is walked in ascending order and costs a bit for each.
//!
//! A slab keeps the room of its peak. Walking the slab would cost what the peak was; walking this costs what there is.

/// Three levels of words: a bit of a level says that the word of that number, one level down, is not zero. So 24 bits of
/// slots are 64 words on top.
#[derive(Debug, Default)]
pub(super) struct SlotSet {
    levels: [Vec<u64>; 3],
}

/// A word has this many bits, as a power of two.
const SHIFT: u32 = u64::BITS.trailing_zeros();
const MASK: usize = u64::BITS as usize - 1;

impl SlotSet {
    /// Allocates a bit for each slot up to the highest.
    pub(super) fn insert(&mut self, slot: usize) {
        let mut at = slot;
        for level in self.levels.iter_mut().rev() {
            let word = at >> SHIFT;
            if level.len() <= word {
                level.resize(word + 1, 0);
            }
            level[word] |= 1 << (at & MASK);
            at = word;
        }
    }

    pub(super) fn remove(&mut self, slot: usize) {
        let mut at = slot;
        for level in self.levels.iter_mut().rev() {
            let Some(word) = level.get_mut(at >> SHIFT) else { return };
            *word &= !(1 << (at & MASK));
            if *word != 0 {
                return;
            }
            at >>= SHIFT;
        }
    }

    /// One past the highest slot of the set.
    pub(super) fn end(&self) -> usize {
        let Some(mut at) = self.levels[0].iter().rposition(|word| *word != 0) else { return 0 };
        for level in &self.levels {
            at = (at << SHIFT) + level[at].ilog2() as usize;
        }
        at + 1
    }

    /// The first slot of the set from `from` on.
    pub(super) fn next(&self, from: usize) -> Option<usize> {
        self.next_at(self.levels.len() - 1, from)
    }

    fn next_at(&self, level: usize, from: usize) -> Option<usize> {
        let words = self.levels.get(level)?;
        let word = from >> SHIFT;
        let here = words.get(word)? & u64::MAX << (from & MASK);
        if here != 0 {
            return Some(word << SHIFT | here.trailing_zeros() as usize);
        }
        let word = match level.checked_sub(1) {
            Some(above) => self.next_at(above, word + 1)?,
            None => (word + 1..words.len()).find(|word| words[*word] != 0)?,
        };
        Some(word << SHIFT | words[word].trailing_zeros() as usize)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ten_of_a_former_crowd_are_found_at_once() {
        let mut set = SlotSet::default();
        (0..1 << 20).for_each(|slot| set.insert(slot));
        (0..(1 << 20) - 3).filter(|slot| slot % 100_000 != 7).for_each(|slot| set.remove(slot));
        let mut found = vec![];
        while let Some(slot) = set.next(found.last().map_or(0, |last| last + 1)) {
            found.push(slot);
        }
        let few = (0..11).map(|n| n * 100_000 + 7).chain((1 << 20) - 3..1 << 20);
        assert_eq!(found, few.filter(|slot| *slot < 1 << 20).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn agrees_with_a_plain_set(ops in prop::collection::vec((any::<bool>(), 0usize..9000), 0..300)) {
            let (mut set, mut plain) = (SlotSet::default(), BTreeSet::new());
            for (insert, slot) in ops {
                if insert { set.insert(slot); plain.insert(slot); } else { set.remove(slot); plain.remove(&slot); }
                prop_assert_eq!(set.next(slot), plain.range(slot..).next().copied());
                prop_assert_eq!(set.next(0), plain.first().copied());
                prop_assert_eq!(set.end(), plain.last().map_or(0, |last| last + 1));
            }
        }
    }
}
